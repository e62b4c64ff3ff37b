//! The other brokers: how many broadcasts a second reach another node, beside the client alone that sends payloads as large.

use std::collections::HashMap;

use socketioxide_broker_lab::{self as lab, Broker};

use super::{Bench, CONFIRMED, NODE_STREAMS, QUEUED, RAW_AMQP, RAW_NATS, Scenario, Subject};
use crate::{
    child::Load,
    message::Shape,
    node::{Kind, Result, Role},
};

/// Messages in a payload of the client alone: as many as fit into a frame of ours under load.
const BATCH: usize = 127;
const SHAPE: Shape = Shape::text(1 << 10);

/// Runs on the Redis of all other scenarios, which keeps nothing on disk: the lab's own writes whatever comes.
const STREAMS: &str = "redis+streams";

/// Schemes of the URLs, each with those who can be compared on it.
const BROKERS: [(&str, &[Subject]); 5] = [
    (STREAMS, &[QUEUED, CONFIRMED, NODE_STREAMS]),
    ("nats", &[QUEUED, CONFIRMED, RAW_NATS]),
    ("nats+jetstream", &[QUEUED, CONFIRMED]),
    ("amqp", &[QUEUED, CONFIRMED, RAW_AMQP]),
    ("amqp+streams", &[QUEUED, CONFIRMED]),
];

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let millis = if bench.quick { 200 } else { 1_000 };
    let mut running = HashMap::<&str, Box<dyn Broker>>::new();
    for (scheme, subjects) in BROKERS {
        let cases = [1, 64].map(|publishers| {
            let name = format!("{scheme}, 1 KiB, {publishers}");
            (name, publishers)
        });
        bench.alternate(&cases, subjects, |bench, cell, publishers| {
            let url = if scheme == STREAMS {
                bench.broker.empty()?;
                bench.broker.url().replacen("redis", STREAMS, 1)
            } else {
                if !running.contains_key(scheme) {
                    let broker = lab::start(scheme, None).map_err(|error| error.to_string())?;
                    running.insert(scheme, broker);
                }
                let url = running.get(scheme).map(|broker| broker.url());
                url.unwrap_or_default()
            };
            let mut role = Role::new(cell.subject.kind, plain(cell.subject, url));
            if matches!(cell.subject.kind, Kind::RawNats | Kind::RawAmqp) {
                role.batch = BATCH;
            }
            let mut pair = bench.pair_of(cell.subject, &role)?;
            let load = |millis| Load::Closed {
                publishers,
                millis,
                shape: SHAPE,
            };
            pair.publish(&bench.broker, load(100), 16)?;
            let measured = pair.publish(&bench.broker, load(millis), 16)?;
            let received = measured.received as f64;
            let mut add = |metric: &str, value| bench.add(Scenario::Brokers, cell, metric, value);
            add("messages/s", received / measured.seconds);
            let used = measured.publisher.cpu_nanos + measured.receiver.cpu_nanos;
            add(
                "CPU seconds per 100,000, publisher and receiver",
                used as f64 / 1e9 / received * 1e5,
            );
            add("one-way p99 under this load, µs", measured.latency.p99);
            super::add_losses(bench, Scenario::Brokers, cell, &measured);
            Ok(())
        });
        // One broker at a time has the machine for itself.
        running.clear();
    }
    bench.broker.empty()
}

/// The Node.js adapters know the plain scheme only.
fn plain(subject: Subject, url: String) -> String {
    match subject.kind {
        Kind::Node { .. } => url.replace("redis+streams://", "redis://"),
        _ => url,
    }
}
