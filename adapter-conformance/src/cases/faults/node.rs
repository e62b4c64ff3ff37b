//! Nodes die, leave, come and come again while the load goes on, and a client is slow.

use socketioxide_adapter_core::{ClusterEvent, LeaveReason, NodeId};

use super::{drill::Drill, member::Seat};
use crate::{
    cases::{cases, cluster::stage::mortal},
    check::{Verdict, ensure_eq},
    context::{Context, patience},
};

cases!("faults::node":
    one_is_killed,
    one_leaves,
    one_joins_amid_a_burst,
    one_starts_again_and_again,
    a_client_that_does_not_read,
);

/// A node of a cluster in which a silent one is soon dead. What it emits is confirmed: nobody else can answer for the rest.
fn brittle() -> Seat {
    Seat::confirmed().set(|config| config.with_dead_after(mortal().dead_after))
}

/// Waits until all others know that a node has left.
async fn all_know(drill: &Drill<'_>, node: NodeId, reason: LeaveReason) -> Verdict {
    let left = ClusterEvent::Left { node, reason };
    drill
        .until(2 * patience(), "the others knowing who left", |drill| {
            let mut others = drill.members.iter().filter(|member| member.id != node);
            others.all(|member| member.node.events().with(|events| events.contains(&left)))
        })
        .await
}

/// Kills the last node under load.
async fn kill_last(drill: &mut Drill<'_>) -> Verdict {
    let last = drill.members.len() - 1;
    let node = drill.members[last].id;
    drill.note(&format!("{} is killed", drill.members[last].name));
    drill.members[last].node.transport().close().await?;
    all_know(drill, node, LeaveReason::Dead).await?;
    drill.parts(last).await?;
    drill.acquainted().await
}

async fn one_is_killed(context: Context) -> Verdict {
    let mut drill = Drill::of(&context, [brittle(), brittle(), brittle()]).await?;
    drill.load_goes_on().await?;
    kill_last(&mut drill).await?;
    drill.load_goes_on().await?;
    drill.ends_without_losses().await
}

async fn one_leaves(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    drill.load_goes_on().await?;
    let node = drill.members[2].id;
    drill.leaves(2).await?;
    all_know(&drill, node, LeaveReason::Bye).await?;
    drill.acquainted().await?;
    drill.load_goes_on().await?;
    drill.ends_without_losses().await
}

async fn one_joins_amid_a_burst(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(1).await? {
        drill.burst(context.length.burst);
        drill.note("a node joins amid a burst");
        drill.seat(Seat::queued()).await?;
        drill.burst_ends().await?;
        drill.acquainted().await?;
        drill.load_goes_on().await?;
        drill.leaves(3).await?;
    }
    drill.ends_without_losses().await
}

async fn one_starts_again_and_again(context: Context) -> Verdict {
    let mut drill = Drill::of(&context, [brittle(), brittle(), brittle()]).await?;
    while drill.goes_on(2).await? {
        kill_last(&mut drill).await?;
        drill.note("it starts again");
        drill.seat(brittle()).await?;
        drill.acquainted().await?;
    }
    drill.ends_without_losses().await
}

async fn a_client_that_does_not_read(context: Context) -> Verdict {
    let mut drill = Drill::of_three(&context).await?;
    while drill.goes_on(1).await? {
        drill.note("a client stops to read");
        drill.members[0].clients[0].reads(false);
        let heard = |drill: &Drill<'_>| {
            let others = drill.members[1..].iter().flat_map(|member| &member.clients);
            others.map(|client| client.arrivals().len()).min()
        };
        let enough = heard(&drill).map(|least| least + context.length.burst as usize / 2);
        drill.burst(context.length.burst);
        drill
            .until(3 * patience(), "the others hearing on", |drill| {
                heard(drill) >= enough
            })
            .await?;
        drill.burst_ends().await?;
        drill.note("the client reads again");
        drill.members[0].clients[0].reads(true);
        ensure_eq(
            "packets that a client's queue had no room for",
            &drill.members[0]
                .node
                .cluster()
                .stats()
                .socket_packets_dropped,
            &0,
        )?;
    }
    drill.ends_without_losses().await
}
