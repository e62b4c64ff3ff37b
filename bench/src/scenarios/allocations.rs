//! How often a message makes the program ask for memory, on each side.

use super::{Bench, CONFIRMED, QUEUED, RAW_REDIS, SIO_FRED, SIO_REDIS, Scenario};
use crate::{child::Load, message::Shape, node::Result};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let mut cases = Vec::new();
    for (name, shape) in [("64 B", Shape::text(64)), ("1 KiB", Shape::text(1 << 10))] {
        for publishers in [1, 64] {
            cases.push((format!("{name}, {publishers}"), (shape, publishers)));
        }
    }
    let millis = if bench.quick { 100 } else { 400 };
    let rounds = std::mem::replace(&mut bench.rounds, 1);
    let subjects = [QUEUED, CONFIRMED, SIO_REDIS, SIO_FRED, RAW_REDIS];
    bench.alternate(&cases, &subjects, |bench, cell, (shape, publishers)| {
        let mut pair = bench.pair(cell.subject, true)?;
        let load = Load::Closed {
            publishers,
            millis,
            shape,
        };
        let measured = pair.publish(&bench.broker, load, 16)?;
        let mut add = |metric: &str, value| bench.add(Scenario::Allocations, cell, metric, value);
        // The message itself is one of the publisher's.
        for (side, used, count) in [
            ("publisher", measured.publisher, measured.sent),
            ("receiver", measured.receiver, measured.received),
        ] {
            let count = count as f64;
            add(
                &format!("{side}, per message"),
                used.allocations as f64 / count,
            );
            add(
                &format!("{side}, bytes per message"),
                used.allocated as f64 / count,
            );
        }
        Ok(())
    });
    bench.rounds = rounds;
    Ok(())
}
