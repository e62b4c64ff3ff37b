//! How long a broadcast takes to another node, at rates that leave everybody time.

use super::{
    Bench, CONFIRMED, NODE_CLASSIC, NODE_SHARDED, NODE_STREAMS, QUEUED, RAW_REDIS, SIO_FRED,
    SIO_REDIS, Scenario, add_losses,
};
use crate::{child::Load, message::Shape, node::Result};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let mut cases = Vec::new();
    for (name, shape) in [("64 B", Shape::text(64)), ("1 KiB", Shape::text(1 << 10))] {
        for rate in [2_000, 20_000] {
            cases.push((format!("{name}, {rate}/s"), (shape, rate)));
        }
    }
    if bench.quick {
        cases.truncate(1);
    }
    let millis = if bench.quick { 300 } else { 2_000 };
    let subjects = [
        QUEUED,
        CONFIRMED,
        SIO_REDIS,
        SIO_FRED,
        RAW_REDIS,
        NODE_CLASSIC,
        NODE_SHARDED,
        NODE_STREAMS,
    ];
    bench.alternate(&cases, &subjects, |bench, cell, (shape, rate)| {
        let mut pair = bench.pair(cell.subject, false)?;
        let load = |millis| Load::Open {
            rate,
            millis,
            shape,
        };
        pair.publish(&bench.broker, load(200), 1)?;
        let measured = pair.publish(&bench.broker, load(millis), 1)?;
        let mut add = |metric: &str, value| bench.add(Scenario::Latency, cell, metric, value);
        add("p50, µs", measured.latency.p50);
        add("p99, µs", measured.latency.p99);
        add("p99.9, µs", measured.latency.p999);
        let used = measured.publisher.cpu_nanos + measured.receiver.cpu_nanos;
        let cpu = (used + measured.broker_nanos) as f64 / 1e9;
        add(
            "CPU seconds per 100,000, all processes",
            cpu / measured.received as f64 * 1e5,
        );
        add_losses(bench, Scenario::Latency, cell, &measured);
        Ok(())
    });
    Ok(())
}
