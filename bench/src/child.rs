//! A process that is measured: it is told what to do by lines of JSON, and answers in lines of JSON.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    task::JoinSet,
};

use crate::{
    alloc,
    heard::{Latency, histogram},
    message::{Shape, now},
    node::{self, Kind, Node, Nodes, Result, Role},
};

/// The receiver has heard all that it will hear when this long nothing came.
const SILENCE: Duration = Duration::from_millis(1500);

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Broadcasts.
    Publish(Load),
    /// Starts to count; looks at the age of every so manieth message.
    Listen { every: u64 },
    /// Waits for so many messages, or until nothing comes any more.
    Heard { expect: u64 },
    /// Asks the other nodes, so many requests at the same time.
    Request {
        ack: bool,
        in_flight: usize,
        millis: u64,
    },
    /// Makes the sockets stand still, or run on.
    Stall(bool),
    /// How much memory the process has.
    Memory,
    /// Where the server listens.
    Port,
}

/// How to broadcast.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Load {
    /// So many callers, each awaiting its broadcast before the next.
    Closed {
        publishers: usize,
        millis: u64,
        shape: Shape,
    },
    /// So many a second, each in a task of its own, however long they take.
    Open {
        rate: u64,
        millis: u64,
        shape: Shape,
    },
    /// So many at once.
    Burst { count: u64, shape: Shape },
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) cpu_nanos: u64,
    pub(crate) allocations: u64,
    pub(crate) allocated: u64,
}

impl Used {
    fn now() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let (allocations, allocated) = alloc::so_far();
        Self {
            cpu_nanos: cpu.tv_sec as u64 * 1_000_000_000 + cpu.tv_nsec as u64,
            allocations,
            allocated,
        }
    }

    fn since(self) -> Self {
        let now = Self::now();
        Self {
            cpu_nanos: now.cpu_nanos - self.cpu_nanos,
            allocations: now.allocations - self.allocations,
            allocated: now.allocated - self.allocated,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The nodes hear each other, or what was told is done.
    Ready,
    Failed(String),
    Published {
        sent: u64,
        failed: u64,
        /// The first error.
        error: Option<String>,
        started: u64,
        used: Used,
        reported: u64,
    },
    Heard {
        count: u64,
        /// When the last one came.
        last: u64,
        latency: Latency,
        used: Used,
        reported: u64,
    },
    Requested {
        done: u64,
        /// Requests that failed or did not reach every socket.
        incomplete: u64,
        nanos: u64,
        latency: Latency,
    },
    Port(u16),
    Memory {
        /// Resident, and the most that ever was, in bytes.
        now: u64,
        peak: u64,
    },
}

/// Runs a child until its input ends.
pub(crate) async fn run(role: Role) {
    if role.count_allocations {
        alloc::enable();
    }
    match role.kind {
        Kind::Ours { confirmed } => serve(&role, node::ours(&role, confirmed).await).await,
        Kind::SioRedis => serve(&role, node::sio_redis(&role).await).await,
        Kind::SioFred => serve(&role, node::fred(&role).await).await,
        Kind::Channel => serve(&role, Ok(node::channel(&role))).await,
        Kind::RawRedis => serve(&role, node::raw_redis(&role).await).await,
        Kind::RawNats => serve(&role, node::raw_nats(&role).await).await,
        Kind::RawAmqp => serve(&role, node::raw_amqp(&role).await).await,
        Kind::Server { ours: true } => serve(&role, node::our_server(&role).await).await,
        Kind::Server { ours: false } => serve(&role, node::sio_redis_server(&role).await).await,
        Kind::Clients => serve(&role, node::clients(&role).await).await,
        Kind::Node { .. } => answer(&Answer::Failed("runs in Node.js".to_owned())),
    }
}

async fn serve<N: Node>(role: &Role, nodes: Result<Nodes<N>>) {
    let nodes = match nodes {
        Ok(nodes) => nodes,
        Err(error) => return answer(&Answer::Failed(error)),
    };
    answer(&Answer::Ready);
    let mut used = Used::now();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let command = match serde_json::from_str(&line) {
            Ok(command) => command,
            Err(error) => return answer(&Answer::Failed(error.to_string())),
        };
        answer(&match command {
            Command::Publish(load) => publish(&nodes, load).await,
            Command::Listen { every } => {
                nodes.heard.reset(every);
                used = Used::now();
                Answer::Ready
            }
            Command::Heard { expect } => heard(&nodes, expect, used).await,
            Command::Request {
                ack,
                in_flight,
                millis,
            } => {
                let sockets = role.nodes * role.sockets;
                request(
                    &nodes,
                    ack,
                    in_flight,
                    Duration::from_millis(millis),
                    sockets,
                )
                .await
            }
            Command::Stall(stalled) => {
                nodes.heard.stall(stalled);
                Answer::Ready
            }
            Command::Memory => memory(),
            Command::Port => Answer::Port(nodes.nodes[0].port()),
        });
    }
}

fn answer(answer: &Answer) {
    println!("{}", serde_json::to_string(answer).unwrap_or_default());
}

/// What became of the messages.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    failed: AtomicU64,
    error: std::sync::OnceLock<String>,
}

impl Tally {
    async fn send<N: Node>(&self, node: &N, shape: Shape) {
        let count = node.batch();
        match node.send(shape.message()).await {
            Ok(()) => self.sent.fetch_add(count, Relaxed),
            Err(error) => {
                let _ = self.error.set(error);
                self.failed.fetch_add(count, Relaxed)
            }
        };
    }
}

async fn publish<N: Node>(nodes: &Nodes<N>, load: Load) -> Answer {
    let node = nodes.nodes[0].clone();
    let tally = Arc::<Tally>::default();
    let (before, started) = (Used::now(), now());
    let mut tasks = JoinSet::new();
    match load {
        Load::Closed {
            publishers,
            millis,
            shape,
        } => {
            let deadline = Instant::now() + Duration::from_millis(millis);
            for _ in 0..publishers {
                let (node, tally) = (node.clone(), tally.clone());
                tasks.spawn(async move {
                    while Instant::now() < deadline {
                        tally.send(&*node, shape).await;
                    }
                });
            }
        }
        Load::Open {
            rate,
            millis,
            shape,
        } => {
            // A thread paces: tokio's timer counts in whole milliseconds.
            let tally = tally.clone();
            let spawn = tokio::task::spawn_blocking(move || {
                let start = Instant::now();
                let mut tasks = JoinSet::new();
                for number in 0..rate * millis / 1000 {
                    let due = start + Duration::from_nanos(1_000_000_000 * number / rate);
                    let wait = due.saturating_duration_since(Instant::now());
                    if !wait.is_zero() {
                        thread::sleep(wait);
                    }
                    let (node, tally) = (node.clone(), tally.clone());
                    tasks.spawn(async move { tally.send(&*node, shape).await });
                }
                tasks
            });
            tasks = spawn.await.unwrap_or_default();
        }
        Load::Burst { count, shape } => {
            for _ in 0..count {
                let (node, tally) = (node.clone(), tally.clone());
                tasks.spawn(async move { tally.send(&*node, shape).await });
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    Answer::Published {
        sent: tally.sent.load(Relaxed),
        failed: tally.failed.load(Relaxed),
        error: tally.error.get().cloned(),
        started,
        used: before.since(),
        reported: nodes.nodes.iter().map(|node| node.reported()).sum(),
    }
}

async fn heard<N: Node>(nodes: &Nodes<N>, expect: u64, before: Used) -> Answer {
    let (mut count, mut last, mut quiet_since) = (0, now(), Instant::now());
    loop {
        let heard = nodes.heard.count();
        if heard != count {
            (count, last, quiet_since) = (heard, now(), Instant::now());
        }
        if count >= expect || quiet_since.elapsed() > SILENCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Answer::Heard {
        count,
        last,
        latency: nodes.heard.latency(),
        used: before.since(),
        reported: nodes.nodes.iter().map(|node| node.reported()).sum(),
    }
}

async fn request<N: Node>(
    nodes: &Nodes<N>,
    ack: bool,
    in_flight: usize,
    time: Duration,
    sockets: usize,
) -> Answer {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let node = nodes.nodes[0].clone();
        tasks.spawn(async move {
            let (mut done, mut incomplete, mut took) = (0, 0, histogram());
            while start.elapsed() < time {
                let asked = Instant::now();
                let answers = if ack {
                    node.ack(Shape::text(64).message()).await
                } else {
                    node.fetch().await
                };
                done += 1;
                incomplete += u64::from(answers != Ok(sockets));
                took.saturating_record(asked.elapsed().as_nanos() as u64);
            }
            (done, incomplete, took)
        });
    }
    let (mut done, mut incomplete, mut took) = (0, 0, histogram());
    while let Some(task) = tasks.join_next().await {
        if let Ok((more_done, more_incomplete, more)) = task {
            done += more_done;
            incomplete += more_incomplete;
            // Both have the same bounds.
            let _ = took.add(more);
        }
    }
    Answer::Requested {
        done,
        incomplete,
        nanos: start.elapsed().as_nanos() as u64,
        latency: Latency::of(&took),
    }
}

fn memory() -> Answer {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        number.unwrap_or_default() * 1024
    };
    Answer::Memory {
        now: bytes("VmRSS:"),
        peak: bytes("VmHWM:"),
    }
}
