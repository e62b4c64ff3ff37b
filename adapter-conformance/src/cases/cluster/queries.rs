//! Questions to all nodes: complete, or it is told what is missing.

use std::time::Duration;

use socketioxide::socket::Sid;
use socketioxide_adapter_core::{ClusterEvent, ErrorKind, NodeId, OnMissing, transport::LinkState};
use tokio::time::{Instant, timeout};

use super::{
    stage::{assemble, brisk, clients, link_becomes, mortal, told, was_told},
    tap::Fate,
};
use crate::{
    cases::{Need, cases},
    check::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::Node,
};

cases!("cluster::queries":
    a_silent_node_is_named_by_the_deadline,
    what_there_is_is_returned_if_so_wished,
    a_node_that_dies_is_waited_for_no_longer,
    a_node_without_the_namespace_is_not_asked,
    a_query_that_is_dropped_disturbs_no_other,
    many_queries_at_once_get_their_own_answers,
    a_node_without_a_link_does_not_take_itself_for_the_only_one [Need::Gate],
    a_query_under_way_fails_when_the_link_is_lost [Need::Gate],
);

async fn sockets(node: &Node) -> Result<Vec<Sid>, socketioxide_adapter_core::Error> {
    let found = node.io().fetch_sockets().await?;
    Ok(found.iter().map(|socket| socket.data().id).collect())
}

/// Wants a query to have failed for want of this node's answer.
fn expect_missing<T>(result: Result<T, socketioxide_adapter_core::Error>, node: NodeId) -> Verdict {
    let Err(error) = result else {
        return Err(Failure("a query without all answers succeeded".into()));
    };
    ensure_eq("why it failed", &error.kind(), &ErrorKind::Incomplete)?;
    ensure_eq("who is missing", &error.missing(), &&[node][..])
}

async fn a_silent_node_is_named_by_the_deadline(context: Context) -> Verdict {
    let config = brisk().with_request_timeout(Duration::from_millis(300));
    let (mute, tap, asking) = context.pair(config).await?;
    tap.rule(|_| Fate::Lose);
    expect_missing(
        within(patience(), "the end", asking.io().rooms()).await?,
        mute.id()?,
    )?;
    expect_missing(
        within(patience(), "the end", sockets(&asking)).await?,
        mute.id()?,
    )?;
    let answer = asking.cluster().sockets("/", Default::default());
    let answer = within(patience(), "the end", answer).await??;
    ensure_eq("who is missing", &answer.missing, &vec![mute.id()?])
}

async fn what_there_is_is_returned_if_so_wished(context: Context) -> Verdict {
    let config = brisk()
        .with_request_timeout(Duration::from_millis(300))
        .with_on_missing(OnMissing::ReturnPartial);
    let (mute, tap, asking) = context.pair(config).await?;
    let _unheard = mute.client("/").await?;
    let client = asking.client("/").await?;
    tap.rule(|_| Fate::Lose);
    ensure_eq(
        "sockets found",
        &sockets(&asking).await?,
        &vec![client.sid()],
    )?;
    let mute = mute.id()?;
    told(
        &asking,
        "missing answers",
        |event| matches!(event, ClusterEvent::Incomplete { missing, .. } if *missing == [mute]),
    )
    .await?;
    ensure_eq(
        "requests counted",
        &asking.cluster().stats().requests_incomplete,
        &1,
    )
}

async fn a_node_that_dies_is_waited_for_no_longer(context: Context) -> Verdict {
    let config = mortal().with_request_timeout(Duration::from_secs(60));
    let (mute, tap, asking) = context.pair(config).await?;
    tap.rule(|_| Fate::Lose);
    let end = within(
        patience(),
        "the end, long before the time-out",
        sockets(&asking),
    );
    expect_missing(end.await?, mute.id()?)?;
    ensure_eq("nodes left", &asking.cluster().nodes().len(), &0)?;
    ensure_eq("sockets found", &sockets(&asking).await?, &Vec::new())
}

async fn a_node_without_the_namespace_is_not_asked(context: Context) -> Verdict {
    let config = brisk().with_request_timeout(Duration::from_secs(60));
    let (mute, tap, asking) = context.pair(config).await?;
    within(patience(), "a second namespace", asking.namespace("/mine")).await??;
    tap.rule(|_| Fate::Lose);
    let _client = asking.client("/mine").await?;
    let found = asking.of("/mine")?.fetch_sockets();
    let found = within(patience(), "the end, long before the time-out", found).await??;
    ensure_eq("sockets found", &found.len(), &1)?;
    let ghosts = mute.of("/mine").is_ok();
    ensure!(
        !ghosts,
        "the other node got a namespace that it never added"
    );
    Ok(())
}

async fn a_query_that_is_dropped_disturbs_no_other(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let clients = clients(&nodes).await?;
    for round in 0..20 {
        let query = nodes[0].io().fetch_sockets();
        // Dropped at another point each time; whether it was done by then does not matter.
        let _ = timeout(Duration::from_micros(round * 20), query).await;
    }
    let found = sockets(&nodes[0]).await?;
    ensure_eq("sockets found", &found.len(), &clients.len())
}

async fn many_queries_at_once_get_their_own_answers(context: Context) -> Verdict {
    const QUERIES: usize = 100;
    let nodes = context.cluster::<3>(brisk()).await?;
    let clients = clients(&nodes).await?;
    for (node, client) in nodes.iter().zip(&clients) {
        for room in 0..QUERIES {
            node.socket("/", client.sid())?.join(format!("{room}"));
        }
    }
    let queries = (0..QUERIES).map(|number| {
        let node = &nodes[number % nodes.len()];
        async move {
            Verdict::Ok(
                node.io()
                    .to(format!("{number}"))
                    .fetch_sockets()
                    .await?
                    .len(),
            )
        }
    });
    let answers = futures_util::future::try_join_all(queries);
    let answers = within(patience(), "all answers", answers).await??;
    ensure_eq("sockets per room", &answers, &vec![clients.len(); QUERIES])
}

async fn a_node_without_a_link_does_not_take_itself_for_the_only_one(context: Context) -> Verdict {
    let (away, gate) = context.gated(mortal()).await?;
    let other = context.server(mortal()).await?;
    assemble(&[&away, &other]).await?;
    let (_mine, theirs) = (away.client("/").await?, other.client("/").await?);
    gate.shut().await?;
    link_becomes(&away, LinkState::Down).await?;
    let cut_off = Instant::now();
    let kind = |error: socketioxide_adapter_core::Error| error.kind();
    let expected = Err(ErrorKind::LinkDown);
    // For longer than the silence that makes a node dead.
    while cut_off.elapsed() < 2 * mortal().dead_after {
        let found = within(patience(), "the end", sockets(&away)).await?;
        ensure_eq("sockets", &found.map_err(kind).map(drop), &expected)?;
        let rooms = within(patience(), "the end", away.io().rooms()).await?;
        ensure_eq("rooms", &rooms.map_err(kind).map(drop), &expected)?;
        ensure_eq("other nodes known", &away.cluster().nodes().len(), &1)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let left = |event: &ClusterEvent| matches!(event, ClusterEvent::Left { .. });
    ensure!(
        !was_told(&away, left),
        "a node that heard nobody declared another dead"
    );
    gate.open().await?;
    link_becomes(&away, LinkState::Up).await?;
    let whole = async || {
        Ok(sockets(&away)
            .await
            .is_ok_and(|found| found.contains(&theirs.sid())))
    };
    eventually(2 * patience(), "a complete answer after the outage", whole).await
}

async fn a_query_under_way_fails_when_the_link_is_lost(context: Context) -> Verdict {
    let config = brisk().with_request_timeout(Duration::from_secs(60));
    let (away, gate) = context.gated(config.clone()).await?;
    let (mute, tap) = context.tapped(config).await?;
    assemble(&[&away, &mute]).await?;
    tap.rule(|_| Fate::Lose);
    let query = sockets(&away);
    let shut = async {
        // The question is out by then: the queries are polled first.
        gate.shut().await
    };
    let both = async { tokio::join!(biased; query, shut) };
    let (answer, shut) = within(
        patience() + Duration::from_secs(10),
        "the end of the query",
        both,
    )
    .await?;
    shut?;
    let kind = answer.map_err(|error| error.kind());
    ensure_eq("the query", &kind.map(drop), &Err(ErrorKind::LinkDown))
}
