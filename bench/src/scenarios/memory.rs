//! How much memory a node takes: at rest, and when its sockets stand still while others flood it.

use super::{Bench, Cell, QUEUED, SIO_REDIS, Scenario};
use crate::{
    child::{Answer, Command, Load},
    message::Shape,
    node::Result,
    process::Child,
};

const MIB: f64 = (1 << 20) as f64;

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let cases = [("1 KiB flood".to_owned(), Shape::text(1 << 10))];
    let millis = if bench.quick { 300 } else { 3_000 };
    bench.alternate(&cases, &[QUEUED, SIO_REDIS], |bench, cell, shape| {
        let mut pair = bench.pair(cell.subject, false)?;
        let (rest, _) = memory(pair.receiver())?;
        add(bench, cell, "at rest, MiB", rest);
        pair.receiver().ask(Command::Listen { every: 1 })?;
        pair.receiver().ask(Command::Stall(true))?;
        let flood = Load::Closed {
            publishers: 64,
            millis,
            shape,
        };
        let published = pair.publisher.ask(Command::Publish(flood))?;
        let broker = bench.broker.info("used_memory")? as f64 / MIB;
        let (_, publisher) = memory(&mut pair.publisher)?;
        let (_, receiver) = memory(pair.receiver())?;
        add(
            bench,
            cell,
            "receiver stands still: receiver's peak, MiB",
            receiver,
        );
        add(
            bench,
            cell,
            "receiver stands still: publisher's peak, MiB",
            publisher,
        );
        add(bench, cell, "receiver stands still: broker, MiB", broker);
        pair.receiver().ask(Command::Stall(false))?;
        let Answer::Published { sent, .. } = published else {
            return Err(format!("unexpected answer {published:?}"));
        };
        let heard = pair.receiver().ask(Command::Heard { expect: sent })?;
        let Answer::Heard {
            count, reported, ..
        } = heard
        else {
            return Err(format!("unexpected answer {heard:?}"));
        };
        let lost = sent.saturating_sub(count);
        add(bench, cell, "accepted meanwhile", sent as f64);
        add(bench, cell, "of these lost", lost as f64);
        let silent = lost.saturating_sub(reported);
        add(bench, cell, "of these without a report", silent as f64);
        Ok(())
    });
    Ok(())
}

fn add(bench: &mut Bench, cell: Cell<'_>, metric: &str, value: f64) {
    bench.add(Scenario::Memory, cell, metric, value);
}

/// Now and at most, in MiB.
fn memory(child: &mut Child) -> Result<(f64, f64)> {
    match child.ask(Command::Memory)? {
        Answer::Memory { now, peak } => Ok((now as f64 / MIB, peak as f64 / MIB)),
        other => Err(format!("unexpected answer {other:?}")),
    }
}
