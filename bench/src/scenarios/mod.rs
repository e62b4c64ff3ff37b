//! What is measured, and of whom.

mod allocations;
mod brokers;
mod bursts;
mod clients;
mod latency;
mod memory;
mod requests;
mod scaling;
mod throughput;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::ValueEnum;

use crate::{
    broker::Broker,
    child::{Answer, Command, Load, Used},
    heard::Latency,
    node::{Kind, NodeAdapter, Result, Role},
    process::Child,
    results::{Key, Results},
};

/// The scenarios, by the name on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    Throughput,
    Latency,
    Requests,
    Bursts,
    Allocations,
    Memory,
    Scaling,
    Brokers,
    Clients,
}

impl Scenario {
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Requests => "requests",
            Self::Bursts => "bursts",
            Self::Allocations => "allocations",
            Self::Memory => "memory",
            Self::Scaling => "scaling",
            Self::Brokers => "brokers",
            Self::Clients => "clients",
        }
    }

    pub(crate) fn run(self, bench: &mut Bench) -> Result<()> {
        bench.deadline = bench.quick.then(|| Instant::now() + QUICK);
        match self {
            Self::Throughput => throughput::run(bench),
            Self::Latency => latency::run(bench),
            Self::Requests => requests::run(bench),
            Self::Bursts => bursts::run(bench),
            Self::Allocations => allocations::run(bench),
            Self::Memory => memory::run(bench),
            Self::Scaling => scaling::run(bench),
            Self::Brokers => brokers::run(bench),
            Self::Clients => clients::run(bench),
        }
    }
}

/// Time of one scenario in a quick run; all of them take less than three minutes.
const QUICK: Duration = Duration::from_secs(16);

/// Somebody who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Run by the build of [`Bench::before`].
    pub(crate) before: bool,
}

impl Subject {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            before: false,
        }
    }

    const fn before(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            before: true,
        }
    }
}

const OURS_QUEUED: Kind = Kind::Ours { confirmed: false };
const OURS_CONFIRMED: Kind = Kind::Ours { confirmed: true };
pub(crate) const QUEUED: Subject = Subject::new("queued", OURS_QUEUED);
pub(crate) const CONFIRMED: Subject = Subject::new("confirmed", OURS_CONFIRMED);
pub(crate) const SIO_REDIS: Subject = Subject::new(BASE, Kind::SioRedis);
pub(crate) const SIO_FRED: Subject = Subject::new("socketioxide-redis (fred)", Kind::SioFred);
pub(crate) const RAW_REDIS: Subject = Subject::new("redis-rs alone", Kind::RawRedis);
pub(crate) const CHANNEL: Subject = Subject::new("channel in one process", Kind::Channel);
pub(crate) const NODE_CLASSIC: Subject = node("Node.js classic", NodeAdapter::Classic);
pub(crate) const NODE_SHARDED: Subject = node("Node.js sharded", NodeAdapter::Sharded);
pub(crate) const NODE_STREAMS: Subject = node("Node.js streams", NodeAdapter::Streams);
pub(crate) const RAW_NATS: Subject = Subject::new("async-nats alone", Kind::RawNats);
pub(crate) const RAW_AMQP: Subject = Subject::new("lapin alone", Kind::RawAmqp);
const BEFORE: [Subject; 2] = [
    Subject::before("queued, before", OURS_QUEUED),
    Subject::before("confirmed, before", OURS_CONFIRMED),
];
const fn node(name: &'static str, adapter: NodeAdapter) -> Subject {
    Subject::new(name, Kind::Node { adapter })
}

/// The subject that ratios are to.
pub(crate) const BASE: &str = "socketioxide-redis";

/// A run: the broker, how much of everything, and what came out.
pub(crate) struct Bench {
    pub(crate) broker: Broker,
    pub(crate) rounds: usize,
    /// Only a sign that everything runs.
    pub(crate) quick: bool,
    /// No cell begins after it.
    pub(crate) deadline: Option<Instant>,
    /// Only cases whose name contains it.
    pub(crate) filter: Option<String>,
    /// Only subjects whose name contains one of these; all if empty.
    pub(crate) subjects: Vec<String>,
    /// Whether the Node.js peers can run.
    pub(crate) node_peers: bool,
    /// An earlier build, measured beside this one.
    pub(crate) before: Option<PathBuf>,
    pub(crate) results: Results,
    /// Cells that came to nothing.
    pub(crate) failed: usize,
}

/// What one measurement of publishing came to.
pub(crate) struct Measured {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) received: u64,
    /// From the first message made to the last one heard.
    pub(crate) seconds: f64,
    pub(crate) latency: Latency,
    pub(crate) publisher: Used,
    pub(crate) receiver: Used,
    pub(crate) broker_nanos: u64,
    /// Lost messages that the application was told of.
    pub(crate) reported: u64,
}

impl Bench {
    /// Starts the brokers; the Node.js peers take part if they are installed.
    pub(crate) fn start(quick: bool) -> Result<Self> {
        let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/node_modules");
        let node_peers = Path::new(installed).exists();
        if !node_peers {
            eprintln!("without the Node.js adapters: run `npm ci` in bench/peers for them");
        }
        Ok(Self {
            broker: Broker::redis()?,
            rounds: 1,
            quick,
            deadline: None,
            filter: None,
            subjects: Vec::new(),
            node_peers,
            before: None,
            results: Results::default(),
            failed: 0,
        })
    }

    /// Measures each subject in each case, in rounds: the subjects take turns, each round begins with another one.
    pub(crate) fn alternate<C: Copy>(
        &mut self,
        cases: &[(String, C)],
        subjects: &[Subject],
        mut measure: impl FnMut(&mut Self, Cell<'_>, C) -> Result<()>,
    ) {
        let subjects = self.selected(subjects);
        for round in 0..self.rounds {
            for (case, value) in cases {
                if self
                    .filter
                    .as_ref()
                    .is_some_and(|part| !case.contains(part))
                {
                    continue;
                }
                for turn in 0..subjects.len() {
                    let subject = subjects[(round + turn) % subjects.len()];
                    if self.deadline.is_some_and(|end| Instant::now() > end) {
                        eprintln!("out of time before {case}, {}", subject.name);
                        return;
                    }
                    let cell = Cell {
                        subject,
                        case,
                        round,
                    };
                    if let Err(error) = measure(self, cell, *value) {
                        eprintln!("round {round}, {case}, {}: {error}", subject.name);
                        self.failed += 1;
                    }
                }
            }
        }
    }

    fn selected(&self, subjects: &[Subject]) -> Vec<Subject> {
        let mut selected = subjects.to_vec();
        if self.before.is_some() {
            let earlier = BEFORE.into_iter();
            selected.extend(earlier.filter(|old| subjects.iter().any(|new| new.kind == old.kind)));
        }
        if !self.node_peers {
            selected.retain(|subject| !matches!(subject.kind, Kind::Node { .. }));
        }
        if !self.subjects.is_empty() {
            let named =
                |subject: &Subject| self.subjects.iter().any(|it| subject.name.contains(it));
            selected.retain(named);
        }
        selected
    }

    /// A process with one or more nodes.
    pub(crate) fn child(&self, subject: Subject, role: &Role) -> Result<Child> {
        Child::start(role, self.before.as_deref().filter(|_| subject.before))
    }

    pub(crate) fn add(&mut self, scenario: Scenario, cell: Cell<'_>, metric: &str, value: f64) {
        let key = Key {
            scenario: scenario.title().to_owned(),
            metric: metric.to_owned(),
            case: cell.case.to_owned(),
            subject: cell.subject.name.to_owned(),
        };
        self.results.add(key, cell.round, value);
    }

    /// A publisher and a receiver, each a process of its own.
    pub(crate) fn pair(&self, subject: Subject, count_allocations: bool) -> Result<Pair> {
        let mut role = Role::new(subject.kind, self.broker.url());
        role.count_allocations = count_allocations;
        self.pair_of(subject, &role)
    }

    fn pair_of(&self, subject: Subject, role: &Role) -> Result<Pair> {
        let hearing = role.clone().with_sockets(1);
        Ok(match subject.kind {
            Kind::Channel => Pair {
                publisher: self.child(subject, &hearing)?,
                receiver: None,
            },
            _ => Pair {
                receiver: Some(self.child(subject, &hearing)?),
                publisher: self.child(subject, role)?,
            },
        })
    }
}

/// One subject in one case in one round.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) subject: Subject,
    pub(crate) case: &'a str,
    pub(crate) round: usize,
}

/// A publisher and a receiver.
pub(crate) struct Pair {
    pub(crate) publisher: Child,
    /// The publisher's own process if `None`.
    receiver: Option<Child>,
}

impl Pair {
    pub(crate) fn receiver(&mut self) -> &mut Child {
        self.receiver.as_mut().unwrap_or(&mut self.publisher)
    }

    /// Publishes, and waits for what arrives.
    pub(crate) fn publish(&mut self, broker: &Broker, load: Load, every: u64) -> Result<Measured> {
        self.receiver().ask(Command::Listen { every })?;
        let broker_before = broker.cpu_nanos();
        let published = self.publisher.ask(Command::Publish(load))?;
        let Answer::Published {
            sent,
            failed,
            error,
            started,
            used: publisher,
            reported: unsent,
        } = published
        else {
            return Err(format!("unexpected answer {published:?}"));
        };
        if let Some(error) = error {
            eprintln!("{failed} of {} failed, the first: {error}", sent + failed);
        }
        let heard = self.receiver().ask(Command::Heard { expect: sent })?;
        let Answer::Heard {
            count,
            last,
            latency,
            used: receiver,
            reported: lost,
        } = heard
        else {
            return Err(format!("unexpected answer {heard:?}"));
        };
        Ok(Measured {
            sent,
            failed,
            received: count,
            seconds: last.saturating_sub(started) as f64 / 1e9,
            latency,
            publisher,
            // What one process used counts once.
            receiver: self
                .receiver
                .as_ref()
                .map_or_else(Used::default, |_| receiver),
            broker_nanos: broker.cpu_nanos() - broker_before,
            reported: unsent + lost,
        })
    }
}

/// Messages that were accepted and never came, and those of them that nobody was told of.
fn add_losses(bench: &mut Bench, scenario: Scenario, cell: Cell<'_>, measured: &Measured) {
    let lost = measured.sent.saturating_sub(measured.received);
    let silent = lost.saturating_sub(measured.reported);
    let share = |count: u64| count as f64 / measured.sent as f64 * 100.0;
    bench.add(scenario, cell, "accepted and lost, %", share(lost));
    bench.add(scenario, cell, "lost without a report, %", share(silent));
}
