//! What the sessions of a node share, and the transport that they are.

use std::{
    convert::Infallible,
    fmt::Display,
    future::ready,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream::iter,
};
use lapin::{
    BasicProperties, Channel, Confirmation, message::Delivery, options::BasicPublishOptions,
    types::ShortString,
};
use socketioxide_adapter_core::{
    Result,
    socket::Tls,
    transport::{
        Budget, Capabilities, Connected, Continuity,
        Delivery::{AtLeastOnce, AtMostOnce},
        Driver, Limits, LossCause, Permit, Receipt, Replay, SessionUp, Step, Topic, Topics,
    },
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Config, Queue, Source, config::OPERATION, session};

/// How long a reader that stands still may hold up all the others of this node, where the broker keeps what waits. With a
/// heartbeat before that and one after it, less than the 7 s after which the other nodes would be taken for dead.
const PATIENCE: Duration = Duration::from_secs(4);
/// A routing key has at most 255 bytes. A dot, a star or a hash in it means something to a topic exchange: a token has none
/// of these.
const LONGEST_KEY: usize = 200;
/// Bindings asked for at once.
const BATCH: usize = 256;
/// Survives a restart of the broker if the queue that holds it does.
const PERSISTENT: u8 = 2;

/// A node's connections to a broker. Dropping it closes them, without waiting.
///
/// The order of payloads on one topic is that in which `publish` was first polled. A publish resolves when the broker has
/// confirmed the payload: it is in all queues, on disk where they are durable. While the link is down, or the broker is
/// short of memory, `publish` and `subscribe` fail at once with [`LinkDown`]; a call that is waiting when the link is lost
/// fails with [`Interrupted`], a later one than `timeout` with [`Timeout`]. A broker that does not answer counts as lost
/// after 2 to 2.5 s.
///
/// After a reconnect each subscription yields `Resumed` before the first new payload. A dropped subscription ends at the
/// broker within half a second.
///
/// [`LinkDown`]: socketioxide_adapter_core::ErrorKind::LinkDown
/// [`Interrupted`]: socketioxide_adapter_core::ErrorKind::Interrupted
/// [`Timeout`]: socketioxide_adapter_core::ErrorKind::Timeout
pub type AmqpTransport = Connected<Amqp<Queue>>;

/// A node, which reads from a [`Source`].
#[derive(Debug)]
pub struct Amqp<S: Source> {
    /// How it was configured.
    pub config: Config<S>,
    pub(crate) tls: Option<Tls>,
    /// Which server is next.
    pub(crate) turn: AtomicUsize,
    pub(crate) topics: Topics,
    /// The publishing channel of the present session, which takes up the calls.
    pub(crate) line: Mutex<Option<(Channel, mpsc::Sender<Call>)>>,
    budget: Budget,
    /// What is known of the last message that was handed out.
    anchor: Mutex<Option<BasicProperties>>,
    /// All nodes publish to it.
    pub(crate) exchange: ShortString,
    /// The name of this node's queue, and the routing key of its fences: no topic has a dot in it.
    pub(crate) own_name: String,
    pub(crate) shutdown: CancellationToken,
}

/// A publish that was handed to lapin, until the broker has confirmed it, and whom to tell. The session drives it to its end
/// even if nobody waits for it any more: lapin keeps what it holds of it until then.
pub(crate) type Call = BoxFuture<'static, (Ticket, lapin::Result<Confirmation>)>;
type Ticket = (oneshot::Sender<Result<Receipt>>, Option<Permit>);

impl<S: Source> Amqp<S> {
    pub(crate) fn new(config: Config<S>) -> Result<Self> {
        let (prefix, id) = (&config.endpoint.prefix, fastrand::u128(..));
        Ok(Self {
            tls: config.endpoint.tls(OPERATION)?,
            turn: AtomicUsize::new(0),
            topics: Topics::default(),
            line: Mutex::default(),
            budget: Budget::new(config.endpoint.limits.publish_buffer),
            anchor: Mutex::default(),
            exchange: format!("{prefix}.topics").into(),
            own_name: format!("{prefix}.node.{id:032x}"),
            shutdown: CancellationToken::new(),
            config,
        })
    }

    /// What is known of servers that said nothing.
    pub(crate) fn no_answer(&self, at: impl Display, limit: Duration) -> String {
        let other = match self.tls {
            Some(_) => "a plain amqp:// port",
            None => "an amqps:// port",
        };
        format!("{at}: no answer within {limit:?}, is it {other}?")
    }

    /// Binds a queue or stream to the exchange that all nodes publish to, or unbinds it.
    ///
    /// # Errors
    /// Those of the broker.
    pub async fn bind(
        &self,
        channel: &Channel,
        queue: &ShortString,
        key: &str,
        wanted: bool,
    ) -> lapin::Result<()> {
        let (queue, exchange, key) = (queue.clone(), self.exchange.clone(), key.into());
        let (options, none) = (Default::default(), Default::default());
        if wanted {
            let bound = channel.queue_bind(queue, exchange, key, options, none);
            bound.await
        } else {
            channel.queue_unbind(queue, exchange, key, none).await
        }
    }

    /// Makes the bindings of a queue the same as the wanted topics, and publishes a fence for what was missing. `always`: also
    /// if nothing was, and waits until the broker has it, so that whatever is published later comes behind it. Returns the
    /// number of the fence.
    ///
    /// # Errors
    /// Those of the broker.
    pub async fn follow(
        &self,
        channel: &Channel,
        queue: Option<&ShortString>,
        always: bool,
    ) -> lapin::Result<u64> {
        let differences = self.topics.differences();
        let (unwanted, missing) = (differences.unwanted, differences.missing);
        if let Some(queue) = queue {
            let unwanted = unwanted.into_iter().map(|name| (name, false));
            let missing = missing.clone().into_iter().map(|name| (name, true));
            let changes = iter(unwanted.chain(missing)).map(|(name, wanted)| async move {
                self.bind(channel, queue, &name, wanted).await
            });
            changes.buffer_unordered(BATCH).try_collect::<()>().await?;
        }
        if missing.is_empty() && !always {
            return Ok(0);
        }
        let number = self.topics.fence(missing);
        let payload = number.to_be_bytes().to_vec().into();
        // If there is none, the session ends, or who waits for it to come back waits until his deadline.
        let confirmed = self.start(&self.own_name, payload, None);
        if always && let Some(confirmed) = confirmed {
            let _ = confirmed.await;
        }
        Ok(number)
    }

    /// The number of the [fence](Self::follow) that a message is; `None` if it is none of this node.
    pub fn fence_of(&self, delivery: &Delivery) -> Option<u64> {
        let is_ours = delivery.routing_key.as_str() == self.own_name;
        let number = delivery.data.as_slice().try_into().ok().filter(|_| is_ours);
        number.map(u64::from_be_bytes)
    }

    /// What is known of the last message that was handed out, in all sessions.
    pub fn anchor(&self) -> Option<BasicProperties> {
        lock(&self.anchor).clone()
    }

    /// Hands a message to those who want it, or notes that a fence came back. Waits for readers that have no room, for a
    /// while.
    pub async fn hand_out(&self, delivery: Delivery) {
        if let Some(number) = self.fence_of(&delivery) {
            // What the broker should have kept is asked for anew only if that is gone.
            let told = |name: &str| match self.is_kept(name) {
                true => Continuity::lost(LossCause::Reset),
                false => Continuity::Unknown,
            };
            self.topics.came_back(number, 0, told);
        } else {
            let (key, payload) = (delivery.routing_key.as_str(), delivery.data.into());
            self.topics.pass(key, 0, payload, PATIENCE).await;
        }
        // Not before: what a session has not handed out when it ends, the next one reads again.
        *lock(&self.anchor) = Some(delivery.properties);
    }

    /// Tells those who have listened before what became of their subscriptions, which the broker has kept.
    pub fn resume(&self, continuity: Continuity) {
        self.topics.tell(0, |_| Some(continuity));
    }

    /// Whether the broker keeps a topic while the node is away. That is of use for namespaces, but not for heartbeats and
    /// answers.
    fn is_kept(&self, key: &str) -> bool {
        self.config.source.replays() && key.starts_with("ns")
    }

    /// Hands a message to lapin. `None` if there is no session.
    fn start(
        &self,
        key: &str,
        payload: Bytes,
        permit: Option<Permit>,
    ) -> Option<oneshot::Receiver<Result<Receipt>>> {
        let options = BasicPublishOptions {
            // If we read the topic ourselves, a queue must be there for it. If we do not, there need not be one.
            mandatory: self.topics.is_subscribed(key),
            immediate: false,
        };
        // Locked until lapin has it, so that it numbers messages in the order in which it sends them.
        let line = lock(&self.line);
        let (channel, calls) = line.as_ref()?;
        let room = calls.try_reserve().ok()?;
        let id = format!("{:016x}", fastrand::u64(..));
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_message_id(id.into());
        let (channel, exchange, key) = (channel.clone(), self.exchange.clone(), key.into());
        let (outcome, receiver) = oneshot::channel();
        let mut call: Call = Box::pin(async move {
            let sent = channel.basic_publish(exchange, key, options, &payload, properties);
            let confirmed = async { sent.await?.await }.await;
            ((outcome, permit), confirmed)
        });
        // The first poll queues the frames. It can be the last one: lapin writes on a thread of its own.
        if let Some(ended) = (&mut call).now_or_never() {
            call = Box::pin(ready(ended));
        }
        room.send(call);
        Some(receiver)
    }
}

impl<S: Source> Driver for Amqp<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities = match self.config.source.replays() {
            true => Capabilities::new(AtLeastOnce).with_replay(Replay::WithinRetention),
            false => Capabilities::new(AtMostOnce),
        };
        capabilities
            .with_confirms(true)
            .with_total_order(S::TOTAL_ORDER)
            .with_max_payload(self.limits().max_payload)
    }

    fn limits(&self) -> &Limits {
        &self.config.endpoint.limits
    }

    fn at(&self) -> String {
        self.config.endpoint.at()
    }

    fn topics(&self) -> &Topics {
        &self.topics
    }

    fn topic(&self, topic: &Topic) -> (String, bool) {
        let key = topic.short_token(LONGEST_KEY);
        let kept = self.is_kept(&key);
        (key, kept)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let key = topic.short_token(LONGEST_KEY);
        let permit = self.budget.take(S::NAME, payload.len())?;
        let started = self.start(&key, payload, Some(permit));
        let outcome = started.ok_or_else(|| Step::Publish.down(S::NAME, self.at()))?;
        let lost = |_| Err(Step::Publish.interrupted(S::NAME, self.at()));
        outcome.await.unwrap_or_else(lost)
    }

    async fn run(self: Arc<Self>, tasks: TaskTracker, up: SessionUp) -> Result<Infallible> {
        session::run(&*self, &tasks, up).await
    }

    fn ended(&self) {
        *lock(&self.line) = None;
        self.topics.end(true);
    }

    fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    fn silent(&self, limit: Duration) -> String {
        self.no_answer(self.at(), limit)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
