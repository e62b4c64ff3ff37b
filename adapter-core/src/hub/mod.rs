//! The cluster logic of one node, generic over nothing: lanes and readers, membership, requests.
//!
//! ```text
//!  ClusterAdapter<E> ── publish ──► Lane ── Writer ──► Transport ──► broker
//!          ▲                                                           │
//!          └── LocalNamespace ◄── Namespace task ◄── Reader ◄──────────┘
//!                                  (receive filter)     │
//!              Pending, Membership ◄── control task ◄───┘
//! ```
//!
//! Everything with a decision in it (`receive`, `membership`, `requests`, `acks`) is a pure state machine; the tasks here
//! only feed them.

mod acks;
mod control;
mod lane;
mod lanes;
mod membership;
mod namespace;
mod numbers;
mod pending;
mod publish;
mod query;
mod reader;
mod receive;
mod replay;
mod requests;
mod sealed;
mod shared;
mod writer;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::Duration,
};

use socketioxide_core::Str;
use tokio::{
    runtime::Handle,
    sync::{broadcast, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::query::Answer;
use self::{
    control::Announcements,
    membership::{Membership, MembershipConfig, Versions},
    numbers::{AllNumbers, Numbers},
    pending::Pending,
};
pub(crate) use self::{
    lane::{Lane, Push},
    namespace::{AckRequest, LocalNamespace, Namespace},
    pending::{AckResult, Acks, Registered},
    publish::Offer,
    shared::Shared,
};
use crate::{
    config::ClusterConfig,
    error::{Error, ErrorKind, Result},
    events::ClusterEvent,
    id::NodeId,
    stats::Counters,
    transport::{LinkSender, LinkWatch, Topic, Transport, link},
    wire::{self, Envelope, LaneId, Wire},
};

/// Answer lanes at the same time; more requesters than that are not served.
const MAX_ANSWER_LANES: usize = 4096;
/// Longest wait for the broker to take the goodbye of this node.
const BYE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a node that left stays known, so that late frames of it are recognised.
const TOMBSTONE: Duration = Duration::from_secs(600);
/// The wire versions this node reads.
const VERSIONS: Versions = Versions {
    min: wire::MIN_VERSION,
    max: wire::VERSION,
};
/// Bound of the table of members.
const MAX_MEMBERS: usize = 4096;

/// An answer lane and how to end its writer.
#[derive(Debug)]
struct AnswerLane {
    lane: Arc<Lane>,
    cancel: CancellationToken,
}

pub(crate) struct Hub {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pending: Pending,
    namespaces: RwLock<HashMap<Str, Arc<Namespace>>>,
    answers: Mutex<HashMap<NodeId, AnswerLane>>,
    numbers: Mutex<AllNumbers>,
    cluster_lane: Arc<Lane>,
    announcements: Announcements,
    link: LinkWatch,
    /// The link delivers and our hello was answered.
    settled: watch::Sender<bool>,
    runtime: Handle,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl Hub {
    /// Starts the tasks of a node on `runtime`.
    pub(crate) fn start(
        me: NodeId,
        config: ClusterConfig,
        transport: Arc<dyn Transport>,
        wire: Arc<dyn Wire>,
        counters: Arc<Counters>,
        events: broadcast::Sender<ClusterEvent>,
        runtime: Handle,
    ) -> Arc<Self> {
        let membership = Membership::new(
            me,
            MembershipConfig {
                heartbeat: config.heartbeat,
                dead_after: config.dead_after,
                tombstone: TOMBSTONE,
                max_members: MAX_MEMBERS,
                versions: VERSIONS,
            },
        );
        let shared = Arc::new(Shared::new(
            me, config, transport, wire, counters, events, membership,
        ));
        let (link_tx, link): (LinkSender, LinkWatch) = link();
        let hub = Arc::new(Self {
            cluster_lane: Arc::new(new_lane(&shared, Topic::Cluster)),
            shared,
            pending: Pending::default(),
            namespaces: RwLock::default(),
            answers: Mutex::default(),
            numbers: Mutex::default(),
            announcements: Announcements::default(),
            link,
            settled: watch::Sender::new(false),
            runtime,
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        });
        control::spawn(&hub, link_tx);
        hub
    }

    /// The proven state of the link: up only while our own probes come back.
    pub(crate) fn link(&self) -> LinkWatch {
        self.link.clone()
    }

    /// Ends every task at once.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Runs a task that ends with the hub.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<NodeId, AnswerLane>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the numbers of a namespace stand.
    fn numbers(&self, lane: LaneId) -> Arc<tokio::sync::Mutex<Numbers>> {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.of(lane)
    }

    /// Attaches a local namespace: from its first handler on, the node subscribes to the namespace's topic.
    pub(crate) fn attach(
        self: &Arc<Self>,
        path: &Str,
        handler: Weak<dyn LocalNamespace>,
    ) -> Arc<Namespace> {
        let mut namespaces = self
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(namespace) = namespaces.get(path)
            && namespace.attach(handler.clone())
        {
            return namespace.clone();
        }
        let namespace = namespace::spawn(self, path.clone(), handler);
        namespaces.insert(path.clone(), namespace.clone());
        drop(namespaces);
        self.announcements.added(namespace.lane.id);
        namespace
    }

    /// Detaches one handler of a namespace; with its last one the node leaves the namespace's topic. Everything that
    /// must happen happens before this returns.
    pub(crate) fn detach(&self, path: &Str, handler: &Weak<dyn LocalNamespace>) {
        let mut namespaces = self
            .namespaces
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(namespace) = namespaces.get(path) else {
            return;
        };
        if namespace.detach(handler) {
            let lane = namespace.lane.id;
            namespaces.remove(path);
            drop(namespaces);
            self.announcements.removed(lane);
        }
    }

    pub(crate) fn namespace(&self, path: &str) -> Option<Arc<Namespace>> {
        self.all_namespaces().get(path).cloned()
    }

    fn all_namespaces(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Str, Arc<Namespace>>> {
        self.namespaces
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the namespace delivers cluster-wide and the members are known.
    pub(crate) async fn ready(&self, namespace: &Namespace) -> Result<()> {
        let deadline = Instant::now() + self.shared.config.init_timeout;
        let mut live = namespace.live.clone();
        let mut settled = self.settled.subscribe();
        let ready = async {
            // An error means that the tasks have ended.
            live.wait_for(|live| *live).await.is_ok()
                && settled.wait_for(|settled| *settled).await.is_ok()
        };
        match timeout_at(deadline, ready).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(
                ErrorKind::Closed,
                "namespace",
                "the cluster was shut down",
            )),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                "namespace",
                format!(
                    "{} serves local sockets only: not subscribed within {:?}; it joins the cluster when the broker answers",
                    namespace.path, self.shared.config.init_timeout
                ),
            )),
        }
    }

    /// The lane for answers to `node`.
    pub(crate) fn answer_lane(self: &Arc<Self>, node: NodeId) -> Option<Arc<Lane>> {
        let mut answers = self.answers();
        if let Some(answer) = answers.get(&node) {
            return Some(answer.lane.clone());
        }
        if answers.len() >= MAX_ANSWER_LANES {
            return None;
        }
        let lane = Arc::new(new_lane(&self.shared, Topic::Node(node)));
        let cancel = self.cancel.child_token();
        answers.insert(
            node,
            AnswerLane {
                lane: lane.clone(),
                cancel: cancel.clone(),
            },
        );
        drop(answers);
        let live = self.cluster_live();
        let writer = writer::Writer::new(self.shared.clone(), lane.clone(), live, cancel);
        self.spawn(writer.run());
        Some(lane)
    }

    /// Answers a peer. What does not fit is dropped: the peer's request times out and names us.
    pub(crate) fn answer(self: &Arc<Self>, node: NodeId, envelope: &Envelope) {
        if let Some(lane) = self.answer_lane(node) {
            let _ = self.push(&lane, None, envelope, false);
        }
    }

    fn drop_answer_lane(&self, node: NodeId) {
        if let Some(answer) = self.answers().remove(&node) {
            // Who still has the lane is told that it takes nothing.
            answer.lane.close();
            answer.cancel.cancel();
        }
    }

    fn cluster_live(&self) -> watch::Receiver<bool> {
        self.announcements.live()
    }

    /// Waits until every namespace's lane is settled up to now.
    pub(crate) async fn flush(&self, deadline: Instant) -> Result<()> {
        let lanes: Vec<Arc<Lane>> = self
            .all_namespaces()
            .values()
            .map(|namespace| namespace.lane.clone())
            .collect();
        let flush = async {
            for lane in &lanes {
                lane.flush().await;
            }
        };
        timeout_at(deadline, flush).await.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                "flush",
                "the broker did not take everything in time",
            )
        })
    }

    /// Flushes, says goodbye and ends every task, all by the shutdown deadline.
    pub(crate) async fn shutdown(&self) -> Result<()> {
        let deadline = Instant::now() + self.shared.config.shutdown_timeout;
        let namespaces: Vec<_> = self.all_namespaces().values().cloned().collect();
        let flushed = self.flush(deadline).await;
        for namespace in &namespaces {
            namespace.lane.close();
        }
        let _ = self.cluster_lane.push(None, &Envelope::Bye, false);
        // Said even if the flush has used up the time: peers would count this node in until they take it for dead.
        let _ = timeout(BYE_TIMEOUT, self.cluster_lane.flush()).await;
        self.cancel.cancel();
        self.tasks.close();
        // The tasks end at their next poll; the bound guards against a transport that blocks one.
        let ended = timeout(Duration::from_secs(1), self.tasks.wait()).await;
        flushed.and(ended.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                "shutdown",
                "some tasks did not end in time",
            )
        }))
    }
}

fn new_lane(shared: &Shared, topic: Topic) -> Lane {
    Lane::new(
        topic,
        shared.wire.clone(),
        shared.config.lane,
        shared.config.frame_bytes,
        shared.transport.capabilities().max_payload,
    )
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("node", &self.shared.me)
            .finish_non_exhaustive()
    }
}
