//! The network is bad, but not broken: nothing may come of it but delay.

use std::time::Duration;

use socketioxide_adapter_core::ClusterEvent;

use super::{drill::Drill, member::Seat};
use crate::{
    cases::{Need, cases, cluster::stage::was_told},
    check::{Verdict, ensure},
    context::{Context, patience},
    proxy::{Flow, Way},
};

cases!("faults::network":
    late_and_jittery [Need::Proxy],
    in_slices [Need::Proxy],
    narrow [Need::Proxy],
    a_slow_consumer [Need::Proxy],
);

/// Three nodes, two of which have such a network for a while.
async fn bad(context: &Context, what: &str, way: Way) -> Verdict {
    let seats = [
        Seat::confirmed().proxied(),
        Seat::queued().proxied(),
        Seat::queued(),
    ];
    let mut drill = Drill::of(context, seats).await?;
    while drill.goes_on(1).await? {
        drill.note(what);
        for member in &drill.members[..2] {
            member.proxy()?.set_both(way.clone());
        }
        for _ in 0..2 {
            drill.load_goes_on().await?;
        }
        drill.holds().await?;
        drill.note("the network is good again");
        for member in &drill.members[..2] {
            member.proxy()?.set_both(Way::default());
        }
        for member in &drill.members {
            let left = was_told(&member.node, |event| {
                matches!(event, ClusterEvent::Left { .. })
            });
            ensure!(
                !left,
                "a node was declared gone because its network was slow"
            );
        }
    }
    drill.ends_without_losses().await
}

async fn late_and_jittery(context: Context) -> Verdict {
    let milliseconds = Duration::from_millis;
    let way = match context.length.is_soak() {
        true => Way::default().with_latency(milliseconds(50), milliseconds(100)),
        false => Way::default().with_latency(milliseconds(20), milliseconds(40)),
    };
    bad(&context, "the network is late and jittery", way).await
}

async fn in_slices(context: Context) -> Verdict {
    let way = Way::default().with_slices(1..=7);
    bad(&context, "the network passes slices of some bytes", way).await
}

async fn narrow(context: Context) -> Verdict {
    let way = Way::default().with_bandwidth(1 << 20);
    bad(&context, "the network passes a mebibyte per second", way).await
}

async fn a_slow_consumer(context: Context) -> Verdict {
    /// More than the buffers of a connection hold.
    const SIZE: usize = 32 << 10;
    const COUNT: u64 = 200;
    let seats = [Seat::confirmed(), Seat::queued(), Seat::queued().proxied()];
    let mut drill = Drill::of(&context, seats).await?;
    drill.filler(SIZE);
    while drill.goes_on(1).await? {
        drill.note("node 3 reads nothing");
        let hold = Way::default().with_flow(Flow::Hold);
        drill.members[2].proxy()?.set_to_client(hold);
        for member in &drill.members[..2] {
            member.publisher.at_once(COUNT);
        }
        drill
            .until(3 * patience(), "the end of a burst", |drill| {
                drill.members[..2]
                    .iter()
                    .all(|member| member.publisher.is_done())
            })
            .await?;
        drill.note("node 3 reads again");
        drill.members[2].proxy()?.set_to_client(Way::default());
        drill.recovers().await?;
    }
    drill.ends().await.map(drop)
}
