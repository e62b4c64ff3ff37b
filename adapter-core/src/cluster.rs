//! The handle an application holds: one per process and broker.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use socketioxide_core::adapter::{BroadcastOptions, RemoteSocketData, Room};
use tokio::{
    runtime::Handle,
    sync::broadcast,
    time::{Instant, timeout},
};

use crate::{
    config::ClusterConfig,
    error::{Error, ErrorKind, Result},
    events::{ClusterEvent, ClusterEvents},
    hub::{Answer, Hub, Namespace},
    id::NodeId,
    stats::{ClusterStats, Counters},
    transport::{Capabilities, LinkWatch, Transport},
    wire::{NativeWire, Wire},
};

/// Longest wait for a transport to close beyond its own promise.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Another node of the cluster, as this one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its identity.
    pub id: NodeId,
    /// How long its process has been running.
    pub uptime: Duration,
    /// Time since its last sign of life.
    pub silent_for: Duration,
}

/// One node's membership in a cluster; the state of [`ClusterAdapter`](crate::ClusterAdapter). Cheap to clone.
///
/// The node joins when the first namespace is added to the `SocketIo` that was built with it. One handle serves one
/// `SocketIo`.
///
/// Dropping every clone (and the `SocketIo`) ends the tasks without a goodbye: peers notice after
/// [`dead_after`](ClusterConfig::dead_after). Call [`shutdown`](Self::shutdown) instead.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    config: ClusterConfig,
    transport: Arc<dyn Transport>,
    wire: Arc<dyn Wire>,
    counters: Arc<Counters>,
    events: broadcast::Sender<ClusterEvent>,
    runtime: Handle,
    hub: OnceLock<Arc<Hub>>,
    closing: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.get() {
            hub.cancel();
        }
    }
}

impl Cluster {
    /// Makes a handle over a connected transport.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for settings that cannot work, or outside of a tokio runtime.
    pub fn new(transport: Arc<dyn Transport>, config: ClusterConfig) -> Result<Self> {
        let mut wire = NativeWire::new();
        if let Some(keys) = &config.keys {
            wire = wire.with_keys(keys.clone());
        }
        Self::with_wire(transport, Arc::new(wire), config)
    }

    /// The same over another wire.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_wire(
        transport: Arc<dyn Transport>,
        wire: Arc<dyn Wire>,
        config: ClusterConfig,
    ) -> Result<Self> {
        config.validate()?;
        let runtime = Handle::try_current().map_err(|error| {
            Error::new(
                ErrorKind::Config,
                "cluster",
                "must be made inside a tokio runtime",
            )
            .with_source(error)
        })?;
        Ok(Self {
            inner: Arc::new(Inner {
                events: broadcast::Sender::new(config.event_buffer),
                config,
                transport,
                wire,
                counters: Arc::default(),
                runtime,
                hub: OnceLock::new(),
                closing: AtomicBool::new(false),
            }),
        })
    }

    /// Starts the node `me`, or returns it if it is already running.
    pub(crate) fn bind(&self, me: NodeId) -> Result<Arc<Hub>> {
        let inner = &self.inner;
        if inner.closing.load(Relaxed) {
            return Err(Error::new(
                ErrorKind::Closed,
                "namespace",
                "the cluster was shut down",
            ));
        }
        let hub = inner.hub.get_or_init(|| {
            Hub::start(
                me,
                inner.config.clone(),
                inner.transport.clone(),
                inner.wire.clone(),
                inner.counters.clone(),
                inner.events.clone(),
                inner.runtime.clone(),
            )
        });
        if hub.shared.me == me {
            Ok(hub.clone())
        } else {
            Err(Error::new(
                ErrorKind::Config,
                "namespace",
                "this cluster handle already serves another SocketIo; connect once for each",
            ))
        }
    }

    /// This node's id: the server id of the `SocketIo`. `None` before its first namespace was added.
    pub fn node_id(&self) -> Option<NodeId> {
        self.inner.hub.get().map(|hub| hub.shared.me)
    }

    /// The other live nodes, sorted by id. While the link is down this is the last known state.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let Some(hub) = self.inner.hub.get() else {
            return Vec::new();
        };
        let now = Instant::now().into_std();
        let membership = hub.shared.membership();
        let nodes = membership.members().map(|(id, member)| NodeInfo {
            id: *id,
            uptime: now.saturating_duration_since(member.started),
            silent_for: now.saturating_duration_since(member.last_seen),
        });
        nodes.collect()
    }

    /// What happens from now on.
    pub fn events(&self) -> ClusterEvents {
        ClusterEvents::new(self.inner.events.subscribe())
    }

    /// The link to the broker. `Up` means proven: a probe of this node came back through the broker. Before the first
    /// namespace was added it is the transport's own view.
    pub fn link(&self) -> LinkWatch {
        match self.inner.hub.get() {
            Some(hub) => hub.link(),
            None => self.inner.transport.link(),
        }
    }

    /// Counters since the start.
    pub fn stats(&self) -> ClusterStats {
        self.inner.counters.snapshot()
    }

    /// What the transport can do.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.transport.capabilities()
    }

    /// The settings.
    pub fn config(&self) -> &ClusterConfig {
        &self.inner.config
    }

    /// Waits until the broker has taken (or the lanes have given up) everything published before the call.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] after [`publish_timeout`](ClusterConfig::publish_timeout). What was given up is told by
    /// [`ClusterEvent::Unsent`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn flush(&self) -> Result<()> {
        match self.inner.hub.get() {
            Some(hub) => {
                hub.flush(Instant::now() + self.inner.config.publish_timeout)
                    .await
            }
            None => Ok(()),
        }
    }

    /// The matching sockets of a namespace on all nodes, with the names of the nodes that did not answer.
    ///
    /// # Errors
    /// [`ErrorKind::LinkDown`] if the others cannot be asked, [`ErrorKind::Config`] if this node does not have the
    /// namespace, otherwise why the question could not be published. Missing answers are no error here.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn sockets(
        &self,
        namespace: &str,
        opts: BroadcastOptions,
    ) -> Result<Answer<RemoteSocketData>> {
        let (hub, namespace) = self.namespace(namespace)?;
        hub.sockets(&namespace, opts).await
    }

    /// The rooms of the matching sockets of a namespace on all nodes, with the names of the nodes that did not answer.
    ///
    /// # Errors
    /// As [`sockets`](Self::sockets).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn rooms(&self, namespace: &str, opts: BroadcastOptions) -> Result<Answer<Room>> {
        let (hub, namespace) = self.namespace(namespace)?;
        hub.rooms(&namespace, opts).await
    }

    fn namespace(&self, path: &str) -> Result<(Arc<Hub>, Arc<Namespace>)> {
        let found = self.inner.hub.get().and_then(|hub| {
            let namespace = hub.namespace(path)?;
            Some((hub.clone(), namespace))
        });
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "query",
                format!("this node has no namespace {path:?}"),
            )
        })
    }

    /// Leaves the cluster: sends what is queued, says goodbye, ends every task and closes the transport. Idempotent;
    /// takes [`shutdown_timeout`](ClusterConfig::shutdown_timeout) and a few seconds at most, whatever the broker does.
    ///
    /// Call it after `io.close()`. Operations afterwards serve local sockets and fail with [`ErrorKind::Closed`].
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if something could not be sent in time; the node has left in any case.
    pub async fn shutdown(&self) -> Result<()> {
        let left = if self.inner.closing.swap(true, Relaxed) {
            Ok(())
        } else {
            match self.inner.hub.get() {
                Some(hub) => hub.shutdown().await,
                None => Ok(()),
            }
        };
        let closed = timeout(CLOSE_TIMEOUT, self.inner.transport.close()).await;
        let closed = closed.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Timeout,
                "shutdown",
                "the transport did not close in time",
            ))
        });
        left.and(closed)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("transport", &self.inner.transport.name())
            .field("node", &self.node_id())
            .finish_non_exhaustive()
    }
}
