//! One session: two connections, from the first byte to the loss of either.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, pending};
use redis::{PushInfo, RedisError, RedisResult, aio::MultiplexedConnection};
use socketioxide_adapter_core::{Error, ErrorKind, Result, transport::SessionUp};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use crate::{
    companion,
    error::{self, Step},
    topics::Channel,
    transport::Shared,
};

/// Channels per SUBSCRIBE.
const BATCH: usize = 512;
/// How often a session looks for dropped subscriptions and for signs of life.
const TICK: Duration = Duration::from_millis(500);
/// A connection is dead after so many ticks in a row without a byte: 2 to 2.5 s. Ticks are counted, not time: if this
/// process itself stood still, that is one tick, and no proof against the server.
const SILENT_TICKS: u32 = 4;

/// Connects, subscribes to all wanted channels, serves until something breaks, and returns what.
pub(crate) async fn run(shared: Arc<Shared>, up: SessionUp) -> Error {
    // Whatever happens, also if this future is dropped: no more publishes, and nobody waits for a confirmation.
    let _end = End(&shared);
    match serve(&shared, up).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.publisher.end();
        self.0.topics.end();
        if let Some(companion) = &self.0.companion {
            companion.end();
        }
    }
}

async fn serve(shared: &Arc<Shared>, up: SessionUp) -> Result<Infallible> {
    let session = shared.topics.session();
    let reader = shared.clone();
    let push = move |push: PushInfo| {
        reader.topics.receive(session, push);
        Ok::<(), Infallible>(())
    };
    let (publishing, subscribing) = tokio::try_join!(
        shared.server.connect(None),
        shared.server.connect(Some(Arc::new(push)))
    )?;
    // Aborted with this future; the tracker lets `close` wait until they are gone.
    let mut drivers = JoinSet::new();
    drivers.spawn(shared.tasks.track_future(publishing.driver));
    drivers.spawn(shared.tasks.track_future(subscribing.driver));
    let mut commands = publishing.commands.clone();
    shared.server.require_primary(&mut commands).await?;
    let subscriber = Subscriber {
        shared,
        commands: subscribing.commands.clone(),
    };
    subscriber.reconcile().await?;
    let (mut companion, received) = accompany(shared, &commands, &mut drivers).await?;
    shared.topics.open();
    shared.publisher.open(publishing.commands);
    up.up();
    let lost = |what: &str| {
        let message = format!("{}: {what}", shared.server.address());
        Err(Step::Link.error(ErrorKind::Interrupted, message))
    };
    tokio::select! {
        _ = drivers.join_next() => lost("the connection was lost"),
        error = watch_publishing(shared, commands) => error,
        never = watch_subscribing(subscribing.commands) => match never {},
        () = silence(&publishing.received) => lost("no sign of life"),
        () = silence(&subscribing.received) => lost("no sign of life"),
        () = silence_of(received.as_deref()) => lost("no sign of life"),
        error = &mut companion => Err(error),
        error = subscriber.run() => error,
    }
}

/// Connects for the companion and lets it run until it is ready. Without one, what is returned never ends.
async fn accompany<'a>(
    shared: &'a Shared,
    publishing: &MultiplexedConnection,
    drivers: &mut JoinSet<()>,
) -> Result<(BoxFuture<'a, Error>, Option<Arc<AtomicUsize>>)> {
    let Some(companion) = &shared.companion else {
        return Ok((Box::pin(pending()), None));
    };
    let own = shared.server.connect(None).await?;
    drivers.spawn(shared.tasks.track_future(own.driver));
    let session = companion::Session {
        own: own.commands,
        publishing: publishing.clone(),
        address: shared.server.address().clone(),
    };
    let (ready, is_ready) = oneshot::channel();
    let mut run = companion.run(session, ready);
    tokio::select! {
        error = &mut run => Err(error),
        _ = is_ready => Ok((run, Some(own.received))),
    }
}

async fn silence_of(received: Option<&AtomicUsize>) {
    match received {
        Some(received) => silence(received).await,
        None => pending().await,
    }
}

/// Asks for a sign of life at each tick, and whether the server is still a primary: one that is demoted goes on to serve.
/// The answer is also the last word on all publishes before the question.
async fn watch_publishing(
    shared: &Shared,
    mut commands: MultiplexedConnection,
) -> Result<Infallible> {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let last = shared.publisher.last();
        // No deadline: `silence` has one, and everything that is received before the answer counts there.
        shared.server.require_primary(&mut commands).await?;
        shared.publisher.answered(last);
    }
}

/// Asks for a sign of life at each tick.
async fn watch_subscribing(mut commands: MultiplexedConnection) -> Infallible {
    let ping = redis::cmd("PING");
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let _ = commands.send_packed_command(&ping).await;
    }
}

/// Returns when nothing was received for too long.
async fn silence(received: &AtomicUsize) {
    let mut ticks = ticks();
    let (mut seen, mut silent) = (0, 0);
    while silent < SILENT_TICKS {
        ticks.tick().await;
        let now = received.load(Ordering::Relaxed);
        silent = if now == seen { silent + 1 } else { 0 };
        seen = now;
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Keeps the subscriptions of the server the same as the wanted ones: one command at a time, so that none overtakes
/// another, and each for all channels that have come together meanwhile.
struct Subscriber<'a> {
    shared: &'a Shared,
    commands: MultiplexedConnection,
}

impl Subscriber<'_> {
    async fn run(&self) -> Result<Infallible> {
        let mut ticks = ticks();
        loop {
            tokio::select! {
                () = self.shared.topics.changed() => {}
                _ = ticks.tick() => {}
            }
            self.reconcile().await?;
        }
    }

    async fn reconcile(&self) -> Result<()> {
        let (unwanted, missing) = self.shared.topics.differences();
        self.unsubscribe(&unwanted).await?;
        self.subscribe(&missing).await
    }

    async fn subscribe(&self, channels: &[Channel]) -> Result<()> {
        let mut commands = self.commands.clone();
        for batch in channels.chunks(BATCH) {
            let Err(refused) = self.answer(commands.subscribe(batch)).await? else {
                continue;
            };
            // The server refuses a batch as a whole. Whom does it mean?
            for channel in batch {
                let refused = match batch {
                    [_] => Err(refused.clone()),
                    _ => self.answer(commands.subscribe(channel)).await?,
                };
                if let Err(error) = refused {
                    self.shared.topics.refuse(channel, || self.error(&error))?;
                }
            }
        }
        Ok(())
    }

    async fn unsubscribe(&self, channels: &[Channel]) -> Result<()> {
        let mut commands = self.commands.clone();
        for batch in channels.chunks(BATCH) {
            // If the server refuses, what it goes on to send is ignored.
            let _ = self.answer(commands.unsubscribe(batch)).await?;
        }
        Ok(())
    }

    /// The server's answer to a command; the outer error is the end of the session.
    async fn answer(&self, call: impl Future<Output = RedisResult<()>>) -> Result<RedisResult<()>> {
        let limit = self.shared.config.timeout;
        match timeout(limit, call).await {
            Ok(Err(error)) if error.is_io_error() => Err(self.error(&error)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(error::late(Step::Link, self.shared.server.address(), limit)),
        }
    }

    fn error(&self, error: &RedisError) -> Error {
        error::from_redis(Step::Subscribe, self.shared.server.address(), error)
    }
}
