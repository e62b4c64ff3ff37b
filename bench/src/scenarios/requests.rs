//! Questions to all nodes: sockets, and a broadcast with acknowledgements.

use super::{
    Bench, NODE_CLASSIC, NODE_SHARDED, NODE_STREAMS, QUEUED, SIO_FRED, SIO_REDIS, Scenario,
};
use crate::{
    child::{Answer, Command},
    node::{Result, Role},
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let mut cases = Vec::new();
    for (name, ack) in [("fetch_sockets", false), ("emit_with_ack", true)] {
        for nodes in [2, 4, 8] {
            cases.push((format!("{name}, {nodes} nodes"), (ack, nodes)));
        }
    }
    if bench.quick {
        cases.retain(|(_, (_, nodes))| *nodes == 2);
    }
    let millis = if bench.quick { 200 } else { 800 };
    let subjects = [
        QUEUED,
        SIO_REDIS,
        SIO_FRED,
        NODE_CLASSIC,
        NODE_SHARDED,
        NODE_STREAMS,
    ];
    bench.alternate(&cases, &subjects, |bench, cell, (ack, nodes)| {
        // All nodes in one process: so many share the two cores anyway.
        let role = Role::new(cell.subject.kind, bench.broker.url());
        let mut child = bench.child(cell.subject, &role.with_nodes(nodes).with_sockets(1))?;
        for (in_flight, record) in [(1, false), (1, true), (16, true)] {
            let answer = child.ask(Command::Request {
                ack,
                in_flight,
                millis: if record { millis } else { 100 },
            })?;
            let Answer::Requested {
                done,
                incomplete,
                nanos,
                latency,
            } = answer
            else {
                return Err(format!("unexpected answer {answer:?}"));
            };
            if !record {
                continue;
            }
            let mut add = |metric: &str, value| bench.add(Scenario::Requests, cell, metric, value);
            if in_flight == 1 {
                add("one at a time: p50, µs", latency.p50);
                add("one at a time: p99, µs", latency.p99);
            } else {
                add("16 at a time: requests/s", done as f64 / nanos as f64 * 1e9);
            }
            let share = incomplete as f64 / done as f64 * 100.0;
            add(
                if in_flight == 1 {
                    "one at a time: without all answers, %"
                } else {
                    "16 at a time: without all answers, %"
                },
                share,
            );
        }
        Ok(())
    });
    Ok(())
}
