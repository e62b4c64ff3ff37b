//! End to end: what an emit on one server brings to real WebSocket clients of another one.

use super::{Bench, QUEUED, SIO_REDIS, Scenario};
use crate::{
    child::{Answer, Command, Load},
    message::Shape,
    node::{Kind, Result, Role},
    process::Child,
};

pub(super) fn run(bench: &mut Bench) -> Result<()> {
    let millis = if bench.quick { 300 } else { 3_000 };
    let mut cases = vec![("100 clients, 100 emits/s".to_owned(), (100, 100))];
    if !bench.quick {
        cases.push(("1000 clients, 20 emits/s".to_owned(), (1_000, 20)));
    }
    bench.alternate(
        &cases,
        &[QUEUED, SIO_REDIS],
        |bench, cell, (count, rate)| {
            let ours = matches!(cell.subject.kind, Kind::Ours { .. });
            let role = Role::new(Kind::Server { ours }, bench.broker.url());
            let mut near = bench.child(cell.subject, &role)?;
            let mut far = bench.child(cell.subject, &role)?;
            let address = format!("127.0.0.1:{}", port(&mut far)?);
            let role = Role::new(Kind::Clients, address).with_sockets(count);
            let mut clients = bench.child(cell.subject, &role)?;
            clients.ask(Command::Listen { every: 1 })?;
            let load = Load::Open {
                rate,
                millis,
                shape: Shape::text(256),
            };
            let published = near.ask(Command::Publish(load))?;
            let Answer::Published { sent, .. } = published else {
                return Err(format!("unexpected answer {published:?}"));
            };
            let expect = sent * count as u64;
            let heard = clients.ask(Command::Heard { expect })?;
            let Answer::Heard {
                count: arrived,
                latency,
                used,
                ..
            } = heard
            else {
                return Err(format!("unexpected answer {heard:?}"));
            };
            let lost = expect.saturating_sub(arrived) as f64;
            let mut add = |metric: &str, value| bench.add(Scenario::Clients, cell, metric, value);
            add("until a client has it, p50, µs", latency.p50);
            add("until a client has it, p99, µs", latency.p99);
            add("lost on the way, %", lost / expect as f64 * 100.0);
            add("clients' CPU seconds", used.cpu_nanos as f64 / 1e9);
            Ok(())
        },
    );
    Ok(())
}

fn port(server: &mut Child) -> Result<u16> {
    match server.ask(Command::Port)? {
        Answer::Port(port) => Ok(port),
        other => Err(format!("unexpected answer {other:?}")),
    }
}
