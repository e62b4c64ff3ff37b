//! The glue to socketioxide: the only place that is generic over its emitter.

mod ack_stream;
mod init;
mod local;
mod operation;

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use socketioxide_core::{
    Uid, Value,
    adapter::{
        BroadcastFlags, BroadcastOptions, CoreAdapter, CoreLocalAdapter, DefinedAdapter,
        RemoteSocketData, Room, RoomParam, SocketEmitter,
        errors::{AdapterError, BroadcastError, SocketError},
    },
    packet::Packet,
    parser::Parse,
};

use self::operation::{payload_of, publish};
pub use self::{ack_stream::ClusterAckStream, init::InitRes};
use crate::{
    cluster::Cluster,
    config::OnMissing,
    error::{Error, ErrorKind, Result},
    hub::{Hub, LocalNamespace, Namespace},
    id::NodeId,
    transport::LinkState,
    wire::Envelope,
};

/// The adapter of one namespace: pass it to `SocketIo::builder().with_adapter::<ClusterAdapter<_>>(cluster)`.
///
/// Every operation serves the sockets of this node first and whatever the broker does; its error is about the other
/// nodes.
pub struct ClusterAdapter<E: SocketEmitter> {
    local: CoreLocalAdapter<E>,
    cluster: Cluster,
    me: Uid,
    /// Whether the parser encodes packets as text.
    text: bool,
    attached: OnceLock<Attached>,
}

/// What `init` adds.
struct Attached {
    hub: Arc<Hub>,
    namespace: Arc<Namespace>,
    handler: Weak<dyn LocalNamespace>,
}

impl<E: SocketEmitter> DefinedAdapter for ClusterAdapter<E> {}

impl<E: SocketEmitter> CoreAdapter<E> for ClusterAdapter<E> {
    type Error = Error;
    type State = Cluster;
    type AckStream = ClusterAckStream<E>;
    type InitRes = InitRes;

    fn new(cluster: &Cluster, local: CoreLocalAdapter<E>) -> Self {
        let sample = local.parser().encode_value(&(), None);
        Self {
            text: !matches!(sample, Ok(Value::Bytes(_))),
            me: local.server_id(),
            cluster: cluster.clone(),
            local,
            attached: OnceLock::new(),
        }
    }

    /// Joins the cluster with this namespace.
    ///
    /// `on_success` is called before this returns: socketioxide would otherwise build a dynamic namespace once per
    /// client that connects meanwhile, and orphan all but the last. The future resolves when the namespace is
    /// subscribed and the link is proven; the namespace serves its local sockets in any case.
    fn init(self: Arc<Self>, on_success: impl FnOnce() + Send + 'static) -> InitRes {
        let hub = match self.cluster.bind(NodeId::from(self.me)) {
            Ok(hub) => hub,
            Err(error) => return InitRes::failed(error),
        };
        let strong: Arc<dyn LocalNamespace> = self.clone();
        let handler = Arc::downgrade(&strong);
        let namespace = hub.attach(self.local.path(), handler.clone());
        let _ = self.attached.set(Attached {
            hub: hub.clone(),
            namespace: namespace.clone(),
            handler,
        });
        on_success();
        InitRes::new(async move { hub.ready(&namespace).await })
    }

    /// Leaves the namespace's topic. All of it happens before the first await: socketioxide polls this future once when
    /// a namespace is deleted.
    async fn close(&self) -> Result<()> {
        if let Some(attached) = self.attached.get() {
            attached.hub.detach(self.local.path(), &attached.handler);
        }
        std::future::ready(Ok(())).await
    }

    /// This node and the others it knows to be alive; while the link is down, the last known number.
    async fn server_count(&self) -> Result<u16> {
        let hub = self.attached.get().map(|attached| &attached.hub);
        let connected = hub.filter(|hub| hub.link().state() != LinkState::Connecting);
        let count = connected.map(|hub| hub.shared.membership().members().count() + 1);
        let count = count.map(|count| u16::try_from(count).unwrap_or(u16::MAX));
        std::future::ready(count.ok_or_else(|| {
            Error::new(
                ErrorKind::LinkDown,
                "server count",
                "the namespace has not joined the cluster yet",
            )
        }))
        .await
    }

    async fn broadcast(
        &self,
        packet: Packet,
        opts: BroadcastOptions,
    ) -> Result<(), BroadcastError> {
        let Some((attached, payload)) = self.remote(&opts).zip(payload_of(&packet)) else {
            return Ok(self.local.broadcast(packet, opts)?);
        };
        let volatile = opts.has_flag(BroadcastFlags::Volatile);
        let (published, opts) = publish(attached, Envelope::Broadcast { opts, payload });
        let local = match opts {
            Some(opts) => self.local.broadcast(packet, opts),
            None => Ok(()),
        };
        if volatile {
            // It may be dropped, so it neither waits nor fails.
            return Ok(local?);
        }
        let sent = published.complete().await;
        sent.map_err(AdapterError::from)?;
        Ok(local?)
    }

    async fn broadcast_with_ack(
        &self,
        packet: Packet,
        opts: BroadcastOptions,
        timeout: Option<Duration>,
    ) -> Result<Self::AckStream> {
        let Some((attached, payload)) = self.remote(&opts).zip(payload_of(&packet)) else {
            let (local, _) = self.local.broadcast_with_ack(packet, opts, timeout);
            return Ok(ClusterAckStream::local(local));
        };
        let hub = &attached.hub;
        let request = match hub.register_acks(&attached.namespace, &opts) {
            Ok(request) => request,
            Err(error) => {
                let (local, _) = self.local.broadcast_with_ack(packet, opts, timeout);
                return match self.cluster.config().on_missing {
                    OnMissing::ReturnPartial => Ok(ClusterAckStream::local(local)),
                    OnMissing::Fail => Err(error),
                };
            }
        };
        let (published, opts) = publish(
            attached,
            Envelope::BroadcastWithAck {
                request: request.id,
                timeout,
                opts,
                payload,
            },
        );
        // Options that select nobody, if the sockets are on another node.
        let opts = opts.unwrap_or_default();
        let (local, _) = self.local.broadcast_with_ack(packet, opts, timeout);
        published.complete().await?;
        let timeout = timeout.unwrap_or_else(|| self.local.ack_timeout());
        Ok(ClusterAckStream::cluster(
            local,
            hub.clone(),
            attached.namespace.clone(),
            request,
            hub.ack_deadline(timeout),
        ))
    }

    async fn add_sockets(&self, opts: BroadcastOptions, rooms: impl RoomParam) -> Result<()> {
        let rooms: Vec<Room> = rooms.into_room_iter().collect();
        let Some(attached) = self.remote(&opts) else {
            self.join_local(opts, rooms);
            return Ok(());
        };
        let envelope = Envelope::Join {
            opts,
            rooms: rooms.clone(),
        };
        let (published, opts) = publish(attached, envelope);
        if let Some(opts) = opts {
            self.join_local(opts, rooms);
        }
        published.complete().await
    }

    async fn del_sockets(&self, opts: BroadcastOptions, rooms: impl RoomParam) -> Result<()> {
        let rooms: Vec<Room> = rooms.into_room_iter().collect();
        let Some(attached) = self.remote(&opts) else {
            self.local.del_sockets(opts, rooms);
            return Ok(());
        };
        let envelope = Envelope::Leave {
            opts,
            rooms: rooms.clone(),
        };
        let (published, opts) = publish(attached, envelope);
        if let Some(opts) = opts {
            self.local.del_sockets(opts, rooms);
        }
        published.complete().await
    }

    async fn disconnect_socket(&self, opts: BroadcastOptions) -> Result<(), BroadcastError> {
        let Some(attached) = self.remote(&opts) else {
            let local = self.local.disconnect_socket(opts);
            return local.map_err(BroadcastError::Socket);
        };
        let (published, opts) = publish(attached, Envelope::Disconnect { opts });
        let local = match opts {
            Some(opts) => self.local.disconnect_socket(opts),
            None => Ok(()),
        };
        let sent = published.complete().await;
        sent.map_err(AdapterError::from)?;
        local.map_err(BroadcastError::Socket)
    }

    async fn rooms(&self, opts: BroadcastOptions) -> Result<Vec<Room>> {
        let Some(Attached { hub, namespace, .. }) = self.remote(&opts) else {
            return Ok(self.local.rooms(opts).into_iter().collect());
        };
        let answer = hub.rooms(namespace, opts).await?;
        hub.strict(namespace, "rooms", answer)
    }

    async fn fetch_sockets(&self, opts: BroadcastOptions) -> Result<Vec<RemoteSocketData>> {
        let Some(Attached { hub, namespace, .. }) = self.remote(&opts) else {
            return Ok(self.local.fetch_sockets(opts));
        };
        let answer = hub.sockets(namespace, opts).await?;
        hub.strict(namespace, "fetch sockets", answer)
    }

    fn get_local(&self) -> &CoreLocalAdapter<E> {
        &self.local
    }
}

impl<E: SocketEmitter> ClusterAdapter<E> {
    /// Where to publish, unless the operation is for this node's sockets only.
    fn remote(&self, opts: &BroadcastOptions) -> Option<&Attached> {
        self.attached.get().filter(|_| !opts.is_local(self.me))
    }

    /// A single socket that is not here must not become a ghost member of the rooms.
    fn join_local(&self, opts: BroadcastOptions, rooms: Vec<Room>) {
        if opts.rooms.is_empty() && self.local.fetch_sockets(opts.clone()).is_empty() {
            return;
        }
        self.local.add_sockets(opts, rooms);
    }

    /// Counts packets that local sockets lost because their buffers were full; the error does not say which sockets.
    fn count_dropped(&self, result: Result<(), Vec<SocketError>>) {
        if let (Err(errors), Some(attached)) = (result, self.attached.get()) {
            let full = errors
                .iter()
                .filter(|error| matches!(error, SocketError::InternalChannelFull));
            let counter = &attached.hub.shared.counters.socket_packets_dropped;
            counter.add(full.count() as u64);
        }
    }
}

impl<E: SocketEmitter> fmt::Debug for ClusterAdapter<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAdapter")
            .field("namespace", &self.local.path())
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}
