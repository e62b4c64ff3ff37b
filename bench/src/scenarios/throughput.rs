//! How many broadcasts a second reach another node, and what they cost, when the callers never rest.

use super::{
    Bench, CHANNEL, CONFIRMED, Cell, Measured, NODE_CLASSIC, NODE_SHARDED, NODE_STREAMS, QUEUED,
    RAW_REDIS, SIO_FRED, SIO_REDIS, Scenario,
};
use crate::{child::Load, message::Shape, node::Result};

const SHAPES: [(&str, Shape); 4] = [
    ("64 B", Shape::text(64)),
    ("1 KiB", Shape::text(1 << 10)),
    ("64 KiB", Shape::text(64 << 10)),
    ("1 KiB binary", Shape::binary(1 << 10)),
];
const PUBLISHERS: [usize; 3] = [1, 8, 64];

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let mut cases = Vec::new();
    for (name, shape) in SHAPES {
        for publishers in PUBLISHERS {
            cases.push((format!("{name}, {publishers}"), (shape, publishers)));
        }
    }
    if bench.quick {
        cases.retain(|(_, (shape, publishers))| *publishers != 8 && !shape.binary);
    }
    let millis = if bench.quick { 200 } else { 600 };
    let subjects = [
        QUEUED,
        CONFIRMED,
        SIO_REDIS,
        SIO_FRED,
        RAW_REDIS,
        CHANNEL,
        NODE_CLASSIC,
        NODE_SHARDED,
        NODE_STREAMS,
    ];
    bench.alternate(&cases, &subjects, |bench, cell, (shape, publishers)| {
        let mut pair = bench.pair(cell.subject, false)?;
        let load = |millis| Load::Closed {
            publishers,
            millis,
            shape,
        };
        pair.publish(&bench.broker, load(100), 16)?;
        let measured = pair.publish(&bench.broker, load(millis), 16)?;
        record(bench, cell, &measured);
        Ok(())
    });
    Ok(())
}

fn record(bench: &mut Bench, cell: Cell<'_>, measured: &Measured) {
    let received = measured.received as f64;
    let mut add = |metric: &str, value| bench.add(Scenario::Throughput, cell, metric, value);
    add("messages/s", received / measured.seconds);
    let cpu = |nanos: u64| nanos as f64 / 1e9 / received * 1e5;
    let (publisher, receiver) = (measured.publisher.cpu_nanos, measured.receiver.cpu_nanos);
    add(
        "CPU seconds per 100,000, all processes",
        cpu(publisher + receiver + measured.broker_nanos),
    );
    add("CPU seconds per 100,000, publisher", cpu(publisher));
    add("CPU seconds per 100,000, receiver", cpu(receiver));
    add(
        "CPU seconds per 100,000, broker",
        cpu(measured.broker_nanos),
    );
    add("one-way p50 under this load, µs", measured.latency.p50);
    add("one-way p99 under this load, µs", measured.latency.p99);
    super::add_losses(bench, Scenario::Throughput, cell, measured);
}
