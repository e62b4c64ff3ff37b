//! One session: two connections to each of its servers, from the first byte to the loss of any.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{
    future::{BoxFuture, join_all, pending, try_join, try_join_all},
    stream::{FuturesUnordered, StreamExt as _},
};
use redis::{Cmd, PushInfo, RedisError, Value, aio::MultiplexedConnection};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    transport::{
        Receipt, SessionUp,
        pulse::{self, SILENT_TICKS, ticks},
    },
};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_util::task::TaskTracker;

use crate::{
    companion,
    config::{Address, RedisConfig},
    connection::require_primary,
    error::{self, Step},
    publisher::Publisher,
    servers::Found,
    slots::Slots,
    topics::Placed,
    transport::Shared,
};

/// Commands to subscribe that are sent at once.
const BATCH: usize = 512;
/// How often a channel is followed to another server at once; then it has time until the next tick.
const MOVES: u32 = 3;

/// What calls need of the present session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    servers: Vec<Server>,
    /// Which server has which channel, in a cluster; otherwise the first and only one has all.
    slots: Option<Slots>,
    /// A slot has moved to a server that this session does not know.
    unknown_owner: Notify,
}

#[derive(Debug)]
struct Server {
    publisher: Publisher,
    subscribing: MultiplexedConnection,
}

impl Session {
    /// Publishes and waits for the server's answer.
    pub(crate) async fn publish(
        &self,
        config: &RedisConfig,
        channel: &[u8],
        payload: &[u8],
    ) -> Result<Receipt> {
        let verb = if self.slots.is_some() {
            "SPUBLISH"
        } else {
            "PUBLISH"
        };
        let mut command = Cmd::with_capacity(3, channel.len() + payload.len() + 16);
        command.arg(verb).arg(channel).arg(payload);
        match self
            .send(config, self.server_of(channel), &command, payload.len())
            .await?
        {
            Value::Int(receivers) => Ok(Receipt::with_receivers(receivers.try_into().unwrap_or(0))),
            _ => {
                Err(Step::Publish
                    .error(ErrorKind::Protocol, "the answer is no number of receivers"))
            }
        }
    }

    /// Sends a command that carries a payload of `bytes` to a server, in one order with the publishes.
    pub(crate) async fn send(
        &self,
        config: &RedisConfig,
        server: usize,
        command: &Cmd,
        bytes: usize,
    ) -> Result<Value> {
        let publisher = &self.servers[server].publisher;
        publisher
            .send(config, command, bytes)
            .await?
            .map_err(|error| {
                self.has_moved(server, &error);
                error::from_redis(Step::Publish, &publisher.address, &error)
            })
    }

    fn server_of(&self, channel: &[u8]) -> usize {
        self.slots.as_ref().map_or(0, |slots| slots.of(channel))
    }

    /// Follows a slot to its new master. Returns whether that is what `error`, which `server` has answered, says.
    fn has_moved(&self, server: usize, error: &RedisError) -> bool {
        let (Some(slots), Some((owner, slot))) = (&self.slots, error.redirect_node()) else {
            return false;
        };
        let here = &self.servers[server].publisher.address;
        let owner = owner.rsplit_once(':').and_then(|(host, port)| {
            let host = if host.is_empty() { here.host()? } else { host };
            let owner = here.beside(host.to_owned(), port.parse().ok()?);
            self.servers
                .iter()
                .position(|server| server.publisher.address == owner)
        });
        match owner {
            Some(owner) => slots.set(slot, owner),
            None => self.unknown_owner.notify_one(),
        }
        true
    }
}

/// Connects, subscribes to all wanted channels, serves until something breaks, and returns what.
pub(crate) async fn run(shared: &Arc<Shared>, tasks: &TaskTracker, up: SessionUp) -> Error {
    // Whatever happens, also if this future is dropped: no more publishes, and nobody waits for a confirmation.
    let _end = End(shared);
    match serve(shared, tasks, up).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.topics.end();
        if let Some(companion) = &self.0.companion {
            companion.end();
        }
    }
}

async fn serve(shared: &Arc<Shared>, tasks: &TaskTracker, up: SessionUp) -> Result<Infallible> {
    let Found { addresses, slots } = shared.servers.find().await?;
    let number = shared.topics.next_session();
    let connecting = addresses.iter().enumerate().map(|(server, address)| {
        let reader = shared.clone();
        let push = move |push: PushInfo| {
            reader.topics.receive(number, server, push);
            Ok::<(), Infallible>(())
        };
        let client = &shared.servers.client;
        try_join(
            client.connect(address, None),
            client.connect(address, Some(Arc::new(push))),
        )
    });
    let pairs = try_join_all(connecting).await?;
    // Aborted with this future; the tracker lets `close` wait until they are gone.
    let mut drivers = JoinSet::new();
    let mut session = Session {
        slots,
        ..Session::default()
    };
    let mut received = Vec::new();
    for (address, (publishing, subscribing)) in addresses.iter().zip(pairs) {
        received.push([publishing.received, subscribing.received]);
        for driver in [publishing.driver, subscribing.driver] {
            drivers.spawn(tasks.track_future(driver));
        }
        session.servers.push(Server {
            publisher: Publisher::new(address.clone(), publishing.commands),
            subscribing: subscribing.commands,
        });
    }
    let session = Arc::new(session);
    let sharded = session.slots.is_some();
    try_join_all(session.servers.iter().map(|server| async move {
        let Publisher {
            address,
            connection,
            ..
        } = &server.publisher;
        require_primary(Step::Connect, address, &mut connection.clone(), sharded).await
    }))
    .await?;
    let subscriber = Subscriber {
        shared,
        session: &session,
    };
    if !subscriber.reconcile().await? {
        return Err(Step::Connect.error(ErrorKind::Unavailable, "slots of the cluster are moving"));
    }
    let companion = accompany(shared, &session, tasks, &mut drivers).await?;
    shared.topics.open(session.clone());
    up.up();
    let at = shared.config.at();
    let lost = |what: &str| Err(Step::Link.error(ErrorKind::Interrupted, format!("{at}: {what}")));
    let connections = session.servers.iter().zip(&received);
    let mut watching: FuturesUnordered<_> = connections
        .flat_map(
            |(
                Server {
                    publisher,
                    subscribing,
                },
                received,
            )| {
                let at = &publisher.address;
                let connection = &publisher.connection;
                [
                    watch(at, connection, &received[0], sharded, Some(publisher)),
                    watch(at, subscribing, &received[1], sharded, None),
                ]
            },
        )
        .collect();
    tokio::select! {
        _ = drivers.join_next() => lost("the connection was lost"),
        Some(error) = watching.next() => Err(error),
        error = shared.servers.replaced(&addresses[0]) => Err(error),
        () = session.unknown_owner.notified() => lost("a slot has moved to a server that is new"),
        error = companion => Err(error),
        error = subscriber.run() => error,
    }
}

/// Connects for the companion and lets it run until it is ready. Without one, what is returned never ends.
async fn accompany<'a>(
    shared: &'a Shared,
    session: &Session,
    tasks: &TaskTracker,
    drivers: &mut JoinSet<()>,
) -> Result<BoxFuture<'a, Error>> {
    let (Some(companion), [server, ..]) = (&shared.companion, session.servers.as_slice()) else {
        return Ok(Box::pin(pending()));
    };
    let address = server.publisher.address.clone();
    let own = shared.servers.client.connect(&address, None).await?;
    drivers.spawn(tasks.track_future(own.driver));
    let session = companion::Session {
        own: own.commands,
        publishing: server.publisher.connection.clone(),
        address: address.clone(),
    };
    let (ready, is_ready) = oneshot::channel();
    let mut run = companion.run(session, ready);
    tokio::select! {
        error = &mut run => return Err(error),
        _ = is_ready => {}
    }
    Ok(Box::pin(async move {
        tokio::select! {
            error = run => error,
            () = silence(&own.received) => silent(&address),
        }
    }))
}

/// Asks for a sign of life at each tick, and whether the server is still a primary: one that is demoted goes on to serve.
/// Returns once it is none or silent. The answer is also the last word on all publishes before the question.
async fn watch(
    at: &Address,
    connection: &MultiplexedConnection,
    received: &AtomicUsize,
    sharded: bool,
    publisher: Option<&Publisher>,
) -> Error {
    let asking = async {
        let (mut commands, mut ticks) = (connection.clone(), ticks());
        loop {
            ticks.tick().await;
            let sent = publisher.map(Publisher::sent);
            // No deadline: `silence` has one, and everything that is received before the answer counts there.
            require_primary(Step::Link, at, &mut commands, sharded).await?;
            if let (Some(publisher), Some(sent)) = (publisher, sent) {
                publisher.answered(sent);
            }
        }
    };
    tokio::select! {
        Err::<Infallible, _>(error) = asking => error,
        () = silence(received) => silent(at),
    }
}

fn silent(at: &Address) -> Error {
    Step::Link.error(ErrorKind::Interrupted, format!("{at}: no sign of life"))
}

/// Returns when nothing was received for too long.
async fn silence(received: &AtomicUsize) {
    pulse::silence(SILENT_TICKS, || {
        Some(received.load(Ordering::Relaxed) as u64)
    })
    .await;
}

/// Keeps the subscriptions of the servers the same as the wanted ones: never two commands for one channel at a time, so
/// that none overtakes another.
struct Subscriber<'a> {
    shared: &'a Shared,
    session: &'a Session,
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

    /// Returns whether the servers have all wanted channels.
    async fn reconcile(&self) -> Result<bool> {
        let [subscribe, unsubscribe] = match self.session.slots {
            Some(_) => ["SSUBSCRIBE", "SUNSUBSCRIBE"],
            None => ["SUBSCRIBE", "UNSUBSCRIBE"],
        };
        for _ in 0..MOVES {
            let topics = &self.shared.topics;
            let (unwanted, missing) = topics.differences(|channel| self.session.server_of(channel));
            // If a server refuses, what it goes on to send is ignored.
            self.refused(unsubscribe, &unwanted).await?;
            let mut moved = false;
            for ((server, channel), error) in self.refused(subscribe, &missing).await? {
                if self.session.has_moved(*server, &error) {
                    moved = true;
                } else {
                    topics.refuse(channel, || self.error(*server, &error))?;
                }
            }
            if !moved {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Sends a command for each of the channels; returns which ones the servers refuse. An error is the end of the session.
    async fn refused<'a>(
        &self,
        verb: &str,
        channels: &'a [Placed],
    ) -> Result<Vec<(&'a Placed, RedisError)>> {
        let limit = self.shared.config.limits.timeout;
        let mut refused = Vec::new();
        for batch in channels.chunks(BATCH) {
            let answers = batch.iter().map(async |(server, channel)| {
                let mut commands = self.session.servers[*server].subscribing.clone();
                redis::cmd(verb)
                    .arg(channel)
                    .query_async::<Value>(&mut commands)
                    .await
            });
            let answers = timeout(limit, join_all(answers)).await;
            let answers =
                answers.map_err(|_| error::late(Step::Link, self.shared.config.at(), limit))?;
            for (placed, answer) in batch.iter().zip(answers) {
                match answer {
                    Err(error) if error.is_io_error() => return Err(self.error(placed.0, &error)),
                    Err(error) => refused.push((placed, error)),
                    Ok(_) => {}
                }
            }
        }
        Ok(refused)
    }

    fn error(&self, server: usize, error: &RedisError) -> Error {
        let at = &self.session.servers[server].publisher.address;
        error::from_redis(Step::Subscribe, at, error)
    }
}
