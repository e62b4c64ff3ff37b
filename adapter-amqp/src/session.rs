//! One session: two connections, from the first byte to the loss of either.

use std::{
    convert::Infallible,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    stream::{BoxStream, FuturesUnordered, iter, select_all},
};
use lapin::{
    Channel, Confirmation, Consumer, Event, ExchangeKind,
    message::Delivery,
    options::{BasicAckOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
    types::FieldTable,
};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    socket::Address,
    transport::{
        Continuity, LinkSender, Receipt, SessionUp,
        pulse::{self, SILENT_TICKS, ticks},
    },
};
use tokio::{
    sync::mpsc::Receiver,
    time::{Instant, interval_at, timeout},
};
use tokio_util::task::TaskTracker;

use crate::{
    config::Source,
    connection::Connection,
    error::{self, Step},
    keys,
    publisher::Call,
    queue::Queue,
    stream::{self, Position},
    transport::Shared,
};

/// Messages that the broker sends ahead of our acknowledgements.
pub(crate) const PREFETCH: u16 = 500;
/// Messages acknowledged at once, well below the above.
const BATCH: usize = 200;
/// How long a reader that stands still may hold up all the others of this node, where the broker keeps what waits. With a
/// heartbeat before that and one after it, less than the 7 s after which the other nodes would be taken for dead.
const PATIENCE: Duration = Duration::from_secs(4);
/// How often a node makes sure that it has something to read: RabbitMQ ends a consumer that holds one and the same message
/// for half an hour (`consumer_timeout`), and the last message of a durable queue is held until there is another.
const RENEWAL: Duration = Duration::from_secs(300);
/// What a session reads from.
pub(crate) struct Reader {
    pub(crate) channel: Channel,
    pub(crate) consumer: Consumer,
    /// What was read from it already, but not handed out.
    pub(crate) first: Vec<Delivery>,
    /// Up to this offset of the stream, what is read was published while we were away.
    pub(crate) replay_until: Option<i64>,
    /// The fence that must come back before the session is up.
    pub(crate) wait_for: Option<u64>,
}

/// Connects, subscribes to all wanted topics, serves until something breaks, and returns what.
pub(crate) async fn run(shared: &Shared, tasks: &TaskTracker, up: SessionUp) -> Error {
    // Whatever happens, also if this future is dropped: no more publishes, and nobody waits for a confirmation.
    let _end = End(shared);
    let (server, tls) = (shared.servers.next(), shared.servers.tls.as_ref());
    let config = &shared.config;
    let both = async {
        tokio::try_join!(
            Connection::open(config, server, tls, "publisher", tasks),
            Connection::open(config, server, tls, "subscriber", tasks)
        )
    };
    // Its share of the time that all have: the next one may answer.
    let limit =
        config.limits.connect_timeout / u32::try_from(config.servers.len()).unwrap_or(u32::MAX);
    let (publishing, mut subscribing) = match timeout(limit, both).await {
        Ok(Ok(connections)) => connections,
        Ok(Err(error)) => return error,
        Err(_) => {
            let message = error::silent(config, std::slice::from_ref(server), limit);
            return Step::Connect.error(ErrorKind::Unavailable, message);
        }
    };
    let session = Session {
        shared,
        address: server,
        link: OnceLock::new(),
        is_blocked: AtomicBool::new(false),
    };
    let events = [publishing.events(), subscribing.events()];
    let (received, subscriber) = (subscribing.received.clone(), subscribing.channel.clone());
    let publisher = &publishing.channel;
    let calls = shared.publisher.attach(config, publisher.clone());
    let ended = tokio::select! {
        ended = session.serve(publisher, &mut subscribing, up) => ended,
        ended = session.confirm(calls) => ended,
        ended = session.watch(events) => ended,
        ended = session.ask(publisher, || session.is_blocked()) => ended,
        ended = session.ask(&subscriber, || false) => ended,
        ended = session.silence(&publishing.received, || session.is_blocked()) => ended,
        ended = session.silence(&received, || false) => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.publisher.end();
        self.0.topics.end(self.0.config.source.replays());
    }
}

struct Session<'a> {
    shared: &'a Shared,
    address: &'a Address,
    /// There once the session is up.
    link: OnceLock<LinkSender>,
    /// The broker reads nothing from the publishing connection.
    is_blocked: AtomicBool,
}

impl Session<'_> {
    async fn serve(
        &self,
        publisher: &Channel,
        subscribing: &mut Connection,
        up: SessionUp,
    ) -> Result<Infallible> {
        let shared = self.shared;
        let failed = |error| error::from_lapin(Step::Subscribe, self.address, &error);
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (exchange, kind) = (shared.exchange.clone(), ExchangeKind::Topic);
        let declare =
            subscribing
                .channel
                .exchange_declare(exchange, kind, durable, FieldTable::default());
        tokio::try_join!(
            declare,
            publisher.confirm_select(ConfirmSelectOptions::default())
        )
        .map_err(failed)?;
        let opened = match shared.config.source {
            Source::Stream { .. } => stream::open(shared, subscribing)
                .await
                .map(|reader| (None, reader)),
            Source::Exclusive { .. } | Source::Durable { .. } => Queue::open(shared, subscribing)
                .await
                .map(|(queue, reader)| (Some(queue), reader)),
        };
        let (queue, reader) = opened.map_err(failed)?;
        let wait_for = reader.wait_for;
        let channel = subscribing.channel.clone();
        let subscribe = async {
            if let Some(fence) = wait_for {
                shared.topics.wait_for(fence).await;
            }
            self.open();
            let _ = self.link.set(up.up());
            self.subscribe(queue.as_ref(), &channel).await
        };
        tokio::select! {
            ended = self.read(reader) => ended,
            ended = subscribe => ended,
        }
        .map_err(failed)
    }

    /// Keeps the subscriptions of the broker the same as the wanted ones.
    async fn subscribe(
        &self,
        queue: Option<&Queue>,
        channel: &Channel,
    ) -> lapin::Result<Infallible> {
        let Shared {
            topics,
            publisher,
            fence,
            ..
        } = self.shared;
        let mut ticks = ticks();
        let mut renewals = interval_at(Instant::now() + RENEWAL, RENEWAL);
        loop {
            let (unwanted, missing) = topics.differences();
            if let Some(queue) = queue {
                queue.unbind(channel, &unwanted).await?;
                queue.bind(channel, &missing).await?;
            }
            if !missing.is_empty() {
                publisher.fence(fence, topics.fence(&missing));
            }
            tokio::select! {
                () = topics.changed() => {}
                _ = ticks.tick() => {}
                _ = renewals.tick() => publisher.fence(fence, topics.fence(&[])),
            }
        }
    }

    /// Hands out what arrives.
    async fn read(&self, reader: Reader) -> lapin::Result<Infallible> {
        let Reader {
            channel,
            consumer,
            first,
            replay_until,
            ..
        } = reader;
        // The broker hands a message that was not acknowledged to the next session: that is how it knows where it was.
        let held = u64::from(matches!(self.shared.config.source, Source::Durable { .. }));
        let first = iter(first).map(Ok);
        let mut batches = first.chain(consumer).ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let mut last = 0;
            for delivery in batch {
                let delivery = delivery?;
                last = delivery.delivery_tag;
                let position = Position::of(&delivery);
                let replayed = replay_until.is_some_and(|until| position.offset < until);
                hand_out(self.shared, delivery, replayed).await;
                // Not before: what a session has not handed out when it ends, the next one reads again.
                self.shared.cursor.advance(position);
            }
            // 0 would mean all.
            if last > held {
                let multiple = BasicAckOptions { multiple: true };
                channel.basic_ack(last - held, multiple).await?;
            }
        }
        Err(taken_away())
    }

    /// Brings publishes to their end.
    async fn confirm(&self, mut calls: Receiver<Call>) -> Result<Infallible> {
        let mut open = FuturesUnordered::new();
        loop {
            let (ticket, confirmation) = tokio::select! {
                Some(call) = calls.recv() => {
                    open.push(call.confirmed());
                    continue;
                }
                Some(confirmed) = open.next() => confirmed,
                else => return Err(Step::Publish.interrupted()),
            };
            let outcome = match confirmation {
                Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => Ok(Receipt::default()),
                Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                    let key = keys::token(&returned.delivery).unwrap_or_default();
                    if self.shared.topics.is_subscribed(key) {
                        let what = "the broker has lost a subscription of ours";
                        return Err(self.error(ErrorKind::Interrupted, what));
                    }
                    Ok(Receipt::default())
                }
                // Some queues may have it.
                Ok(Confirmation::Nack(None)) => Err(Step::Publish.error(
                    ErrorKind::Interrupted,
                    format!(
                        "{}: the broker could not store the message everywhere",
                        self.address
                    ),
                )),
                Err(error) => return Err(error::from_lapin(Step::Publish, self.address, &error)),
            };
            self.shared.publisher.ended(ticket, outcome);
        }
    }

    /// Follows what the broker says about the connections.
    async fn watch(&self, events: [BoxStream<'static, Event>; 2]) -> Result<Infallible> {
        let mut events = select_all(events);
        while let Some(event) = events.next().await {
            match event {
                Event::ConnectionBlocked(_) => match self.link.get() {
                    Some(link) => self.block(link),
                    None => return Err(error::blocked(self.address)),
                },
                Event::ConnectionUnblocked => {
                    if let Some(link) = self.link.get() {
                        self.unblock(link);
                    }
                }
                // A soft one is about one channel, and told there.
                Event::Error(error) if !error.is_amqp_soft_error() => {
                    return Err(error::from_lapin(Step::Link, self.address, &error));
                }
                _ => {}
            }
        }
        Err(self.error(ErrorKind::Interrupted, "the connection was lost"))
    }

    /// The session stays: what is in our queue still arrives, and nobody else can publish either.
    fn block(&self, link: &LinkSender) {
        if !self.is_blocked.swap(true, Ordering::Relaxed) {
            self.shared.publisher.open(false);
            self.shared.topics.open(false);
            link.down(error::BLOCKED_BY_ALARM);
        }
    }

    fn unblock(&self, link: &LinkSender) {
        if self.is_blocked.swap(false, Ordering::Relaxed) {
            // A replay that was under way goes on.
            let replayed = self.shared.config.source.replays().into();
            self.shared.topics.resume(Continuity::Unbroken { replayed });
            self.open();
            link.up();
        }
    }

    fn open(&self) {
        self.shared.topics.open(true);
        self.shared.publisher.open(true);
    }

    fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    /// Asks for a sign of life at each tick, also whether the channel still lives.
    async fn ask(&self, channel: &Channel, excused: impl Fn() -> bool) -> Result<Infallible> {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            // No deadline: `silence` has one, and everything that is received before the answer counts there.
            if !excused()
                && let Err(error) = prefetch(channel).await
            {
                return Err(error::from_lapin(Step::Link, self.address, &error));
            }
        }
    }

    /// Ends when nothing was received for too long.
    async fn silence(
        &self,
        received: &AtomicUsize,
        excused: impl Fn() -> bool,
    ) -> Result<Infallible> {
        let received = || (!excused()).then(|| received.load(Ordering::Relaxed) as u64);
        pulse::silence(SILENT_TICKS, received).await;
        Err(self.error(ErrorKind::Interrupted, "no sign of life"))
    }

    fn error(&self, kind: ErrorKind, what: &str) -> Error {
        Step::Link.error(kind, format!("{}: {what}", self.address))
    }
}

/// Hands a message to those who want it. Waits for readers that have no room, for a while.
pub(crate) async fn hand_out(shared: &Shared, delivery: Delivery, replayed: bool) {
    let Some(token) = keys::token(&delivery) else {
        return;
    };
    if token != shared.fence {
        let token = token.to_owned();
        for full in shared.topics.receive(&token, delivery.data, replayed) {
            full.wait(PATIENCE).await;
        }
    } else if let Some(fence) = fence_number(&delivery) {
        shared.topics.came_back(fence);
    }
}

/// Whether a message is this fence of this node.
pub(crate) fn is_fence(shared: &Shared, delivery: &Delivery, number: u64) -> bool {
    keys::token(delivery) == Some(shared.fence.as_str()) && fence_number(delivery) == Some(number)
}

fn fence_number(delivery: &Delivery) -> Option<u64> {
    str::from_utf8(&delivery.data).ok()?.parse().ok()
}

/// The broker took a consumer away: the queue or stream was deleted, or its node went down.
pub(crate) fn taken_away() -> lapin::Error {
    std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()
}

/// Says how far the broker may run ahead; also a question that it must answer.
pub(crate) async fn prefetch(channel: &Channel) -> lapin::Result<()> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await
}
