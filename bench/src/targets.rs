//! What the project wants to hold, beside what was measured.

use std::fmt::Write as _;

use crate::{results::Results, scenarios::BASE, table::number};

/// A figure and its limit.
struct Target {
    scenario: &'static str,
    metric: &'static str,
    case: &'static str,
    subject: &'static str,
    against: Against,
    limit: Limit,
}

/// What the figure is a ratio to.
enum Against {
    /// Another subject in the same case.
    Subject(&'static str),
    /// The same subject in another case.
    Case(&'static str),
    /// Nothing: it is judged by itself.
    Nothing,
}

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

use Against::{Case, Nothing, Subject};
use Limit::{AtLeast, AtMost};

const RATE: &str = "messages/s";
const CPU: &str = "CPU seconds per 100,000, all processes";
const ROUND_TRIP: &str = "one at a time: p50, µs";
const SILENT: &str = "lost without a report, %";

const fn target(
    scenario: &'static str,
    metric: &'static str,
    case: &'static str,
    subject: &'static str,
    against: Against,
    limit: Limit,
) -> Target {
    Target {
        scenario,
        metric,
        case,
        subject,
        against,
        limit,
    }
}

const fn faster(case: &'static str, subject: &'static str, times: f64) -> Target {
    target(
        "throughput",
        RATE,
        case,
        subject,
        Subject(BASE),
        AtLeast(times),
    )
}

const fn near_raw(case: &'static str, times: f64) -> Target {
    target(
        "throughput",
        RATE,
        case,
        "queued",
        Subject(RAW),
        AtLeast(times),
    )
}

const fn cheaper(case: &'static str, subject: &'static str, part: f64) -> Target {
    target(
        "throughput",
        CPU,
        case,
        subject,
        Subject(BASE),
        AtMost(part),
    )
}

const fn sooner(metric: &'static str, case: &'static str, peer: &'static str, part: f64) -> Target {
    target(
        "latency",
        metric,
        case,
        "queued",
        Subject(peer),
        AtMost(part),
    )
}

const fn answered(case: &'static str) -> Target {
    target(
        "requests",
        ROUND_TRIP,
        case,
        "queued",
        Subject(BASE),
        AtMost(0.75),
    )
}

const fn beside(case: &'static str, peer: &'static str, times: f64) -> Target {
    target(
        "brokers",
        RATE,
        case,
        "queued",
        Subject(peer),
        AtLeast(times),
    )
}

const fn by_itself(
    scenario: &'static str,
    metric: &'static str,
    case: &'static str,
    most: f64,
) -> Target {
    target(scenario, metric, case, "queued", Nothing, AtMost(most))
}

const RAW: &str = "redis-rs alone";
const TARGETS: &[Target] = &[
    faster("64 B, 1", "queued", 50.0),
    faster("64 B, 8", "queued", 14.0),
    faster("64 B, 64", "queued", 6.0),
    faster("1 KiB, 1", "queued", 20.0),
    faster("1 KiB, 8", "queued", 6.0),
    faster("1 KiB, 64", "queued", 4.0),
    faster("64 B, 64", "confirmed", 2.3),
    faster("1 KiB, 64", "confirmed", 3.2),
    faster("64 B, 1", "confirmed", 1.0),
    faster("1 KiB, 1", "confirmed", 1.0),
    faster("64 KiB, 1", "queued", 3.5),
    faster("64 KiB, 8", "queued", 3.5),
    faster("64 KiB, 64", "queued", 3.5),
    near_raw("64 KiB, 1", 0.6),
    near_raw("64 KiB, 8", 0.6),
    near_raw("64 KiB, 64", 0.6),
    cheaper("64 B, 1", "queued", 1.0 / 40.0),
    cheaper("64 B, 64", "queued", 1.0 / 7.0),
    cheaper("1 KiB, 64", "confirmed", 0.35),
    sooner("p50, µs", "1 KiB, 2000/s", BASE, 0.9),
    sooner("p99, µs", "1 KiB, 2000/s", BASE, 1.0),
    sooner("p50, µs", "1 KiB, 2000/s", RAW, 1.25),
    sooner("p99, µs", "1 KiB, 2000/s", RAW, 1.25),
    answered("fetch_sockets, 2 nodes"),
    answered("fetch_sockets, 4 nodes"),
    answered("fetch_sockets, 8 nodes"),
    answered("emit_with_ack, 2 nodes"),
    answered("emit_with_ack, 4 nodes"),
    answered("emit_with_ack, 8 nodes"),
    beside("redis+streams, 1 KiB, 64", "Node.js streams", 8.0),
    beside("nats, 1 KiB, 64", "async-nats alone", 0.8),
    beside("amqp, 1 KiB, 64", "lapin alone", 0.8),
    by_itself("allocations", "publisher, per message", "1 KiB, 64", 8.0),
    by_itself("allocations", "receiver, per message", "1 KiB, 64", 5.0),
    by_itself("bursts", SILENT, "64 B, 20000 at once", 0.0),
    by_itself("bursts", SILENT, "1 KiB, 20000 at once", 0.0),
    by_itself("bursts", SILENT, "64 B, 160000/s offered", 0.0),
    by_itself("bursts", SILENT, "1 KiB, 160000/s offered", 0.0),
    by_itself(
        "clients",
        "lost on the way, %",
        "100 clients, 100 emits/s",
        0.0,
    ),
    by_itself(
        "clients",
        "lost on the way, %",
        "1000 clients, 20 emits/s",
        0.0,
    ),
    target(
        "scaling",
        "traffic at rest, bytes/s per node",
        "2 nodes, 1000 namespaces",
        "queued",
        Case("2 nodes, 1 namespaces"),
        AtMost(1.05),
    ),
];

/// Those targets that `results` has numbers for, as a Markdown table.
pub(crate) fn table(results: &Results) -> String {
    let mut out =
        String::from("| what | against | wanted | measured | |\n|---|---|---:|---:|---|\n");
    for target in TARGETS {
        let Some(measured) = target.measured(results) else {
            continue;
        };
        let (wanted, holds) = match target.limit {
            AtLeast(limit) => (format!("≥ {}", number(limit)), measured >= limit),
            AtMost(limit) => (format!("≤ {}", number(limit)), measured <= limit),
        };
        let against = match target.against {
            Subject(name) => name,
            Case(name) => name,
            Nothing => "–",
        };
        let _ = writeln!(
            out,
            "| {}: {}, {}, {} | {against} | {wanted} | {} | {} |",
            target.scenario,
            target.metric,
            target.case,
            target.subject,
            number(measured),
            if holds { "holds" } else { "**missed**" },
        );
    }
    out
}

impl Target {
    fn measured(&self, results: &Results) -> Option<f64> {
        let row = |case, subject| results.row(self.scenario, self.metric, case, subject);
        let ours = row(self.case, self.subject)?;
        let value = match self.against {
            Subject(subject) => ours.ratio(row(self.case, subject)?),
            Case(case) => ours.ratio(row(case, self.subject)?),
            Nothing => ours.median(),
        };
        value.is_finite().then_some(value)
    }
}
