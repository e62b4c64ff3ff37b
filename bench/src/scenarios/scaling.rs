//! What a cluster costs that does nothing, as it gets more nodes and more namespaces.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Bench, QUEUED, SIO_REDIS, Scenario};
use crate::{
    child::{Answer, Command},
    node::{Result, Role},
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let mut cases: Vec<_> = [2, 4, 8, 16].map(|nodes| (nodes, 1)).to_vec();
    cases.extend([10, 100, 1_000].map(|namespaces| (2, namespaces)));
    if bench.quick {
        cases.truncate(1);
    }
    let watch = Duration::from_secs(if bench.quick { 1 } else { 8 });
    let cases: Vec<_> = cases
        .into_iter()
        .map(|case| (format!("{} nodes, {} namespaces", case.0, case.1), case))
        .collect();
    let rounds = std::mem::replace(&mut bench.rounds, 1);
    bench.alternate(
        &cases,
        &[QUEUED, SIO_REDIS],
        |bench, cell, (nodes, namespaces)| {
            let started = Instant::now();
            let role = Role::new(cell.subject.kind, bench.broker.url());
            let role = role.with_nodes(nodes).with_namespaces(namespaces);
            let mut child = bench.child(cell.subject, &role)?;
            let joined = started.elapsed().as_secs_f64();
            // What nodes tell newcomers is not what they cost at rest.
            thread::sleep(Duration::from_secs(1));
            let traffic = |bench: &Bench| -> Result<u64> {
                let sent = bench.broker.info("total_net_output_bytes")?;
                Ok(sent + bench.broker.info("total_net_input_bytes")?)
            };
            let question = {
                let before = traffic(bench)?;
                traffic(bench)? - before
            };
            let (before, cpu, start) = (traffic(bench)?, bench.broker.cpu_nanos(), Instant::now());
            thread::sleep(watch);
            let bytes = (traffic(bench)? - before).saturating_sub(question) as f64;
            let cpu = (bench.broker.cpu_nanos() - cpu) as f64;
            let seconds = start.elapsed().as_secs_f64();
            let subscriptions = bench.broker.channels() as f64;
            let memory = child.ask(Command::Memory)?;
            let Answer::Memory { now, .. } = memory else {
                return Err(format!("unexpected answer {memory:?}"));
            };
            let per_node = nodes as f64;
            let mut add = |metric: &str, value| bench.add(Scenario::Scaling, cell, metric, value);
            add(
                "traffic at rest, bytes/s per node",
                bytes / seconds / per_node,
            );
            add("broker at rest, CPU ms/s", cpu / seconds / 1e6);
            add("channels in the broker", subscriptions);
            add("memory, KiB per node", now as f64 / 1024.0 / per_node);
            add("until all hear each other, s", joined);
            Ok(())
        },
    );
    bench.rounds = rounds;
    Ok(())
}
