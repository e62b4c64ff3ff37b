//! One session: two connections, from the first byte to the loss of either.

use std::{
    convert::Infallible,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::try_join,
    stream::{iter, poll_fn, select_all},
};
use lapin::{Confirmation, Event, ExchangeKind, options::ExchangeDeclareOptions};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    socket::Address,
    transport::{
        Continuity, Limits, LinkSender, Receipt, SessionUp, Step,
        pulse::{self, ticks},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    Amqp, Connection, Reader, Source, error,
    source::{ack, prefetch, taken_away},
    transport::{Call, lock},
};

const BLOCKED: &str = "the broker takes no messages, it is short of memory or of disk space";
const LOST: &str = "the connection was lost";
const NOT_STORED: &str = "the broker could not store the message everywhere";
const UNBOUND: &str = "the broker has lost a subscription of ours";
/// Messages acknowledged at once, well below what the broker sends ahead.
const BATCH: usize = 200;
/// Fences that may be on their way besides the payloads. The session takes each up before it sends the next.
const FENCES: usize = 16;
/// How often a node makes sure that it has something to read: RabbitMQ ends a consumer that holds one and the same message
/// for half an hour (`consumer_timeout`), and the last message is held until there is another.
const RENEWAL: Duration = Duration::from_secs(300);

/// Connects, subscribes to all wanted topics, serves until something breaks, and returns what.
pub(crate) async fn run<S: Source>(
    node: &Amqp<S>,
    tasks: &TaskTracker,
    up: SessionUp,
) -> Result<Infallible> {
    let endpoint = &node.config.endpoint;
    let (server, limit) = endpoint.turn(node.turn.fetch_add(1, Ordering::Relaxed));
    let open = |purpose| Connection::open(node, server, purpose, tasks);
    let both = try_join(open("publisher"), open("subscriber"));
    let Ok(both) = timeout(limit, both).await else {
        let message = node.no_answer(server, limit);
        return Err(Step::Connect.error(S::NAME, ErrorKind::Unavailable, message));
    };
    let (publishing, subscribing) = both?;
    let (calls, called) = mpsc::channel(endpoint.limits.publish_buffer.messages + FENCES);
    *lock(&node.line) = Some((publishing.channel.clone(), calls));
    let session = Session {
        node,
        server,
        publishing,
        subscribing,
        link: OnceLock::new(),
        is_blocked: AtomicBool::new(false),
    };
    tokio::select! {
        ended = session.serve(up) => ended.map_err(session.explain(Step::Subscribe)),
        ended = session.confirm(called) => ended,
        ended = session.watch() => ended,
        ended = session.pulse(&session.publishing, true) => ended,
        ended = session.pulse(&session.subscribing, false) => ended,
    }
}

struct Session<'a, S: Source> {
    node: &'a Amqp<S>,
    server: &'a Address,
    publishing: Connection,
    subscribing: Connection,
    /// There once the session is up.
    link: OnceLock<LinkSender>,
    /// The broker reads nothing from the publishing connection.
    is_blocked: AtomicBool,
}

impl<S: Source> Session<'_, S> {
    async fn serve(&self, up: SessionUp) -> lapin::Result<Infallible> {
        let (node, channel) = (self.node, &self.subscribing.channel);
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let (exchange, kind) = (node.exchange.clone(), ExchangeKind::Topic);
        tokio::try_join!(
            channel.exchange_declare(exchange, kind, durable, Default::default()),
            self.publishing.channel.confirm_select(Default::default())
        )?;
        let mut reader = node.config.source.open(node, &self.subscribing).await?;
        let _ = self.link.set(up.up());
        let queue = reader.queue.take();
        let follow = async {
            let mut ticks = ticks();
            let mut renewals = interval_at(Instant::now() + RENEWAL, RENEWAL);
            let mut renew = false;
            loop {
                node.follow(channel, queue.as_ref(), renew).await?;
                renew = tokio::select! {
                    () = node.topics.changed() => false,
                    _ = ticks.tick() => false,
                    _ = renewals.tick() => true,
                };
            }
        };
        tokio::select! {
            ended = follow => ended,
            ended = self.read(reader) => ended,
        }
    }

    /// Hands out what arrives.
    async fn read(&self, reader: Reader) -> lapin::Result<Infallible> {
        let messages = iter(reader.first).map(Ok).chain(reader.consumer);
        let mut batches = messages.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let mut last = 1;
            for delivery in batch {
                let delivery = delivery?;
                last = delivery.delivery_tag;
                self.node.hand_out(delivery).await;
            }
            // The broker hands a message that was not acknowledged to the next session: that is how it knows where it was.
            ack(&reader.channel, last - 1).await?;
        }
        Err(taken_away())
    }

    /// Brings publishes to their end.
    async fn confirm(&self, mut calls: mpsc::Receiver<Call>) -> Result<Infallible> {
        let topics = &self.node.topics;
        let calls = poll_fn(|cx| calls.poll_recv(cx));
        let mut ended = calls.buffer_unordered(Limits::PUBLISHES + FENCES);
        while let Some(((caller, permit), confirmation)) = ended.next().await {
            let confirmation = confirmation.map_err(self.explain(Step::Publish))?;
            // Some queues may have it.
            let is_stored = !matches!(confirmation, Confirmation::Nack(None));
            if let Some(returned) = confirmation.take_message()
                && topics.is_subscribed(returned.routing_key.as_str())
            {
                return Err(self.lost(Step::Link, UNBOUND));
            }
            let receipt = is_stored.then(Receipt::default);
            let outcome = receipt.ok_or_else(|| self.lost(Step::Publish, NOT_STORED));
            // Who is told may publish at once.
            drop(permit);
            let _ = caller.send(outcome);
        }
        Err(self.lost(Step::Link, LOST))
    }

    /// Follows what the broker says about the connections.
    async fn watch(&self) -> Result<Infallible> {
        let both = [&self.publishing, &self.subscribing];
        let mut events = select_all(both.map(|it| it.lapin.events_listener().boxed()));
        while let Some(event) = events.next().await {
            let blocked = match event {
                Event::ConnectionBlocked(_) => true,
                Event::ConnectionUnblocked => false,
                // A soft one is about one channel, and told there.
                Event::Error(error) if !error.is_amqp_soft_error() => {
                    return Err(self.explain(Step::Link)(error));
                }
                _ => continue,
            };
            let Some(link) = self.link.get() else {
                return Err(self.lost(Step::Connect, BLOCKED));
            };
            let is_new = self.is_blocked.swap(blocked, Ordering::Relaxed) != blocked;
            // The session stays: what is in our queue still arrives, and nobody else can publish either.
            if is_new && blocked {
                link.down(BLOCKED);
            } else if is_new {
                // A replay that was under way goes on.
                let replayed = self.node.config.source.replays().into();
                self.node.resume(Continuity::Unbroken { replayed });
                link.up();
            }
        }
        Err(self.lost(Step::Link, LOST))
    }

    /// Asks for a sign of life at each tick, also whether the channel still lives, and ends when nothing was received for
    /// too long.
    async fn pulse(&self, connection: &Connection, publishes: bool) -> Result<Infallible> {
        let received = || {
            let is_excused = publishes && self.is_blocked.load(Ordering::Relaxed);
            (!is_excused).then(|| connection.received.bytes())
        };
        match pulse::beat(received, || prefetch(&connection.channel)).await {
            Some(error) => Err(self.explain(Step::Link)(error)),
            None => Err(self.lost(Step::Link, "no sign of life")),
        }
    }

    fn explain(&self, step: Step) -> impl Fn(lapin::Error) -> Error {
        error::explain(S::NAME, step, self.server)
    }

    fn lost(&self, step: Step, what: &str) -> Error {
        step.error(S::NAME, step.lost(), format!("{}: {what}", self.server))
    }
}
