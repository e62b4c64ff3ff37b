//! Who is in the cluster: everybody who lives, nobody who left, and no verdict by a node that hears nothing itself.

use std::time::Duration;

use socketioxide_adapter_core::{
    ClusterEvent, ErrorKind, LeaveReason, NodeId,
    transport::{LinkState, Topic},
};
use tokio::time::Instant;

use super::{
    stage::{
        acquainted, brisk, expect_heard, expect_lost_in_all, hears, link_becomes, mortal, say,
        say_until_heard, told, told_lost, was_told,
    },
    tap::Fate,
};
use crate::{
    Ability,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::Node,
};

cases!("cluster::membership":
    a_node_that_says_goodbye_has_left_at_once,
    a_node_that_dies_has_left_after_its_silence,
    a_silent_node_that_comes_back_is_the_same_and_its_losses_are_told,
    a_node_that_starts_again_is_another_one,
    heartbeats_go_on_after_errors,
    a_restarted_broker_makes_nobody_leave [Need::Fault(Ability::Restart)],
    a_frozen_broker_makes_nobody_leave [Need::Fault(Ability::Freeze)],
);

fn left(node: NodeId, reason: LeaveReason) -> impl Fn(&ClusterEvent) -> bool {
    move |event| *event == ClusterEvent::Left { node, reason }
}

/// Wants a node never to have been told that another left.
fn nobody_left(nodes: &[&Node]) -> Verdict {
    for node in nodes {
        let left = was_told(node, |event| matches!(event, ClusterEvent::Left { .. }));
        ensure!(
            !left,
            "a node was declared gone that was there: {:?}",
            node.events()
        );
    }
    Ok(())
}

async fn a_node_that_says_goodbye_has_left_at_once(context: Context) -> Verdict {
    let [one, two, three] = context.cluster(brisk()).await?;
    let id = one.id()?;
    one.shutdown().await?;
    for node in [&two, &three] {
        told(node, "the goodbye", left(id, LeaveReason::Bye)).await?;
    }
    acquainted(&[&two, &three]).await
}

async fn a_node_that_dies_has_left_after_its_silence(context: Context) -> Verdict {
    let [one, two] = context.cluster(mortal()).await?;
    let id = one.id()?;
    let died = Instant::now();
    one.kill().await?;
    told(&two, "the death", left(id, LeaveReason::Dead)).await?;
    let earliest = mortal().dead_after - 2 * mortal().heartbeat;
    ensure!(
        died.elapsed() >= earliest,
        "declared dead after {:?} of silence",
        died.elapsed()
    );
    ensure_eq("nodes known", &two.cluster().nodes().len(), &0)
}

async fn a_silent_node_that_comes_back_is_the_same_and_its_losses_are_told(
    context: Context,
) -> Verdict {
    let (mute, tap, other) = context.pair(mortal()).await?;
    let client = other.client("/").await?;
    let id = mute.id()?;
    say(&mute, "before").await?;
    hears(&client, "before").await?;
    tap.rule(|_| Fate::Lose);
    say(&mute, "unheard").await?;
    told(&other, "the silence", left(id, LeaveReason::Dead)).await?;
    tap.pass();
    let back = other.events().wait_for(|events| {
        let joins = events
            .iter()
            .filter(|event| **event == ClusterEvent::Joined { node: id });
        joins.count() == 2
    });
    within(patience(), "the return of the node", back).await?;
    acquainted(&[&mute, &other]).await?;
    link_becomes(&mute, LinkState::Up).await?;
    say(&mute, "after").await?;
    told_lost(&other, id, 1).await?;
    expect_heard(&mute, &client, ["before", "after"]).await
}

async fn a_node_that_starts_again_is_another_one(context: Context) -> Verdict {
    let [one, two] = context.cluster(mortal()).await?;
    let client = two.client("/").await?;
    let old = one.id()?;
    say(&one, "old").await?;
    hears(&client, "old").await?;
    one.kill().await?;
    let again = context.server(mortal()).await?;
    within(patience(), "joining", again.namespace("/")).await??;
    let new = again.id()?;
    ensure!(old != new, "the new process has the id of the old one");
    told(&two, "the death", left(old, LeaveReason::Dead)).await?;
    acquainted(&[&two, &again]).await?;
    say(&again, "new").await?;
    expect_heard(&again, &client, ["old", "new"]).await?;
    ensure_eq("nodes known", &two.cluster().nodes()[0].id, &new)?;
    expect_lost_in_all(&two, 0).await
}

async fn heartbeats_go_on_after_errors(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(mortal()).await?;
    let mut refused = 0;
    tap.rule(move |out| match out.topic {
        Topic::Cluster if refused < 3 => {
            refused += 1;
            Fate::Refuse(ErrorKind::Unavailable)
        }
        _ => Fate::Pass,
    });
    // Heartbeats and probes, each at least nine tenths of a heartbeat after the one before: for twice the silence that makes
    // a node dead.
    let lasting = 2 * mortal().dead_after;
    let start = Instant::now();
    let goes_on = async || {
        nobody_left(&[&one, &two])?;
        ensure_eq("nodes known", &two.cluster().nodes().len(), &1)?;
        Ok(start.elapsed() > lasting)
    };
    eventually(lasting + patience(), "two silences", goes_on).await
}

async fn a_restarted_broker_makes_nobody_leave(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let clients = [one.client("/").await?, two.client("/").await?];
    let ups = [&one, &two].map(|node| node.cluster().stats().link_ups);
    context.faults()?.restart().await?;
    for (node, ups) in [&one, &two].into_iter().zip(ups) {
        let up_again = async || Ok(node.cluster().stats().link_ups > ups);
        eventually(2 * patience(), "the link after the restart", up_again).await?;
    }
    say_until_heard(&one, &clients[1]).await?;
    say_until_heard(&two, &clients[0]).await?;
    acquainted(&[&one, &two]).await?;
    nobody_left(&[&one, &two])
}

async fn a_frozen_broker_makes_nobody_leave(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let clients = [one.client("/").await?, two.client("/").await?];
    context.faults()?.freeze().await?;
    let frozen = Instant::now();
    // For longer than the silence that makes a node dead.
    let lasting = brisk().dead_after + Duration::from_secs(1);
    while frozen.elapsed() < lasting {
        let found = within(
            2 * patience(),
            "the end of a query",
            one.io().fetch_sockets(),
        )
        .await?;
        ensure!(
            found.is_err(),
            "a node that hears nobody took itself for the only one"
        );
        ensure_eq("nodes known", &one.cluster().nodes().len(), &1)?;
        nobody_left(&[&one, &two])?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    context.faults()?.thaw().await?;
    say_until_heard(&one, &clients[1]).await?;
    say_until_heard(&two, &clients[0]).await?;
    acquainted(&[&one, &two]).await?;
    nobody_left(&[&one, &two])
}
