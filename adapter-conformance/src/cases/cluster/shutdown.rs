//! Leaving: what is queued is sent, a goodbye is said, nothing is left behind, and it never takes longer than promised.

use std::time::Duration;

use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, ErrorKind, LeaveReason, OutagePolicy, transport::LinkState,
};
use tokio::runtime::Handle;

use super::stage::{
    SAID, assemble, brisk, clients, expect_failure, heard_so_far, hears, link_becomes, say, told,
    words,
};
use crate::{
    Ability,
    cases::{Need, cases},
    check::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::Node,
};

cases!("cluster::shutdown":
    what_is_queued_is_sent_before_the_goodbye,
    afterwards_local_sockets_are_served_and_all_else_says_closed,
    it_can_be_repeated_and_raced,
    it_leaves_no_task,
    a_node_that_is_dropped_leaves_no_task,
    without_a_link_it_ends_and_tells_what_was_not_sent [Need::Gate],
    with_a_frozen_broker_it_ends_by_its_deadline [Need::Fault(Ability::Freeze)],
    without_a_broker_it_ends_by_its_deadline [Need::Fault(Ability::Stop)],
);

/// How long a shutdown may take with these settings: its own deadline, and the transport's to close.
fn deadline(context: &Context, config: &ClusterConfig) -> Duration {
    config.shutdown_timeout + Duration::from_secs(1) + context.lab.call_deadline()
}

fn leaving() -> ClusterConfig {
    brisk().with_shutdown_timeout(Duration::from_millis(500))
}

async fn what_is_queued_is_sent_before_the_goodbye(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let client = two.client("/").await?;
    let id = one.id()?;
    for word in words(0..500) {
        say(&one, &word).await?;
    }
    one.cluster().shutdown().await?;
    let bye = ClusterEvent::Left {
        node: id,
        reason: LeaveReason::Bye,
    };
    told(&two, "the goodbye", |event| *event == bye).await?;
    hears(&client, "499").await?;
    ensure_eq("what was heard", &heard_so_far(&client), &words(0..500))?;
    ensure_eq(
        "emits that were not sent",
        &one.cluster().stats().envelopes_unsent,
        &0,
    )
}

async fn afterwards_local_sockets_are_served_and_all_else_says_closed(context: Context) -> Verdict {
    let [one, two] = context.cluster(brisk()).await?;
    let (mine, theirs) = (one.client("/").await?, two.client("/").await?);
    one.cluster().shutdown().await?;
    expect_failure(one.io().emit(SAID, "late").await, ErrorKind::Closed)?;
    hears(&mine, "late").await?;
    let asked = one
        .io()
        .fetch_sockets()
        .await
        .map(drop)
        .map_err(|error| error.kind());
    ensure_eq("a question", &asked, &Err(ErrorKind::Closed))?;
    let added = one.namespace("/late").await.map_err(|error| error.kind());
    ensure_eq("a namespace", &added, &Err(ErrorKind::Closed))?;
    ensure_eq(
        "the link",
        &one.cluster().link().state(),
        &LinkState::Closed,
    )?;
    ensure_eq("what others heard", &heard_so_far(&theirs), &Vec::new())
}

async fn it_can_be_repeated_and_raced(context: Context) -> Verdict {
    let [one, _two] = context.cluster(brisk()).await?;
    let config = one.cluster().config().clone();
    let both = async { tokio::join!(one.cluster().shutdown(), one.cluster().shutdown()) };
    let (first, second) = within(deadline(&context, &config), "two shutdowns", both).await?;
    first?;
    second?;
    one.shutdown().await?;
    Ok(())
}

/// Waits until the runtime has no more tasks than before.
async fn tasks_are(count: usize) -> Verdict {
    let alive = || Handle::current().metrics().num_alive_tasks();
    let back = async || Ok(alive() <= count);
    let ended = eventually(patience(), "the end of all tasks", back).await;
    ensure!(
        ended.is_ok(),
        "{} tasks are left over",
        alive().saturating_sub(count)
    );
    Ok(())
}

async fn it_leaves_no_task(context: Context) -> Verdict {
    let before = Handle::current().metrics().num_alive_tasks();
    for _ in 0..3 {
        let nodes = context.cluster::<2>(brisk()).await?;
        let clients = clients(&nodes).await?;
        say(&nodes[0], "hello").await?;
        hears(&clients[1], "hello").await?;
        // A question that nobody waits for any more.
        drop(nodes[0].io().emit_with_ack::<_, String>("ask", &()).await?);
        for node in &nodes {
            node.shutdown().await?;
        }
        drop((nodes, clients));
        tasks_are(before).await?;
    }
    Ok(())
}

async fn a_node_that_is_dropped_leaves_no_task(context: Context) -> Verdict {
    let before = Handle::current().metrics().num_alive_tasks();
    for _ in 0..3 {
        let nodes = context.cluster::<2>(brisk()).await?;
        let clients = clients(&nodes).await?;
        say(&nodes[0], "hello").await?;
        hears(&clients[1], "hello").await?;
        drop((clients, nodes));
        tasks_are(before).await?;
    }
    Ok(())
}

async fn without_a_link_it_ends_and_tells_what_was_not_sent(context: Context) -> Verdict {
    let max_age = Duration::from_secs(60);
    let config = leaving().with_outage(OutagePolicy::Buffer { max_age });
    let (away, gate) = context.gated(config.clone()).await?;
    let other = context.server(brisk()).await?;
    assemble(&[&away, &other]).await?;
    gate.shut().await?;
    link_becomes(&away, LinkState::Down).await?;
    for word in words(0..5) {
        say(&away, &word).await?;
    }
    let leave = away.cluster().shutdown();
    let left = within(
        deadline(&context, &config),
        "the end of the shutdown",
        leave,
    )
    .await?;
    let kind = left.map_err(|error| error.kind());
    ensure_eq(
        "a shutdown that could not send all",
        &kind,
        &Err(ErrorKind::Timeout),
    )?;
    // In one event or more: how they were taken up is not promised.
    let unsent = |events: &[ClusterEvent]| {
        let counts = events.iter().map(|event| match event {
            ClusterEvent::Unsent { count, .. } => *count,
            _ => 0,
        });
        counts.sum::<u64>()
    };
    let told = away.events().wait_for(|events| unsent(events) >= 5);
    let told = within(patience(), "being told what was not sent", told).await;
    told.map_err(|Failure(late)| {
        let events = away.events().with(|events| format!("{events:?}"));
        Failure(format!("{late}, but these: {events}"))
    })?;
    ensure_eq("what was not sent", &away.events().with(unsent), &5)
}

/// Wants a shutdown to end by its deadline, whatever its result.
async fn ends_by_its_deadline(context: &Context, node: &Node) -> Verdict {
    let deadline = deadline(context, &leaving());
    // What it could not do is its result.
    let _ = within(
        deadline,
        "the end of the shutdown",
        node.cluster().shutdown(),
    )
    .await?;
    ensure_eq(
        "the link",
        &node.cluster().link().state(),
        &LinkState::Closed,
    )
}

async fn with_a_frozen_broker_it_ends_by_its_deadline(context: Context) -> Verdict {
    let [one, _two] = context.cluster(leaving()).await?;
    context.faults()?.freeze().await?;
    say(&one, "never heard").await?;
    ends_by_its_deadline(&context, &one).await
}

async fn without_a_broker_it_ends_by_its_deadline(context: Context) -> Verdict {
    let [one, _two] = context.cluster(leaving()).await?;
    context.faults()?.stop().await?;
    ends_by_its_deadline(&context, &one).await
}
