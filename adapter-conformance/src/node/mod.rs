//! A whole server of a cluster in this process: socketioxide as applications run it, over a transport of a lab.
//!
//! Nothing in it is a stand-in. A [`Node`] has a real `SocketIo` with a `ClusterAdapter`, and its [`Client`]s are real
//! sockets: each speaks Socket.IO over a WebSocket, through a pipe in memory instead of a TCP connection. What a client
//! writes down is therefore what a browser would have received. It costs about a tenth of a millisecond to connect one and
//! needs no port, and works with a paused clock.
//!
//! ```
//! # use std::sync::Arc;
//! # use socketioxide_adapter_conformance::node::Node;
//! # use socketioxide_adapter_core::{ClusterConfig, memory::MemoryBus};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let bus = MemoryBus::new();
//! let one = Node::new(Arc::new(bus.connect()), ClusterConfig::default())?;
//! let two = Node::new(Arc::new(bus.connect()), ClusterConfig::default())?;
//! one.namespace("/").await?;
//! two.namespace("/").await?;
//! let client = two.client("/").await?;
//! one.io().emit("news", "hello").await.unwrap();
//! client.arrivals().wait_for(|arrivals| !arrivals.is_empty()).await;
//! assert_eq!(client.texts(), ["hello"]);
//! # Ok(())
//! # }
//! ```

mod client;
mod log;
mod packet;

use std::{fmt, sync::Arc, time::Duration};

use socketioxide::{
    SocketIo, adapter::Emitter, extract::SocketRef, operators::BroadcastOperators,
    service::SocketIoService, socket::Sid,
};
use socketioxide_adapter_core::{
    Cluster, ClusterAdapter, ClusterConfig, ClusterEvent, ClusterEvents, NodeId, Result,
    transport::Transport,
};
use tokio::task::JoinSet;

pub use self::{
    client::{Arrival, Client, Event, Reply},
    log::Log,
};
use crate::LabResult;

/// The adapter of a node.
pub type Adapter = ClusterAdapter<Emitter>;
type Service = SocketIoService<(), Adapter>;

/// Packets that a socket holds for a slow client. The suite judges what the cluster loses; a client's own queue, which
/// holds 128 by default, must not be what loses it.
const CLIENT_QUEUE: usize = 1 << 17;
/// How long a socket may take to acknowledge where the call does not say.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// One server of a cluster. It joins with its first namespace. Dropping it ends everything without a goodbye.
pub struct Node {
    io: SocketIo<Adapter>,
    service: Service,
    cluster: Cluster,
    transport: Arc<dyn Transport>,
    events: Arc<Log<ClusterEvent>>,
    /// Ends with the node.
    _task: JoinSet<()>,
}

impl Node {
    /// Makes a server over a transport that is connected. Call it inside of a tokio runtime.
    ///
    /// # Errors
    /// What [`Cluster::new`] says about the settings.
    pub fn new(transport: Arc<dyn Transport>, config: ClusterConfig) -> Result<Self> {
        let cluster = Cluster::new(transport.clone(), config)?;
        let (service, io) = SocketIo::builder()
            .max_buffer_size(CLIENT_QUEUE)
            .ack_timeout(ACK_TIMEOUT)
            .with_adapter::<Adapter>(cluster.clone())
            .build_with_inner_svc(());
        let events = Arc::new(Log::new());
        let mut task = JoinSet::new();
        task.spawn(write_down(cluster.events(), events.clone()));
        Ok(Self {
            io,
            service,
            cluster,
            transport,
            events,
            _task: task,
        })
    }

    /// Adds a namespace that lets everybody in; resolves once it is in the cluster.
    ///
    /// # Errors
    /// What the adapter says; unless it is about the settings, the namespace serves this node's sockets all the same.
    pub async fn namespace(&self, path: &str) -> Result<()> {
        let path = path.to_owned();
        self.io.ns(path, async |_: SocketRef<Adapter>| ()).await
    }

    /// Adds namespaces that come into being when their first client connects, such as `/room/{name}`.
    ///
    /// # Errors
    /// If the pattern cannot be used.
    pub fn dynamic_namespace(&self, pattern: &str) -> LabResult {
        let pattern = pattern.to_owned();
        Ok(self.io.dyn_ns(pattern, async |_: SocketRef<Adapter>| ())?)
    }

    /// Connects a client that acknowledges nothing.
    ///
    /// # Errors
    /// If the namespace does not let it in.
    pub async fn client(&self, namespace: &str) -> LabResult<Client> {
        self.client_that_replies(namespace, Reply::Never).await
    }

    /// Connects a client that acknowledges as `reply` says.
    ///
    /// # Errors
    /// If the namespace does not let it in.
    pub async fn client_that_replies(&self, namespace: &str, reply: Reply) -> LabResult<Client> {
        Client::connect(self.service.clone(), namespace, reply).await
    }

    /// The server as applications see it.
    pub const fn io(&self) -> &SocketIo<Adapter> {
        &self.io
    }

    /// The operators of a namespace.
    ///
    /// # Errors
    /// If the node does not have it.
    pub fn of(&self, namespace: &str) -> LabResult<BroadcastOperators<Adapter>> {
        let missing = || format!("the node has no namespace {namespace:?}");
        Ok(self.io.of(namespace).ok_or_else(missing)?)
    }

    /// A socket of this node.
    ///
    /// # Errors
    /// If it is not connected to it.
    pub fn socket(&self, namespace: &str, sid: Sid) -> LabResult<SocketRef<Adapter>> {
        let missing = || format!("the node has no socket {sid} in {namespace:?}");
        Ok(self.of(namespace)?.get_socket(sid).ok_or_else(missing)?)
    }

    /// The handle of the cluster.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The node's id. Everybody knows it once the node has joined.
    ///
    /// # Errors
    /// If no namespace was added yet.
    pub fn id(&self) -> LabResult<NodeId> {
        Ok(self.cluster.node_id().ok_or("the node has not joined")?)
    }

    /// Everything that the cluster told this node.
    pub fn events(&self) -> &Log<ClusterEvent> {
        &self.events
    }

    /// The transport it was made with.
    pub const fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    /// Stops as an application does: closes all sockets, then leaves the cluster.
    ///
    /// # Errors
    /// What [`Cluster::shutdown`] says.
    pub async fn shutdown(&self) -> Result<()> {
        self.io.close().await;
        self.cluster.shutdown().await
    }

    /// Ends the node as if its process had died: its connections break and nobody hears a goodbye.
    ///
    /// # Errors
    /// What the transport says; the node is gone in any case.
    pub async fn kill(self) -> Result<()> {
        self.transport.close().await
    }
}

async fn write_down(mut events: ClusterEvents, log: Arc<Log<ClusterEvent>>) {
    while let Some(event) = events.recv().await {
        log.push(event);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
