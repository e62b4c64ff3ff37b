//! Many broadcasts at once, and more a second than fits.

use super::{
    Bench, CONFIRMED, NODE_CLASSIC, NODE_SHARDED, NODE_STREAMS, QUEUED, RAW_REDIS, SIO_FRED,
    SIO_REDIS, Scenario, add_losses,
};
use crate::{child::Load, message::Shape, node::Result};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let mut cases = Vec::new();
    let count = if bench.quick { 2_000 } else { 20_000 };
    let millis = if bench.quick { 200 } else { 1_000 };
    for (name, shape) in [("64 B", Shape::text(64)), ("1 KiB", Shape::text(1 << 10))] {
        cases.push((
            format!("{name}, {count} at once"),
            Load::Burst { count, shape },
        ));
        let rate = 160_000;
        let open = Load::Open {
            rate,
            millis,
            shape,
        };
        cases.push((format!("{name}, {rate}/s offered"), open));
    }
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
    bench.alternate(&cases, &subjects, |bench, cell, load| {
        let mut pair = bench.pair(cell.subject, false)?;
        let measured = pair.publish(&bench.broker, load, 1)?;
        let mut add = |metric: &str, value| bench.add(Scenario::Bursts, cell, metric, value);
        let offered = (measured.sent + measured.failed) as f64;
        add(
            "not delivered, % of what was offered",
            100.0 - measured.received as f64 / offered * 100.0,
        );
        add("one-way p99, µs", measured.latency.p99);
        add_losses(bench, Scenario::Bursts, cell, &measured);
        Ok(())
    });
    Ok(())
}
