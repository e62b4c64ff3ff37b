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
    Stream, StreamExt as _,
    stream::{FuturesUnordered, iter, select_all},
};
use lapin::{
    Channel, Confirmation, Event, ExchangeKind,
    message::Delivery,
    options::ExchangeDeclareOptions,
    types::{FieldTable, ShortString},
};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    socket::Address,
    transport::{
        Continuity, Driver as _, LinkSender, Receipt, SessionUp, Step,
        pulse::{self, SILENT_TICKS, ticks},
    },
};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, interval_at, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    Amqp, Connection, Source, error,
    source::{ack, prefetch, taken_away},
    transport::Call,
};

const BLOCKED: &str = "the broker takes no messages, it is short of memory or of disk space";
const NOT_STORED: &str = "the broker could not store the message everywhere";
/// Messages acknowledged at once, well below what the broker sends ahead.
const BATCH: usize = 200;
/// How often a node makes sure that it has something to read: RabbitMQ ends a consumer that holds one and the same message
/// for half an hour (`consumer_timeout`), and the last message is held until there is another.
const RENEWAL: Duration = Duration::from_secs(300);

/// Connects, subscribes to all wanted topics, serves until something breaks, and returns what.
pub(crate) async fn run<S: Source>(
    node: &Amqp<S>,
    tasks: &TaskTracker,
    up: SessionUp,
) -> Result<Infallible> {
    let (server, limits) = (node.next_server(), node.limits());
    let both = async {
        tokio::try_join!(
            Connection::open(node, server, "publisher", tasks),
            Connection::open(node, server, "subscriber", tasks)
        )
    };
    // Its share of the time that all have: the next one may answer.
    let servers = node.config.endpoint.servers.len();
    let limit = limits.connect_timeout / u32::try_from(servers).unwrap_or(u32::MAX);
    let Ok(both) = timeout(limit, both).await else {
        let message = node.no_answer(server, limit);
        return Err(Step::Connect.error(S::NAME, ErrorKind::Unavailable, message));
    };
    let (publishing, subscribing) = both?;
    let session = Session {
        node,
        server,
        link: OnceLock::new(),
        is_blocked: AtomicBool::new(false),
    };
    let calls = node.attach(publishing.channel.clone());
    tokio::select! {
        ended = session.serve(&publishing.channel, &subscribing, up) => ended,
        ended = session.confirm(calls) => ended,
        ended = session.watch([&publishing, &subscribing]) => ended,
        ended = session.pulse(&publishing, || session.is_blocked.load(Ordering::Relaxed)) => ended,
        ended = session.pulse(&subscribing, || false) => ended,
    }
}

struct Session<'a, S: Source> {
    node: &'a Amqp<S>,
    server: &'a Address,
    /// There once the session is up.
    link: OnceLock<LinkSender>,
    /// The broker reads nothing from the publishing connection.
    is_blocked: AtomicBool,
}

impl<S: Source> Session<'_, S> {
    async fn serve(
        &self,
        publisher: &Channel,
        subscribing: &Connection,
        up: SessionUp,
    ) -> Result<Infallible> {
        let serving = async {
            let durable = ExchangeDeclareOptions {
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let (exchange, none) = (self.node.exchange.clone(), FieldTable::default());
            let channel = &subscribing.channel;
            let declare = channel.exchange_declare(exchange, ExchangeKind::Topic, durable, none);
            let confirms = publisher.confirm_select(Default::default());
            tokio::try_join!(declare, confirms)?;
            let reader = self.node.config.source.open(self.node, subscribing).await?;
            let _ = self.link.set(up.up());
            let messages = iter(reader.first).map(Ok).chain(reader.consumer);
            tokio::select! {
                ended = self.read(messages, &reader.channel) => ended,
                ended = self.subscribe(channel, reader.queue) => ended,
            }
        };
        serving.await.map_err(self.explain(Step::Subscribe))
    }

    /// Keeps the subscriptions of the broker the same as the wanted ones.
    async fn subscribe(
        &self,
        channel: &Channel,
        queue: Option<ShortString>,
    ) -> lapin::Result<Infallible> {
        let node = self.node;
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
    }

    /// Hands out what arrives.
    async fn read(
        &self,
        messages: impl Stream<Item = lapin::Result<Delivery>> + Unpin,
        channel: &Channel,
    ) -> lapin::Result<Infallible> {
        let mut batches = messages.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let mut last = 1;
            for delivery in batch {
                let delivery = delivery?;
                last = delivery.delivery_tag;
                self.node.hand_out(delivery).await;
            }
            // The broker hands a message that was not acknowledged to the next session: that is how it knows where it was.
            ack(channel, last - 1).await?;
        }
        Err(taken_away())
    }

    /// Brings publishes to their end.
    async fn confirm(&self, mut calls: Receiver<Call>) -> Result<Infallible> {
        let mut open = FuturesUnordered::new();
        loop {
            let (ticket, confirmation) = tokio::select! {
                Some(call) = calls.recv() => {
                    open.push(call);
                    continue;
                }
                Some(ended) = open.next() => ended,
                else => return Err(self.lost(Step::Link, "the connection was lost")),
            };
            let outcome = match confirmation.map_err(self.explain(Step::Publish))? {
                Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))
                    if self
                        .node
                        .topics
                        .is_subscribed(returned.routing_key.as_str()) =>
                {
                    return Err(self.lost(Step::Link, "the broker has lost a subscription of ours"));
                }
                // Some queues may have it.
                Confirmation::Nack(None) => Err(self.lost(Step::Publish, NOT_STORED)),
                _ => Ok(Receipt::default()),
            };
            // Room first, so that who is told can publish at once.
            let (caller, permit) = ticket;
            drop(permit);
            let _ = caller.send(outcome);
        }
    }

    /// Follows what the broker says about the connections.
    async fn watch(&self, connections: [&Connection; 2]) -> Result<Infallible> {
        let mut events = select_all(connections.map(|it| it.lapin.events_listener().boxed()));
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
            if self.is_blocked.swap(blocked, Ordering::Relaxed) == blocked {
                continue;
            }
            // The session stays: what is in our queue still arrives, and nobody else can publish either.
            if blocked {
                link.down(BLOCKED);
            } else {
                // A replay that was under way goes on.
                let replayed = self.node.config.source.replays().into();
                self.node.resume(Continuity::Unbroken { replayed });
                link.up();
            }
        }
        Err(self.lost(Step::Link, "the connection was lost"))
    }

    /// Asks for a sign of life at each tick, also whether the channel still lives. Ends when nothing was received for too
    /// long.
    async fn pulse(
        &self,
        connection: &Connection,
        is_excused: impl Fn() -> bool,
    ) -> Result<Infallible> {
        let asks = async {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                // No deadline: everything that is received before the answer counts as a sign of life.
                if !is_excused() {
                    prefetch(&connection.channel).await?;
                }
            }
        };
        let received = || (!is_excused()).then(|| connection.received.bytes());
        tokio::select! {
            ended = asks => {
                let ended: lapin::Result<Infallible> = ended;
                ended.map_err(self.explain(Step::Link))
            },
            () = pulse::silence(SILENT_TICKS, received) => Err(self.lost(Step::Link, "no sign of life")),
        }
    }

    fn explain(&self, step: Step) -> impl Fn(lapin::Error) -> Error {
        error::explain(S::NAME, step, self.server)
    }

    fn lost(&self, step: Step, what: &str) -> Error {
        step.error(S::NAME, step.lost(), format!("{}: {what}", self.server))
    }
}
