//! One node of a drill: a server, its clients, its load, and the way between it and the broker.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::try_join_all;
use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, ClusterEvents, NodeId, OutagePolicy, PublishMode,
    transport::{LinkState, Transport},
};

use super::publisher::{EVENT, LANES, Publisher, read};
use crate::{
    Gate,
    cases::cluster::stage::brisk,
    check::{Failure, Verdict, ensure, ensure_eq, within},
    context::{Context, patience},
    journal::Journal,
    ledger::{Gap, Ledger},
    node::{Arrival, Client, Node},
    proxy::Proxy,
};

/// How long a confirmed emit waits for the broker.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(1);
/// Calls of a confirmed publisher at the same time.
const WINDOW: usize = 4;

/// What lies between a node and the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Direct,
    Gate,
    Proxy,
}

/// What a node of a drill is like.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    config: ClusterConfig,
    path: Path,
    window: usize,
    idle: bool,
}

impl Seat {
    /// Its emits are done when they are in its lane.
    pub(super) fn queued() -> Self {
        Self {
            // Every event is read, also where hundreds come at once.
            config: brisk().with_event_buffer(1 << 16),
            path: Path::Direct,
            window: 1,
            idle: false,
        }
    }

    /// Its emits are done when the broker has them.
    pub(super) fn confirmed() -> Self {
        let seat = Self::queued().set(|config| {
            config
                .with_publish_mode(PublishMode::Confirmed)
                .with_publish_timeout(CONFIRMED_WITHIN)
        });
        Self {
            window: WINDOW,
            ..seat
        }
    }

    /// Changes its settings.
    pub(super) fn set(self, change: impl FnOnce(ClusterConfig) -> ClusterConfig) -> Self {
        Self {
            config: change(self.config),
            ..self
        }
    }

    /// One call at a time.
    pub(super) fn in_turn(self) -> Self {
        Self { window: 1, ..self }
    }

    /// It emits nothing until the faults are over.
    pub(super) fn idle(self) -> Self {
        Self { idle: true, ..self }
    }

    /// It can be cut off by a gate.
    pub(super) fn gated(self) -> Self {
        Self {
            path: Path::Gate,
            ..self
        }
    }

    /// It is behind a proxy.
    pub(super) fn proxied(self) -> Self {
        Self {
            path: Path::Proxy,
            ..self
        }
    }
}

/// A node that has not joined yet.
pub(super) struct Connected {
    seat: Seat,
    transport: Arc<dyn Transport>,
    gate: Option<Box<dyn Gate>>,
    proxy: Option<Proxy>,
}

impl Connected {
    /// Connects as the seat says.
    pub(super) async fn new(context: &Context, seat: Seat) -> Verdict<Self> {
        let (mut gate, mut proxy) = (None, None);
        let transport = match seat.path {
            Path::Direct => context.node().await?,
            Path::Gate => {
                let (transport, way) = context.lab.connect_gated(&context.prefix).await?;
                gate = Some(way);
                transport
            }
            Path::Proxy => {
                let (transport, way) = context.node_behind_proxy().await?;
                proxy = Some(way);
                transport
            }
        };
        Ok(Self {
            seat,
            transport,
            gate,
            proxy,
        })
    }
}

/// What has been read so far.
struct Reading {
    arrivals: [usize; LANES.len()],
    events: ClusterEvents,
    /// Messages told as lost.
    gaps: u64,
    disconnected: bool,
}

/// A node at work.
pub(super) struct Member {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) id: NodeId,
    pub(super) node: Node,
    pub(super) clients: [Client; LANES.len()],
    pub(super) publisher: Publisher,
    pub(super) idle: bool,
    gate: Option<Box<dyn Gate>>,
    proxy: Option<Proxy>,
    reading: Mutex<Reading>,
}

impl Member {
    /// Joins with all namespaces, and lets the clients in. From then on everything is owed to it.
    pub(super) async fn join(
        context: &Context,
        ledger: &Arc<Ledger>,
        number: u32,
        connected: Connected,
    ) -> Verdict<Self> {
        let Connected {
            seat,
            transport,
            gate,
            proxy,
        } = connected;
        let node = context.serve(transport, seat.config)?;
        let events = node.cluster().events();
        let joining = try_join_all(LANES.map(|lane| node.namespace(lane)));
        within(3 * patience(), "joining the cluster", joining).await??;
        let name = format!("node {number}");
        let clients = try_join_all(LANES.map(|lane| node.client(lane))).await?;
        ledger.joins_beside(&name, number);
        let count = |_| Failure("a client too few".into());
        let publisher =
            Publisher::start(number, ledger, node.io(), seat.window, context.length.pause);
        Ok(Self {
            name,
            number,
            id: node.id()?,
            clients: clients.try_into().map_err(count)?,
            publisher,
            idle: seat.idle,
            gate,
            proxy,
            reading: Mutex::new(Reading {
                arrivals: [0; LANES.len()],
                events,
                gaps: 0,
                disconnected: false,
            }),
            node,
        })
    }

    /// The gate of a node that was seated behind one.
    pub(super) fn gate(&self) -> Verdict<&dyn Gate> {
        let gate = self.gate.as_deref();
        gate.ok_or_else(|| Failure("this node has no gate".into()))
    }

    /// The proxy of a node that was seated behind one.
    pub(super) fn proxy(&self) -> Verdict<&Proxy> {
        let proxy = self.proxy.as_ref();
        proxy.ok_or_else(|| Failure("this node has no proxy".into()))
    }

    /// How many sessions its transport has had.
    pub(super) fn epoch(&self) -> u64 {
        self.node.transport().link().status().epoch
    }

    /// Whether its link delivers.
    pub(super) fn is_up(&self) -> bool {
        self.node.cluster().link().state() == LinkState::Up
    }

    /// What its link is like, in words.
    pub(super) fn link(&self) -> String {
        let status = self.node.cluster().link().status();
        let reason = status.reason.as_deref().unwrap_or("no reason");
        format!("link {:?}: {reason}", status.state)
    }

    /// Writes down what has come since the last time: arrivals at the sockets, and what the cluster told. `who` knows the
    /// numbers of the nodes.
    pub(super) fn write_down(
        &self,
        ledger: &Ledger,
        journal: &Journal,
        who: impl Fn(NodeId) -> Option<u32>,
    ) -> Verdict {
        self.publisher.check()?;
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = &mut *reading;
        for (client, done) in self.clients.iter().zip(&mut reading.arrivals) {
            client.arrivals().with(|arrivals| {
                for arrival in &arrivals[*done..] {
                    match arrival {
                        Arrival::Disconnected => reading.disconnected = true,
                        Arrival::Event(event) if event.name == EVENT => {
                            match event.attachments.first().and_then(|payload| read(payload)) {
                                Some(entry) => ledger.arrives(&self.name, entry),
                                None => ledger.arrives_torn(&self.name),
                            }
                        }
                        Arrival::Event(_) => ledger.arrives_torn(&self.name),
                    }
                }
                *done = arrivals.len();
            });
        }
        while let Some(event) = reading.events.try_recv() {
            journal.note(format!("{}: {event}", self.name));
            match event {
                ClusterEvent::Gap {
                    origin,
                    namespace,
                    count,
                    ..
                } => {
                    let unknown =
                        || Failure(format!("a loss of a node that nobody knows: {origin}"));
                    reading.gaps += count;
                    let gap = Gap::Counted {
                        publisher: who(origin).ok_or_else(unknown)?,
                        lane: lane_of(namespace.as_ref())?,
                        count,
                    };
                    ledger.reports(&self.name, gap);
                }
                // Where emits are confirmed, each of these was told to its caller too.
                ClusterEvent::Unsent {
                    namespace, count, ..
                } if self.is_queued() => {
                    ledger.withdraws(self.number, lane_of(namespace.as_ref())?, count);
                }
                ClusterEvent::Lagged { count } => {
                    return Err(Failure(format!("{count} events were not read in time")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_queued(&self) -> bool {
        self.node.cluster().config().publish_mode == PublishMode::Queued
    }

    /// Wants its clients still to be connected.
    pub(super) fn expect_connected(&self) -> Verdict {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !reading.disconnected,
            "a client of {} was disconnected",
            self.name
        );
        Ok(())
    }

    /// Leaves the cluster, so that it tells what it holds back. What it told must be what it counted.
    pub(super) async fn expect_accounts(
        &self,
        ledger: &Ledger,
        journal: &Journal,
        who: impl Fn(NodeId) -> Option<u32>,
    ) -> Verdict {
        self.node.cluster().shutdown().await?;
        self.write_down(ledger, journal, who)?;
        let told = self
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .gaps;
        let counted = self.node.cluster().stats().envelopes_lost;
        ensure_eq("messages told as lost, and counted", &told, &counted)
    }

    /// The longest that an emit may take, in milliseconds; a busy machine has some time for itself.
    pub(super) fn call_bound_ms(&self) -> u64 {
        let config = self.node.cluster().config();
        let outage = match config.outage {
            OutagePolicy::Block { timeout } => timeout,
            _ => Duration::ZERO,
        };
        let bound = config.publish_timeout + outage + patience() / 2;
        u64::try_from(bound.as_millis()).unwrap_or(u64::MAX)
    }
}

fn lane_of(namespace: &str) -> Verdict<u32> {
    let lane = LANES.iter().position(|lane| *lane == namespace);
    let unknown = || Failure(format!("a loss in a namespace without load: {namespace:?}"));
    Ok(lane.ok_or_else(unknown)? as u32)
}
