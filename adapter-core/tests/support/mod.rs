//! Nodes with real adapters and sockets that only write down what they get.
#![allow(
    unreachable_pub,
    dead_code,
    missing_debug_implementations,
    clippy::unwrap_used,
    clippy::expect_used
)]

pub mod odd;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_core::FusedStream;
use futures_util::{StreamExt, stream};
use socketioxide_adapter_core::{
    Cluster, ClusterAdapter, ClusterConfig, NodeId, memory::MemoryTransport, transport::Transport,
};
use socketioxide_core::{
    Sid, Str, Uid, Value,
    adapter::{
        AckStreamItem, BroadcastFlags, BroadcastIter, BroadcastOptions, CoreAdapter,
        CoreLocalAdapter, RemoteSocketData, SocketEmitter, errors::SocketError,
    },
    packet::Packet,
    parser::Parse,
};
use socketioxide_parser_common::CommonParser;

/// What a socket does with an event that wants an acknowledgement.
#[derive(Debug, Clone)]
pub enum Ack {
    Now(&'static str),
    After(Duration, &'static str),
    Never,
}

#[derive(Debug, Default)]
pub struct Sockets(Mutex<BTreeMap<Sid, Socket>>);

#[derive(Debug)]
struct Socket {
    received: Vec<String>,
    ack: Ack,
}

impl Sockets {
    pub fn add(&self, ack: Ack) -> Sid {
        let sid = Sid::new();
        let received = Vec::new();
        self.0.lock().unwrap().insert(sid, Socket { received, ack });
        sid
    }
    pub fn received(&self, sid: Sid) -> Vec<String> {
        let sockets = self.0.lock().unwrap();
        sockets
            .get(&sid)
            .map(|s| s.received.clone())
            .unwrap_or_default()
    }
    pub fn has(&self, sid: Sid) -> bool {
        self.0.lock().unwrap().contains_key(&sid)
    }
    fn deliver(&self, sids: BroadcastIter<'_>, data: &Value) {
        let mut sockets = self.0.lock().unwrap();
        for sid in sids {
            if let Some(socket) = sockets.get_mut(&sid) {
                socket.received.push(data.as_str().unwrap().to_string());
            }
        }
    }
}

pub struct Emitter {
    path: Str,
    uid: Uid,
    sockets: Arc<Sockets>,
}

#[derive(Debug, thiserror::Error, serde::Serialize, serde::Deserialize, PartialEq)]
#[error("no acknowledgement in time")]
pub struct AckTimeout;

impl SocketEmitter for Emitter {
    type AckError = AckTimeout;
    type AckStream = Pin<Box<dyn FusedStream<Item = AckStreamItem<AckTimeout>> + Send>>;

    fn get_all_sids(&self, filter: impl Fn(&Sid) -> bool) -> Vec<Sid> {
        let sockets = self.sockets.0.lock().unwrap();
        sockets.keys().copied().filter(|sid| filter(sid)).collect()
    }
    fn get_remote_sockets(&self, sids: BroadcastIter<'_>) -> Vec<RemoteSocketData> {
        let sockets = self.sockets.0.lock().unwrap();
        sids.filter(|sid| sockets.contains_key(sid))
            .map(|id| RemoteSocketData {
                id,
                server_id: self.uid,
                ns: self.path.clone(),
            })
            .collect()
    }
    fn send_many(&self, sids: BroadcastIter<'_>, data: Value) -> Result<(), Vec<SocketError>> {
        self.sockets.deliver(sids, &data);
        Ok(())
    }
    fn send_many_volatile(&self, sids: BroadcastIter<'_>, data: Value) {
        self.sockets.deliver(sids, &data);
    }
    fn send_many_with_ack(
        &self,
        sids: BroadcastIter<'_>,
        packet: Packet,
        timeout: Option<Duration>,
    ) -> (Self::AckStream, u32) {
        let sids: Vec<Sid> = sids.filter(|sid| self.sockets.has(*sid)).collect();
        let data = CommonParser.encode(packet);
        let timeout = timeout.unwrap_or(self.ack_timeout());
        let acks = stream::FuturesUnordered::new();
        for sid in &sids {
            let mut sockets = self.sockets.0.lock().unwrap();
            let socket = sockets.get_mut(sid).unwrap();
            socket.received.push(data.as_str().unwrap().to_string());
            let (ack, sid) = (socket.ack.clone(), *sid);
            acks.push(async move {
                let value = |text: &str| Ok(Value::Str(Str::from(text.to_string()), None));
                match ack {
                    Ack::Now(text) => (sid, value(text)),
                    Ack::After(delay, text) if delay < timeout => {
                        tokio::time::sleep(delay).await;
                        (sid, value(text))
                    }
                    Ack::After(..) | Ack::Never => {
                        tokio::time::sleep(timeout).await;
                        (sid, Err(AckTimeout))
                    }
                }
            });
        }
        (Box::pin(acks.fuse()), sids.len() as u32)
    }
    fn disconnect_many(&self, sids: Vec<Sid>) -> Result<(), Vec<SocketError>> {
        let mut sockets = self.sockets.0.lock().unwrap();
        for sid in sids {
            sockets.remove(&sid);
        }
        Ok(())
    }
    fn path(&self) -> &Str {
        &self.path
    }
    fn parser(&self) -> impl Parse {
        CommonParser
    }
    fn server_id(&self) -> Uid {
        self.uid
    }
    fn ack_timeout(&self) -> Duration {
        Duration::from_secs(5)
    }
}

pub type Adapter = ClusterAdapter<Emitter>;

type Namespace = (Arc<Adapter>, Arc<Sockets>);

/// One server of a cluster.
pub struct Node {
    pub uid: Uid,
    pub cluster: Cluster,
    namespaces: Mutex<HashMap<Str, Namespace>>,
}

impl Node {
    pub fn new(transport: impl Into<Arc<MemoryTransport>>, config: ClusterConfig) -> Self {
        Self::over(transport.into(), config)
    }
    pub fn over(transport: Arc<dyn Transport>, config: ClusterConfig) -> Self {
        Self::named(Uid::new(), transport, config)
    }
    pub fn named(uid: Uid, transport: Arc<dyn Transport>, config: ClusterConfig) -> Self {
        Self {
            uid,
            cluster: Cluster::new(transport, config).unwrap(),
            namespaces: Mutex::default(),
        }
    }
    pub fn id(&self) -> NodeId {
        NodeId::from(self.uid)
    }
    /// Adds a namespace and waits until it is in the cluster.
    pub async fn namespace(&self, path: &'static str) -> (Arc<Adapter>, Arc<Sockets>) {
        let sockets = Arc::new(Sockets::default());
        let emitter = Emitter {
            path: path.into(),
            uid: self.uid,
            sockets: sockets.clone(),
        };
        let adapter = Arc::new(Adapter::new(&self.cluster, CoreLocalAdapter::new(emitter)));
        let (tx, rx) = std::sync::mpsc::channel();
        let ready = adapter.clone().init(move || tx.send(()).unwrap());
        rx.try_recv().expect("on_success is called synchronously");
        ready.await.unwrap();
        let entry = (adapter, sockets);
        self.namespaces
            .lock()
            .unwrap()
            .insert(path.into(), entry.clone());
        entry
    }
}

pub fn event(path: &'static str, text: &str) -> Packet {
    let data = CommonParser.encode_value(&text, Some("msg")).unwrap();
    Packet::event(path, data)
}

/// What a socket receives of `event("/", text)`.
pub fn wire(text: &str) -> String {
    format!("2[\"msg\",\"{text}\"]")
}

pub fn everyone() -> BroadcastOptions {
    let mut opts = BroadcastOptions::default();
    opts.add_flag(BroadcastFlags::Broadcast);
    opts
}

/// Waits for a condition; panics with `what` after 10 s.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
