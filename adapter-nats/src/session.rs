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
use futures_util::StreamExt as _;
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    transport::{
        Continuity, SessionUp,
        pulse::{self, SILENT_TICKS, ticks},
    },
};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet, yield_now},
    time::{Instant, sleep_until},
};
use tokio_util::task::TaskTracker;

use crate::{
    error::{self, Step},
    log::{self, Opened},
    transport::Shared,
};

/// A connection is dead after so many ticks without an echo as well, 8 to 8.5 s, also if others are heard: what we send may
/// vanish. It is longer than without a byte because an echo comes behind whatever the server holds for us.
const UNHEARD_TICKS: u32 = 16;
/// A server that is about to stop is left within this time, not by all its clients at once.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// Events of the client that wait for the session.
const EVENTS: usize = 64;

/// Connects, subscribes to all wanted subjects, serves until something breaks, and returns what.
pub(crate) async fn run(shared: &Arc<Shared>, tracker: &TaskTracker, up: SessionUp) -> Error {
    // Whatever happens, also if this future is dropped: no more publishes, and nobody waits for a confirmation.
    let _end = End(shared);
    match serve(shared, tracker, up).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.publisher.end();
        self.0.topics.end();
    }
}

async fn serve(shared: &Arc<Shared>, tracker: &TaskTracker, up: SessionUp) -> Result<Infallible> {
    let (sender, events) = mpsc::channel(EVENTS);
    let noticing = shared.clone();
    let on_event = move |event| match denied_publish(&event) {
        // Here and now: what was published before must not be taken for accepted.
        Some(subject) if noticing.is_topic(subject) => {
            let denied = || error::denied(Step::Publish, subject);
            noticing.publisher.refuse(subject, denied);
        }
        // If there is no room, the ticks find out what matters.
        _ => drop(sender.try_send(event)),
    };
    let client = shared.connector.connect(&shared.config, on_event).await?;
    shared.limit_payload(client.max_payload());
    let opened;
    let mut session = Session {
        shared,
        tracker,
        number: shared.topics.session(),
        events,
        tasks: JoinSet::new(),
        readers: HashMap::new(),
        subscriptions: 0,
        complaint: None,
        leave: None,
        client,
        log: None,
    };
    session.listen_for_answers().await?;
    let inbox = session.client.new_inbox();
    let mut frames = None;
    if let Some(log) = &shared.log {
        frames = Some(session.subscribe(&inbox).await?);
        let client = session.client.clone();
        opened = session
            .noticing(log.open(&client, &shared.config))
            .await??;
        // At once: what was found out must not be lost with a session that dies before it is told.
        opened.tell(shared);
        session.log = Some(&opened);
    }
    let log = session.log.zip(frames);
    session.reconcile().await?;
    shared.topics.open();
    up.up();
    let statistics = session.client.statistics();
    tokio::select! {
        error = session.run() => error,
        () = silence(shared, &statistics) => Err(lost("no sign of life")),
        error = read_log(shared, &inbox, log) => error,
    }
}

async fn read_log(
    shared: &Shared,
    inbox: &str,
    log: Option<(&Opened<'_>, Subscriber)>,
) -> Result<Infallible> {
    match log {
        Some((log, frames)) => log.read(shared, inbox, frames).await,
        None => pending().await,
    }
}

/// Asks for a sign of life at each tick, and returns when nothing was received for too long, or nothing of our own.
async fn silence(shared: &Shared, statistics: &Statistics) {
    let received = || {
        shared.publisher.ask();
        Some(statistics.in_bytes.load(Ordering::Relaxed))
    };
    let echoes = || Some(shared.publisher.echoes());
    tokio::select! {
        () = pulse::silence(SILENT_TICKS, received) => {}
        () = pulse::silence(UNHEARD_TICKS, echoes) => {}
    }
}

fn lost(what: &str) -> Error {
    Step::Link.error(ErrorKind::Interrupted, what)
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    tracker: &'a TaskTracker,
    /// For [`Topics::receive`](crate::topics::Topics::receive).
    number: u64,
    client: Client,
    events: mpsc::Receiver<Event>,
    /// Aborted with the session; the tracker lets `close` wait until they are gone.
    tasks: JoinSet<()>,
    readers: HashMap<String, Reader>,
    /// How many subscriptions there were so far: the client numbers them from 1.
    subscriptions: u64,
    /// The last error that the server told of.
    complaint: Option<String>,
    /// When to leave a server that is about to stop.
    leave: Option<Instant>,
    log: Option<&'a Opened<'a>>,
}

struct Reader {
    /// The client's number of the subscription.
    number: u64,
    task: AbortHandle,
}

impl Session<'_> {
    async fn run(&mut self) -> Result<Infallible> {
        let shared = self.shared;
        let mut ticks = ticks();
        loop {
            let wakes = async {
                tokio::select! {
                    () = shared.topics.changed() => {}
                    _ = ticks.tick() => {}
                }
            };
            self.noticing(wakes).await?;
            while self.tasks.try_join_next().is_some() {}
            if self.client.connection_state() != State::Connected {
                return Err(self.lost());
            }
            self.reconcile().await?;
        }
    }

    /// Opens the inbox, and waits for the first echo there.
    async fn listen_for_answers(&mut self) -> Result<()> {
        let inbox = self.client.new_inbox();
        let answers = self.subscribe(&format!("{inbox}.*")).await?;
        let task = read_answers(self.shared.clone(), answers);
        self.tasks.spawn(self.tracker.track_future(task));
        let publisher = &self.shared.publisher;
        publisher.open(self.client.clone(), inbox);
        self.noticing(publisher.flush(&self.shared.config)).await?
    }

    /// Ends a subscription, if there is one: without its reader the client gives it up.
    fn stop_reading(&mut self, subject: &str) {
        if let Some(reader) = self.readers.remove(subject) {
            reader.task.abort();
        }
    }

    /// Makes the subscriptions of the server the same as the wanted ones.
    async fn reconcile(&mut self) -> Result<()> {
        let shared = self.shared;
        let differences = shared.topics.differences();
        for subject in differences.unwanted {
            self.stop_reading(&subject);
        }
        let missing = differences.missing;
        let (logged, missing): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .partition(|subject| shared.is_logged(subject));
        if let Some(log) = self.log.filter(|_| !logged.is_empty()) {
            for subject in &logged {
                shared.topics.ask(subject, None);
            }
            let end = self.noticing(log.end()).await??;
            for subject in &logged {
                shared.topics.confirm(subject, end);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        for subject in &missing {
            shared.topics.ask(subject, Some(Continuity::Unknown));
            // Somebody else wants what is subscribed already.
            if self.readers.contains_key(subject) {
                continue;
            }
            let subscriber = self.subscribe(subject).await?;
            let reader = read(shared.clone(), self.number, subject.clone(), subscriber);
            let reader = Reader {
                number: self.subscriptions,
                task: self.tasks.spawn(self.tracker.track_future(reader)),
            };
            self.readers.insert(subject.clone(), reader);
        }
        self.noticing(shared.publisher.flush(&shared.config))
            .await??;
        for subject in &missing {
            shared.topics.confirm(subject, 0);
        }
        Ok(())
    }

    async fn subscribe(&mut self, subject: &str) -> Result<Subscriber> {
        self.subscriptions += 1;
        let call = self.client.subscribe(subject.to_owned());
        call.await.map_err(|_| self.lost())
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
                    return Err(lost("the server is about to stop (lame duck mode), moving to another"));
                }
            }
        }
    }

    fn notice(&mut self, event: Event) -> Result<()> {
        match &event {
            Event::Disconnected | Event::Closed => return Err(self.lost()),
            Event::SlowConsumer(number) => {
                let slow = self.readers.iter().find(|(_, it)| it.number == *number);
                if let Some((subject, _)) = slow {
                    self.shared.topics.lagged(subject);
                }
            }
            Event::LameDuckMode if self.shared.connector.has_choice(&self.shared.config) => {
                let wait = LEAVE_WITHIN.mul_f64(spread());
                self.leave.get_or_insert_with(|| Instant::now() + wait);
            }
            Event::ServerError(complaint) => {
                if let Some(subject) = denied_subscription(&event) {
                    let denied = || error::denied(Step::Subscribe, subject);
                    self.shared.topics.refuse(subject, denied)?;
                    self.stop_reading(subject);
                }
                if let Some(subject) = denied_subscription(&event).or(denied_publish(&event))
                    && !self.shared.is_topic(subject)
                {
                    return Err(error::denied(Step::Link, subject));
                }
                self.complaint = Some(complaint.to_string());
            }
            _ => {}
        }
        Ok(())
    }

    fn lost(&self) -> Error {
        match &self.complaint {
            Some(complaint) => lost(&format!("the connection was lost ({complaint})")),
            None => lost("the connection was lost"),
        }
    }
}

async fn read(shared: Arc<Shared>, session: u64, subject: String, mut messages: Subscriber) {
    while let Some(message) = messages.next().await {
        shared.topics.receive(session, &subject, &message.payload);
    }
}

/// Echoes arrive at `<inbox>.echo`, with the number in them; acknowledgements of the log at `<inbox>.<number>`.
async fn read_answers(shared: Arc<Shared>, mut messages: Subscriber) {
    while let Some(message) = messages.next().await {
        let tail = message.subject.rsplit('.').next();
        if let Some(number) = tail.and_then(|tail| tail.parse().ok()) {
            let answer = log::acknowledgement(&message);
            shared.publisher.acknowledged(number, answer);
        } else if let Some(number) = number(&message.payload) {
            // A refusal of what the echo followed came before it, by way of another task: let that go first.
            yield_now().await;
            shared.publisher.echoed(number);
        }
    }
}

fn number(payload: &[u8]) -> Option<u64> {
    str::from_utf8(payload).ok()?.parse().ok()
}

/// The subject of `Permissions Violation for Publish to "a.b"`.
fn denied_publish(event: &Event) -> Option<&str> {
    violation(event, "Permissions Violation for Publish to \"")
}

/// The subject of `Permissions Violation for Subscription to "a.b"`.
fn denied_subscription(event: &Event) -> Option<&str> {
    violation(event, "Permissions Violation for Subscription to \"")
}

fn violation<'a>(event: &'a Event, begin: &str) -> Option<&'a str> {
    let Event::ServerError(ServerError::Other(text)) = event else {
        return None;
    };
    text.strip_prefix(begin)?.split('"').next()
}

/// A random number in `[0, 1)`.
fn spread() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = u32::try_from(RandomState::new().hash_one(0) >> 32).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}
