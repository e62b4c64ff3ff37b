//! A Redis Cluster of three masters, with or without a replica each.

use tempfile::TempDir;

use super::{Redis, RedisBuilder, agree, shared_certificates};
use crate::{
    error::{Error, Result},
    port,
    tls::Certificates,
};

const MASTERS: usize = 3;
const SLOTS: u16 = 16_384;
/// The port of the cluster bus is not the server's to retry: another start may have taken it.
const START_TRIES: usize = 5;

/// How a cluster is set up. By default: three masters, no password, no TLS.
#[derive(Debug, Default, Clone)]
pub struct RedisClusterBuilder {
    replicas: bool,
    password: Option<String>,
    tls: bool,
}

impl RedisClusterBuilder {
    /// Gives each master a replica, which takes its place when it dies.
    #[must_use]
    pub fn replicas(mut self) -> Self {
        self.replicas = true;
        self
    }

    /// Requires `password` of the default user.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Speaks TLS, and only TLS, with clients and on the bus.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts the servers, joins them and waits until the cluster is ready.
    ///
    /// # Errors
    /// If the program is missing or does not start, or the servers do not find each other.
    pub fn start(self) -> Result<RedisCluster> {
        let tls = self.tls.then(shared_certificates).transpose()?;
        let certificates = tls.as_ref().map(|(_, certificates)| certificates);
        let count = if self.replicas { 2 * MASTERS } else { MASTERS };
        let nodes = (0..count).map(|_| self.node(certificates));
        let nodes: Vec<Node> = nodes.collect::<Result<_>>()?;
        let cluster = RedisCluster {
            nodes,
            setup: self,
            tls,
        };
        cluster.join()?;
        Ok(cluster)
    }

    fn node(&self, certificates: Option<&Certificates>) -> Result<Node> {
        let mut last = Error::new("not tried");
        for _ in 0..START_TRIES {
            let bus = port::free()?;
            let mut server: RedisBuilder = Redis::builder()
                .config("cluster-enabled yes")
                .config("cluster-node-timeout 1500")
                .config("repl-diskless-sync-delay 0")
                .config(format!("cluster-port {bus}"))
                .shared_tls(certificates);
            if let Some(password) = &self.password {
                server = server
                    .password(password)
                    .config(format!("masterauth {password:?}"));
            }
            if self.tls {
                server = server.config("tls-cluster yes");
            }
            match server.start() {
                Ok(server) => {
                    let id = server.command(&["CLUSTER", "MYID"])?;
                    let id = id.text().unwrap_or_default().to_owned();
                    return Ok(Node { server, bus, id });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

#[derive(Debug)]
struct Node {
    server: Redis,
    bus: u16,
    id: String,
}

/// A Redis Cluster on 127.0.0.1, which takes a node for dead after 1.5 s. Dropping it kills all its servers.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Node>,
    setup: RedisClusterBuilder,
    tls: Option<(TempDir, Certificates)>,
}

impl RedisCluster {
    /// Starts a cluster with the defaults of [`RedisClusterBuilder`].
    ///
    /// # Errors
    /// As [`RedisClusterBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Sets up a cluster.
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder::default()
    }

    /// `redis+cluster://`, the password and the masters.
    pub fn url(&self) -> String {
        let scheme = if self.setup.tls { "rediss" } else { "redis" };
        let password = self.setup.password.as_ref();
        let login = password.map_or_else(String::new, |password| format!(":{password}@"));
        let address = |node: &Node| format!("127.0.0.1:{}", node.server.port());
        let nodes: Vec<String> = self.nodes[..MASTERS].iter().map(address).collect();
        format!("{scheme}+cluster://{login}{}", nodes.join(","))
    }

    /// The servers: three that were masters at the start, then their replicas, if any, in the same order.
    pub fn servers(&self) -> impl ExactSizeIterator<Item = &Redis> {
        self.nodes.iter().map(|node| &node.server)
    }

    /// The certificates of a cluster with TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.tls.as_ref().map(|(_, certificates)| certificates)
    }

    /// The slot of a channel.
    ///
    /// # Errors
    /// If no server can be asked.
    pub fn slot(&self, channel: &str) -> Result<u16> {
        let answer = self.any()?.command(&["CLUSTER", "KEYSLOT", channel])?;
        let slot = answer.int().and_then(|slot| u16::try_from(slot).ok());
        slot.ok_or_else(|| Error::new("no slot"))
    }

    /// The index in [`servers`](Self::servers) of the master that has `slot`.
    ///
    /// # Errors
    /// If no server knows one.
    pub fn owner(&self, slot: u16) -> Result<usize> {
        let answer = self.any()?.command(&["CLUSTER", "SLOTS"])?;
        let has = |range: &&super::Reply| {
            let bound = |index: usize| range.items()?.get(index)?.int();
            let slot = i64::from(slot);
            bound(0).is_some_and(|first| first <= slot) && bound(1).is_some_and(|last| slot <= last)
        };
        let range = answer.items().unwrap_or_default().iter().find(has);
        let port = range.and_then(|range| range.items()?.get(2)?.items()?.get(1)?.int());
        let owner = self
            .nodes
            .iter()
            .position(|node| Some(i64::from(node.server.port())) == port);
        owner.ok_or_else(|| Error::new(format!("nobody has slot {slot}")))
    }

    /// The master that has `slot`.
    ///
    /// # Errors
    /// If no server knows one.
    pub fn master(&self, slot: u16) -> Result<&Redis> {
        Ok(&self.nodes[self.owner(slot)?].server)
    }

    /// Lets the replica of the master that has `slot` take its place, and waits until all know.
    ///
    /// # Errors
    /// What the replica answers; that there is none.
    pub fn fail_over(&self, slot: u16) -> Result<()> {
        let owner = self.owner(slot)?;
        // A master and its replica change places.
        let replica = self.nodes.get((owner + MASTERS) % (2 * MASTERS));
        let replica = replica.ok_or_else(|| Error::new("the cluster has no replicas"))?;
        replica.server.command(&["CLUSTER", "FAILOVER"])?;
        self.taken_over(slot, owner)
    }

    /// Moves a slot to the server with this index, in the order in which a resharding does it, and waits until all know.
    ///
    /// # Errors
    /// What a server answers.
    pub fn move_slot(&self, slot: u16, to: usize) -> Result<()> {
        let from = self.owner(slot)?;
        let number = slot.to_string();
        let set = |node: usize, state: &str, id: &str| {
            let server = &self.nodes[node].server;
            server.command(&["CLUSTER", "SETSLOT", &number, state, id])
        };
        set(to, "IMPORTING", &self.nodes[from].id)?;
        set(from, "MIGRATING", &self.nodes[to].id)?;
        let target = &self.nodes[to].id;
        set(to, "NODE", target)?;
        set(from, "NODE", target)?;
        for other in (0..MASTERS).filter(|other| ![from, to].contains(other)) {
            set(other, "NODE", target)?;
        }
        Ok(())
    }

    /// Starts what was killed, thaws what was frozen, and waits until the cluster is ready and replicas could take over.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn heal(&self) -> Result<()> {
        for node in &self.nodes {
            if node.server.is_running() {
                node.server.thaw()?;
            } else {
                node.server.restart()?;
            }
        }
        self.ready()?;
        self.replicated()
    }

    /// Waits until every server that runs takes the cluster for ready and every other server for alive.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn ready(&self) -> Result<()> {
        let known = |info: &str, line: String| info.lines().any(|it| it.trim() == line);
        agree("the cluster is ready", || {
            self.servers()
                .filter(|server| server.is_running())
                .all(|server| {
                    let ask = |what| server.command(&["CLUSTER", what]).ok();
                    let (Some(info), Some(nodes)) = (ask("INFO"), ask("NODES")) else {
                        return false;
                    };
                    let (info, nodes) = (
                        info.text().unwrap_or_default(),
                        nodes.text().unwrap_or_default(),
                    );
                    known(info, "cluster_state:ok".into())
                        && known(info, format!("cluster_known_nodes:{}", self.nodes.len()))
                        && !["fail", "handshake", "noaddr"]
                            .iter()
                            .any(|flag| nodes.contains(flag))
                })
        })
    }

    /// Waits until the replica has taken the place of a master that was killed.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn taken_over(&self, slot: u16, from: usize) -> Result<()> {
        agree("a replica takes over", || {
            self.owner(slot).is_ok_and(|owner| owner != from)
        })
    }

    fn any(&self) -> Result<&Redis> {
        let mut servers = self.servers();
        servers
            .find(|server| server.is_running())
            .ok_or_else(|| Error::new("no server of the cluster is running"))
    }

    fn join(&self) -> Result<()> {
        let per_master = SLOTS.div_ceil(MASTERS as u16);
        for (index, node) in (0_u16..).zip(&self.nodes) {
            if usize::from(index) < MASTERS {
                let first = index * per_master;
                let last = (first + per_master).min(SLOTS) - 1;
                let (first, last) = (first.to_string(), last.to_string());
                node.server
                    .command(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])?;
            }
            // Different from the start, so that no two masters have to settle it.
            let epoch = (index + 1).to_string();
            node.server
                .command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
            let first = &self.nodes[0];
            let (port, bus) = (first.server.port().to_string(), first.bus.to_string());
            if index > 0 {
                node.server
                    .command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
            }
        }
        self.ready()?;
        for (master, replica) in self.nodes.iter().zip(&self.nodes[MASTERS..]) {
            replica
                .server
                .command(&["CLUSTER", "REPLICATE", &master.id])?;
        }
        self.replicated()
    }

    /// Waits until every replica has its master's data, so that it could take its place, and all know the replicas.
    fn replicated(&self) -> Result<()> {
        agree("the replicas have the data", || {
            self.servers().all(|server| {
                let info = server.command(&["INFO", "replication"]);
                let says = |info: &str| {
                    ["role:master", "master_link_status:up"]
                        .iter()
                        .any(|it| info.contains(it))
                };
                info.is_ok_and(|info| says(info.text().unwrap_or_default()))
            })
        })?;
        agree("all know the replicas", || {
            self.servers().all(|server| {
                let nodes = server.command(&["CLUSTER", "NODES"]);
                let replicas =
                    nodes.map(|nodes| nodes.text().unwrap_or_default().matches("slave").count());
                replicas.is_ok_and(|replicas| replicas == self.nodes.len() - MASTERS)
            })
        })
    }
}
