//! One session: one connection, from the first byte to its loss.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::pending,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{Client, Event, ServerError, Statistics, Subscriber, connection::State};
use futures_util::{FutureExt as _, StreamExt as _};
use socketioxide_adapter_core::{
    Error, Result,
    transport::{
        Continuity, Driver, Name, SessionUp, Step,
        pulse::{self, SILENT_TICKS, TICK},
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::{
    Nats,
    companion::{self, Companion},
};

/// A connection is dead after so many ticks without an echo as well, 8 to 8.5 s, also if others are heard: what we send may
/// vanish. It is longer than without a byte because an echo comes behind whatever the server holds for us.
const UNHEARD_TICKS: u32 = 16;
/// A server that is about to stop is left within this time, not by all its clients at once.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Events of the client that wait for the session.
const EVENTS: usize = 64;

impl Nats {
    /// One session, as [`Driver::run`]: connects, subscribes to all wanted subjects, and serves until something breaks.
    ///
    /// # Errors
    /// What broke.
    pub async fn run_with<C: Companion>(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        up: SessionUp,
        companion: Option<&C>,
    ) -> Result<Infallible> {
        let nats = self;
        let (sender, events) = mpsc::channel(EVENTS);
        let noticing = nats.clone();
        let on_event = move |event| match denied(&event) {
            // Here and now: what was published before must not be taken for accepted.
            Some((Step::Publish, subject)) if noticing.is_topic(subject) => {
                let denied = || noticing.origin.denied(Step::Publish, subject);
                noticing.publisher.refuse(subject, denied);
            }
            // If there is no room, the ticks find out what matters.
            _ => drop(sender.try_send(event)),
        };
        let connecting = nats.connect(on_event);
        let client = connecting.await?;
        nats.largest
            .fetch_min(client.max_payload(), Ordering::Relaxed);
        let mut session = Session {
            nats,
            tasks,
            client: client.clone(),
            events,
            readers: HashMap::new(),
            subscriptions: 0,
            complaint: None,
            leave: None,
        };
        let answers = client.new_inbox();
        let messages = session.subscribe(&format!("{answers}.*")).await?;
        let _answers = session.spawn(read_answers::<C>(nats.clone(), messages));
        nats.publisher.set(Some((client.clone(), answers)));
        // The first echo.
        session.flush().await?;
        // Before a companion has what was missed sent to it: on a narrow way, the answers would come behind all of that.
        session.reconcile().await?;
        let statistics = client.statistics();
        let (ready, is_ready) = oneshot::channel();
        let beside = match companion {
            Some(companion) => {
                let inbox = client.new_inbox();
                let session = companion::Session {
                    messages: session.subscribe(&inbox).await?,
                    client,
                    inbox,
                };
                companion.run(session, ready).left_future()
            }
            None => {
                let _ = ready.send(());
                pending().right_future()
            }
        };
        let main = async {
            // A companion that is over before it is ready ends the session itself.
            let _ = session.noticing(is_ready).await?;
            up.up();
            tokio::select! {
                error = session.serve() => error,
                () = silence(nats, &statistics) => Err(nats.origin.lost("no sign of life")),
            }
        };
        tokio::select! {
            error = main => error,
            error = beside => error,
        }
    }
}

/// Asks for a sign of life at each tick, and returns when nothing was received for too long, or nothing of our own.
async fn silence(nats: &Nats, statistics: &Statistics) {
    let received = || {
        nats.publisher.ask();
        Some(statistics.in_bytes.load(Ordering::Relaxed))
    };
    let echoes = || Some(nats.publisher.ask());
    tokio::select! {
        () = pulse::silence(SILENT_TICKS, received) => {}
        () = pulse::silence(UNHEARD_TICKS, echoes) => {}
    }
}

struct Session<'a> {
    nats: &'a Arc<Nats>,
    tasks: &'a TaskTracker,
    client: Client,
    events: mpsc::Receiver<Event>,
    /// With the client's number of the subscription. Without its reader the client gives it up.
    readers: HashMap<Name, (u64, AbortOnDropHandle<()>)>,
    /// How many subscriptions there were so far: the client numbers them from 1.
    subscriptions: u64,
    /// The last error that the server told of.
    complaint: Option<String>,
    /// When to leave a server that is about to stop.
    leave: Option<Instant>,
}

impl Session<'_> {
    async fn serve(&mut self) -> Result<Infallible> {
        let nats = self.nats;
        loop {
            let wakes = timeout(TICK, nats.topics.changed());
            let _ = self.noticing(wakes).await?;
            if self.client.connection_state() != State::Connected {
                return Err(self.lost());
            }
            self.reconcile().await?;
        }
    }

    /// Makes the subscriptions of the server the same as the wanted ones.
    async fn reconcile(&mut self) -> Result<()> {
        let topics = &self.nats.topics;
        let differences = topics.differences();
        for subject in differences.unwanted {
            self.readers.remove(&subject);
        }
        let mut missing = differences.missing;
        if missing.is_empty() {
            return Ok(());
        }
        topics.ask(&missing);
        // The server sends before it confirms.
        topics.open(&missing, |_| Continuity::Unknown);
        for subject in &missing {
            // Somebody else wants what is subscribed already.
            if self.readers.contains_key(subject) {
                continue;
            }
            let subscriber = self.subscribe(subject).await?;
            let reading = read(
                self.nats.clone(),
                topics.session(),
                subject.clone(),
                subscriber,
            );
            let reader = (self.subscriptions, self.spawn(reading));
            self.readers.insert(subject.clone(), reader);
        }
        self.flush().await?;
        // Not those that were refused meanwhile.
        missing.retain(|subject| self.readers.contains_key(subject));
        topics.confirm(&missing, 0, |_| Continuity::Unknown);
        Ok(())
    }

    async fn subscribe(&mut self, subject: &str) -> Result<Subscriber> {
        self.subscriptions += 1;
        let call = self.client.subscribe(subject.to_owned());
        call.await.map_err(|_| self.lost())
    }

    /// A task that ends with the session, and that `close` waits for.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(self.tasks.spawn(task))
    }

    /// Waits until the server has read all that was sent so far.
    async fn flush(&mut self) -> Result<()> {
        let (origin, limit) = (&self.nats.origin, self.nats.limits().timeout);
        let flush = timeout(limit, self.nats.publisher.flush());
        match self.noticing(flush).await? {
            Ok(answer) => answer.unwrap_or_else(|_| Err(self.lost())),
            Err(_) => Err(Step::Link.late(origin.name, &origin.at, limit)),
        }
    }

    /// Waits for `future`, and heeds what the client tells meanwhile.
    async fn noticing<T>(&mut self, future: impl Future<Output = T>) -> Result<T> {
        let mut future = pin!(future);
        loop {
            let leave = self.leave;
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.notice(event)?,
                output = &mut future => return Ok(output),
                () = sleep_until(leave.unwrap_or_else(Instant::now)), if leave.is_some() => {
                    let what = "the server is about to stop (lame duck mode), moving to another";
                    return Err(self.nats.origin.lost(what));
                }
            }
        }
    }

    fn notice(&mut self, event: Event) -> Result<()> {
        let nats = self.nats;
        match &event {
            Event::Disconnected | Event::Closed => return Err(self.lost()),
            Event::SlowConsumer(number) => {
                let slow = self.readers.iter().find(|(_, it)| it.0 == *number);
                if let Some((subject, _)) = slow {
                    nats.topics.lagged(subject, 1);
                }
            }
            Event::LameDuckMode if nats.connector.has_choice() => {
                let wait = LEAVE_WITHIN.mul_f64(fastrand::f64());
                self.leave.get_or_insert_with(|| Instant::now() + wait);
            }
            Event::ServerError(complaint) => {
                if let Some((step, subject)) = denied(&event) {
                    if !nats.is_topic(subject) {
                        return Err(nats.origin.denied(Step::Link, subject));
                    }
                    let refusal = || nats.origin.denied(step, subject);
                    nats.topics.refuse(subject, refusal)?;
                    self.readers.remove(subject);
                }
                self.complaint = Some(complaint.to_string());
            }
            _ => {}
        }
        Ok(())
    }

    fn lost(&self) -> Error {
        self.nats.origin.lost(&match &self.complaint {
            Some(complaint) => format!("the connection was lost ({complaint})"),
            None => "the connection was lost".to_owned(),
        })
    }
}

async fn read(nats: Arc<Nats>, session: u64, subject: Name, mut messages: Subscriber) {
    while let Some(message) = messages.next().await {
        nats.topics.push(session, &subject, message.payload);
    }
}

/// Echoes arrive at `<inbox>.echo`, with the number in them; acknowledgements for a companion at `<inbox>.<number>`.
async fn read_answers<C: Companion>(nats: Arc<Nats>, mut messages: Subscriber) {
    while let Some(message) = messages.next().await {
        let tail = message.subject.rsplit('.').next();
        let echo = str::from_utf8(&message.payload).ok();
        if let Some(number) = tail.and_then(|tail| tail.parse().ok()) {
            let answer = C::acknowledgement(&message);
            nats.publisher.acknowledged(number, answer);
        } else if let Some(number) = echo.and_then(|echo| echo.parse().ok()) {
            // A refusal of what the echo followed came before it, by way of another task: let that go first.
            yield_now().await;
            nats.publisher.echoed(number);
        }
    }
}

/// What the server forbids: the subject of `Permissions Violation for Publish to "a.b"`, or for `Subscription to`.
fn denied(event: &Event) -> Option<(Step, &str)> {
    let Event::ServerError(ServerError::Other(text)) = event else {
        return None;
    };
    let what = text.strip_prefix("Permissions Violation for ")?;
    let (step, subject) = match what.strip_prefix("Publish to \"") {
        Some(subject) => (Step::Publish, subject),
        None => (Step::Subscribe, what.strip_prefix("Subscription to \"")?),
    };
    Some((step, subject.split('"').next()?))
}
