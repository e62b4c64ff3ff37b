//! Faults under load: what is lost is said, and nothing else goes wrong. The ledger judges.

use std::time::Duration;

use bytes::Bytes;
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{LinkState, Topic},
};

use crate::{
    Ability,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, epoch, inbox, link_is, namespace, patience, publish_many, up_after},
    ledger::Judgement,
    load::Load,
    payload::Id,
    proxy::Way,
};

cases!("transport::loss":
    restarts_under_load_lose_nothing_silently [Need::Fault(Ability::Restart)],
    restarts_under_load_lose_nothing_that_was_accepted [Need::Fault(Ability::Restart), Need::Replay],
    cuts_under_load_lose_nothing_silently [Need::Fault(Ability::Cut)],
    a_node_cut_off_alone_is_told_the_truth [Need::Gate],
    a_node_cut_off_gets_back_what_it_missed [Need::Gate, Need::Replay],
    connections_torn_at_any_byte_lose_nothing_silently [Need::Proxy],
    a_slow_and_slicing_network_changes_nothing [Need::Proxy],
);

async fn restarts_under_load_lose_nothing_silently(context: Context) -> Verdict {
    restart_under_load(&context).await.map(drop)
}

async fn restarts_under_load_lose_nothing_that_was_accepted(context: Context) -> Verdict {
    expect_all_back(&restart_under_load(&context).await?)
}

async fn restart_under_load(context: &Context) -> Verdict<Judgement> {
    let nodes = [context.node().await?, context.node().await?];
    let load = Load::new(&nodes[0], &[("self", &nodes[0]), ("other", &nodes[1])], 100).await?;
    let faults = context.faults()?;
    let fault = async |load: &Load| {
        for _ in 0..3 {
            let epochs = [epoch(&nodes[0]), epoch(&nodes[1])];
            faults.restart().await?;
            up_after(&nodes[0], epochs[0]).await?;
            up_after(&nodes[1], epochs[1]).await?;
            load.goes_on(50).await?;
        }
        Ok(())
    };
    load.endures(fault).await
}

async fn cuts_under_load_lose_nothing_silently(context: Context) -> Verdict {
    let nodes = [context.node().await?, context.node().await?];
    let load = Load::new(&nodes[0], &[("self", &nodes[0]), ("other", &nodes[1])], 100).await?;
    let faults = context.faults()?;
    let fault = async |load: &Load| {
        for _ in 0..10 {
            let epochs = [epoch(&nodes[0]), epoch(&nodes[1])];
            faults.cut().await?;
            up_after(&nodes[0], epochs[0]).await?;
            up_after(&nodes[1], epochs[1]).await?;
            load.goes_on(20).await?;
        }
        Ok(())
    };
    load.endures(fault).await.map(drop)
}

/// Cuts one of two receivers off while the load goes on.
async fn cut_one_off(context: &Context) -> Verdict<Judgement> {
    let (publisher, steady) = (context.node().await?, context.node().await?);
    let (away, gate) = context.lab.connect_gated(&context.prefix).await?;
    let load = Load::new(&publisher, &[("steady", &steady), ("away", &away)], 100).await?;
    let fault = async |load: &Load| {
        for _ in 0..3 {
            let before = epoch(&away);
            gate.shut().await?;
            link_is(&away, LinkState::Down).await?;
            load.goes_on(100).await?;
            let alone = Bytes::from_static(b"alone");
            let publish = away.publish(&Topic::Cluster, alone);
            let publish = within(patience(), "the end of a publish while cut off", publish).await?;
            let kind = publish.map_err(|error| error.kind());
            ensure_eq(
                "a publish of the node cut off",
                &kind,
                &Err(ErrorKind::LinkDown),
            )?;
            gate.open().await?;
            up_after(&away, before).await?;
            load.goes_on(20).await?;
        }
        Ok(())
    };
    let judgement = load.endures(fault).await?;
    ensure_eq(
        "sessions of a node that was not cut off",
        &epoch(&steady),
        &1,
    )?;
    Ok(judgement)
}

async fn a_node_cut_off_alone_is_told_the_truth(context: Context) -> Verdict {
    cut_one_off(&context).await.map(drop)
}

async fn a_node_cut_off_gets_back_what_it_missed(context: Context) -> Verdict {
    expect_all_back(&cut_one_off(&context).await?)
}

fn expect_all_back(judgement: &Judgement) -> Verdict {
    ensure!(
        judgement.lost() == 0,
        "a transport that replays lost payloads within its retention:\n{judgement}"
    );
    Ok(())
}

async fn connections_torn_at_any_byte_lose_nothing_silently(context: Context) -> Verdict {
    const CONNECTIONS: u64 = 30;
    let (publisher, to_publisher) = context.node_behind_proxy().await?;
    let (receiver, to_receiver) = context.node_behind_proxy().await?;
    let load = Load::new(&publisher, &[("receiver", &receiver)], 300).await?;
    let fault = async |_: &Load| {
        for proxy in [&to_publisher, &to_receiver] {
            proxy.set_both(Way::default().with_reset_after(1_000..10_000));
        }
        let torn = async || {
            let torn = to_publisher.accepted().min(to_receiver.accepted());
            Ok(torn >= CONNECTIONS)
        };
        eventually(Duration::from_secs(30), "thirty torn connections", torn).await?;
        for proxy in [&to_publisher, &to_receiver] {
            proxy.set_both(Way::default());
            // Those that already carry a limit would still be torn later.
            proxy.reset();
        }
        Ok(())
    };
    load.endures(fault).await.map(drop)
}

async fn a_slow_and_slicing_network_changes_nothing(context: Context) -> Verdict {
    const COUNT: u64 = 300;
    let topic = namespace("/slices");
    let (one, to_one) = context.node_behind_proxy().await?;
    let (two, to_two) = context.node_behind_proxy().await?;
    let mut inbox = inbox(&two, &topic).await?;
    let milliseconds = Duration::from_millis;
    for proxy in [&to_one, &to_two] {
        let way = Way::default().with_slices(1..=7);
        proxy.set_both(way.with_latency(milliseconds(5), milliseconds(10)));
    }
    publish_many(&one, &topic, 0, COUNT, 4).await?;
    let heard = inbox.fenced_ids(&one, &topic).await?;
    let expected: Vec<_> = (0..COUNT)
        .map(|number| Id {
            publisher: 0,
            number,
        })
        .collect();
    ensure!(
        heard == expected,
        "{} of {COUNT} payloads arrived, or in another order",
        heard.len()
    );
    ensure_eq(
        "sessions on a slow network",
        &[epoch(&one), epoch(&two)],
        &[1, 1],
    )
}
