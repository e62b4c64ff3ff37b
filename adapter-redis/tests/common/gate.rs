//! A gate in the way of one node: a user of its own, whom the servers stop letting in.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use socketioxide_adapter_conformance::{Gate, LabResult};
use socketioxide_broker_lab::Redis;
use tokio::task::block_in_place;

/// The servers of a lab.
pub(crate) trait Servers: Send + Sync + 'static {
    /// All that clients connect to.
    fn servers(&self) -> Vec<&Redis>;
}

pub(crate) struct UserGate<L> {
    lab: Arc<L>,
    user: String,
}

/// Each has a name of its own.
static NODES: AtomicU32 = AtomicU32::new(0);

/// The password of every such user.
pub(crate) const PASSWORD: &str = "open";

impl<L: Servers> UserGate<L> {
    /// Makes a user; the node is to log in by this name.
    pub(crate) fn new(lab: &Arc<L>) -> LabResult<(Self, String)> {
        let user = format!("node-{}", NODES.fetch_add(1, Ordering::Relaxed));
        let gate = Self {
            lab: lab.clone(),
            user: user.clone(),
        };
        gate.set(&["on", ">open", "allchannels", "allkeys", "allcommands"])?;
        Ok((gate, user))
    }

    fn set(&self, rules: &[&str]) -> LabResult {
        let command = [&["ACL", "SETUSER", &self.user], rules].concat();
        block_in_place(|| {
            let mut servers = self.lab.servers().into_iter();
            Ok(servers.try_for_each(|server| server.command(&command).map(drop))?)
        })
    }
}

#[async_trait]
impl<L: Servers> Gate for UserGate<L> {
    async fn shut(&self) -> LabResult {
        self.set(&["off"])?;
        let command = ["CLIENT", "KILL", "USER", &self.user];
        block_in_place(|| {
            let mut servers = self.lab.servers().into_iter();
            Ok(servers.try_for_each(|server| server.command(&command).map(drop))?)
        })
    }

    async fn open(&self) -> LabResult {
        self.set(&["on"])
    }
}
