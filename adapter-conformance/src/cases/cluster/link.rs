//! A link counts as up only while it delivers.

use std::time::Duration;

use socketioxide_adapter_core::{ClusterEvent, ErrorKind, transport::LinkState};

use super::stage::{
    assemble, brisk, expect_heard, heard, hears, link_becomes, say, say_until_heard, told,
    told_lost, was_told,
};
use crate::{
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, within},
    context::{Context, patience},
};

cases!("cluster::link":
    a_namespace_that_does_not_hear_itself_is_not_ready,
    a_namespace_that_is_ready_hears_what_is_emitted_next,
    a_link_that_goes_deaf_is_noticed_and_made_anew,
    a_link_that_is_lost_and_found_is_told [Need::Gate],
);

async fn a_namespace_that_does_not_hear_itself_is_not_ready(context: Context) -> Verdict {
    let config = brisk().with_init_timeout(Duration::from_millis(500));
    let (node, tap) = context.tapped(config).await?;
    tap.deafen(true);
    let joined = within(patience(), "the end of joining", node.namespace("/")).await?;
    let kind = joined.map_err(|error| error.kind());
    ensure_eq("joining on a deaf link", &kind, &Err(ErrorKind::Timeout))?;
    let state = node.cluster().link().state();
    ensure_eq(
        "a link on which nothing came back",
        &state,
        &LinkState::Connecting,
    )?;
    let asked = node.io().fetch_sockets().await;
    let kind = asked.map(drop).map_err(|error| error.kind());
    ensure_eq(
        "a question on a deaf link",
        &kind,
        &Err(ErrorKind::LinkDown),
    )?;
    tap.deafen(false);
    link_becomes(&node, LinkState::Up).await
}

async fn a_namespace_that_is_ready_hears_what_is_emitted_next(context: Context) -> Verdict {
    let [one, _two] = context.cluster(brisk()).await?;
    for round in 0..10 {
        let newcomer = context.server(brisk()).await?;
        within(patience(), "joining", newcomer.namespace("/")).await??;
        let client = newcomer.client("/").await?;
        let word = format!("welcome {round}");
        say(&one, &word).await?;
        hears(&client, &word).await?;
        newcomer.shutdown().await?;
    }
    Ok(())
}

async fn a_link_that_goes_deaf_is_noticed_and_made_anew(context: Context) -> Verdict {
    let (deaf, tap, other) = context.pair(brisk()).await?;
    let client = deaf.client("/").await?;
    say(&other, "before").await?;
    hears(&client, "before").await?;
    tap.deafen(true);
    say(&other, "unheard").await?;
    link_becomes(&deaf, LinkState::Down).await?;
    ensure!(
        deaf.cluster().stats().probes_lost > 0,
        "no probe was counted as lost"
    );
    let kind = deaf
        .io()
        .fetch_sockets()
        .await
        .map(drop)
        .map_err(|error| error.kind());
    ensure_eq(
        "a question on a deaf link",
        &kind,
        &Err(ErrorKind::LinkDown),
    )?;
    tap.deafen(false);
    link_becomes(&deaf, LinkState::Up).await?;
    // The namespace has a probe of its own, so that it may hear again a little later than the link.
    let said = 2 + say_until_heard(&other, &client).await?;
    let heard = heard(&other, &client).await?.len() as u64;
    ensure!(heard < said, "what was emitted on a deaf link arrived");
    told_lost(&deaf, other.id()?, said - heard).await
}

async fn a_link_that_is_lost_and_found_is_told(context: Context) -> Verdict {
    let (away, gate) = context.gated(brisk()).await?;
    let other = context.server(brisk()).await?;
    assemble(&[&away, &other]).await?;
    let client = away.client("/").await?;
    gate.shut().await?;
    told(&away, "the loss of the link", |event| {
        matches!(event, ClusterEvent::LinkDown { .. })
    })
    .await?;
    ensure_eq("the link", &away.cluster().link().state(), &LinkState::Down)?;
    let down = |event: &ClusterEvent| matches!(event, ClusterEvent::LinkDown { .. });
    ensure!(
        !was_told(&other, down),
        "a node that was not cut off lost its link"
    );
    gate.open().await?;
    let up_again = away.events().wait_for(|events| {
        let ups = events
            .iter()
            .filter(|event| **event == ClusterEvent::LinkUp);
        ups.count() == 2
    });
    within(2 * patience(), "the link being told as up again", up_again).await?;
    ensure_eq(
        "times the link came up",
        &away.cluster().stats().link_ups,
        &2,
    )?;
    say_until_heard(&other, &client).await?;
    let theirs = other.client("/").await?;
    say(&away, "from me").await?;
    expect_heard(&away, &theirs, ["from me"]).await
}
