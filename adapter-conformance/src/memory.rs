//! The lab of the in-process bus: the smallest complete example of a lab.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use socketioxide_adapter_core::{
    memory::{MemoryBus, MemoryTransport},
    transport::Transport,
};

use crate::{Ability, Faults, Gate, Lab, LabResult};

/// A second is long for a bus without a network, and freezes are waited out.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

/// One bus per prefix; faults meet all of them.
#[derive(Default)]
pub struct MemoryLab {
    clusters: Mutex<HashMap<String, Cluster>>,
}

struct Cluster {
    bus: MemoryBus,
    nodes: Vec<Weak<MemoryTransport>>,
}

impl MemoryLab {
    /// A lab without any node.
    pub fn new() -> Self {
        Self::default()
    }

    /// [`new`](Self::new) in the shape that [`main`](crate::main()) takes.
    pub fn start() -> std::future::Ready<LabResult<Self>> {
        std::future::ready(Ok(Self::new()))
    }

    /// Connects a node to the bus of `prefix`, for labs that put something around it.
    pub fn join(&self, prefix: &str) -> Arc<MemoryTransport> {
        let mut clusters = self.clusters();
        clusters.retain(|_, cluster| {
            cluster.nodes.retain(|node| node.strong_count() > 0);
            !cluster.nodes.is_empty()
        });
        let new = || Cluster {
            bus: MemoryBus::with_call_timeout(CALL_TIMEOUT),
            nodes: Vec::new(),
        };
        let cluster = clusters.entry(prefix.to_owned()).or_insert_with(new);
        let node = Arc::new(cluster.bus.connect());
        cluster.nodes.push(Arc::downgrade(&node));
        node
    }

    /// The gate of a node.
    pub fn gate(node: &Arc<MemoryTransport>) -> Box<dyn Gate> {
        Box::new(NodeGate(Arc::downgrade(node)))
    }

    fn clusters(&self) -> MutexGuard<'_, HashMap<String, Cluster>> {
        self.clusters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each_bus(&self, act: impl Fn(&MemoryBus)) {
        self.clusters().values().for_each(|c| act(&c.bus));
    }

    fn each_node(&self, act: impl Fn(&MemoryTransport)) {
        for cluster in self.clusters().values() {
            cluster
                .nodes
                .iter()
                .filter_map(Weak::upgrade)
                .for_each(|node| act(&node));
        }
    }
}

#[async_trait]
impl Lab for MemoryLab {
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
        Ok(self.join(prefix))
    }

    fn call_deadline(&self) -> Duration {
        2 * CALL_TIMEOUT
    }

    fn has_gates(&self) -> bool {
        true
    }

    async fn connect_gated(&self, prefix: &str) -> LabResult<(Arc<dyn Transport>, Box<dyn Gate>)> {
        let node = self.join(prefix);
        let gate = Self::gate(&node);
        Ok((node, gate))
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for MemoryLab {
    fn abilities(&self) -> &[Ability] {
        &[
            Ability::Restart,
            Ability::Stop,
            Ability::Freeze,
            Ability::Cut,
        ]
    }

    async fn restore(&self) -> LabResult {
        self.each_bus(MemoryBus::thaw);
        self.each_bus(MemoryBus::start);
        self.each_node(MemoryTransport::heal);
        Ok(())
    }

    async fn restart(&self) -> LabResult {
        self.each_bus(MemoryBus::stop);
        self.each_bus(MemoryBus::start);
        Ok(())
    }

    async fn stop(&self) -> LabResult {
        self.each_bus(MemoryBus::stop);
        Ok(())
    }

    async fn start(&self) -> LabResult {
        self.each_bus(MemoryBus::start);
        Ok(())
    }

    async fn freeze(&self) -> LabResult {
        self.each_bus(MemoryBus::freeze);
        Ok(())
    }

    async fn thaw(&self) -> LabResult {
        self.each_bus(MemoryBus::thaw);
        Ok(())
    }

    async fn cut(&self) -> LabResult {
        self.each_node(MemoryTransport::cut);
        self.each_node(MemoryTransport::heal);
        Ok(())
    }
}

struct NodeGate(Weak<MemoryTransport>);

#[async_trait]
impl Gate for NodeGate {
    async fn shut(&self) -> LabResult {
        self.0.upgrade().iter().for_each(|node| node.cut());
        Ok(())
    }

    async fn open(&self) -> LabResult {
        self.0.upgrade().iter().for_each(|node| node.heal());
        Ok(())
    }
}

impl fmt::Debug for MemoryLab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLab").finish_non_exhaustive()
    }
}
