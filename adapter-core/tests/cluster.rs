//! Whole clusters on the in-memory bus.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, Error, ErrorKind, LeaveReason, PublishMode, Result,
    memory::{MemoryBus, MemoryTransport},
    transport::{LinkState, Receipt, Topic, Transport},
};
use socketioxide_core::{
    Value,
    adapter::{BroadcastOptions, CoreAdapter},
};
use support::{
    Ack, Node, event, eventually, everyone,
    odd::{Odd, Oddity},
    wire,
};

fn three(config: ClusterConfig) -> (MemoryBus, Vec<Node>) {
    let bus = MemoryBus::new();
    let nodes = (0..3)
        .map(|_| Node::new(bus.connect(), config.clone()))
        .collect();
    (bus, nodes)
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_every_socket_of_every_node_once() {
    let (_bus, nodes) = three(ClusterConfig::default());
    let mut sockets = Vec::new();
    let mut adapters = Vec::new();
    for node in &nodes {
        let (adapter, table) = node.namespace("/").await;
        sockets.push((table.add(Ack::Never), table));
        adapters.push(adapter);
    }
    for i in 0..100 {
        adapters[0]
            .broadcast(event("/", &i.to_string()), everyone())
            .await
            .unwrap();
    }
    let expected: Vec<String> = (0..100).map(|i| wire(&i.to_string())).collect();
    for (sid, table) in &sockets {
        eventually("all 100 arrive", || table.received(*sid).len() >= 100).await;
        assert_eq!(table.received(*sid), expected);
    }
    assert_eq!(adapters[1].server_count().await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn join_then_emit_is_never_reordered_and_queries_span_nodes() {
    let (_bus, nodes) = three(ClusterConfig::default());
    let (a, _) = nodes[0].namespace("/").await;
    let (_b, b_sockets) = nodes[1].namespace("/").await;
    let sid = b_sockets.add(Ack::Never);
    for i in 0..50 {
        let room = format!("r{i}");
        a.add_sockets(everyone(), room.clone()).await.unwrap();
        let mut opts = BroadcastOptions::default();
        opts.rooms.push(room.into());
        a.broadcast(event("/", &i.to_string()), opts).await.unwrap();
    }
    eventually("all 50 arrive", || b_sockets.received(sid).len() == 50).await;
    let found = a.fetch_sockets(everyone()).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id, found[0].server_id), (sid, nodes[1].uid));
    assert_eq!(a.rooms(everyone()).await.unwrap().len(), 50);
    a.disconnect_socket(everyone()).await.unwrap();
    eventually("disconnected", || !b_sockets.has(sid)).await;
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_come_from_all_nodes_and_the_stream_ends() {
    let (_bus, nodes) = three(ClusterConfig::default());
    let mut adapters = Vec::new();
    for node in &nodes {
        let (adapter, table) = node.namespace("/").await;
        table.add(Ack::Now("\"now\""));
        table.add(Ack::After(Duration::from_millis(300), "\"later\""));
        table.add(Ack::Never);
        adapters.push(adapter);
    }
    let timeout = Some(Duration::from_secs(1));
    let stream = adapters[0]
        .broadcast_with_ack(event("/", "q"), everyone(), timeout)
        .await
        .unwrap();
    let start = tokio::time::Instant::now();
    let acks: Vec<_> = stream.collect().await;
    assert!(
        start.elapsed() < Duration::from_millis(1200),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(acks.len(), 9);
    assert_eq!(acks.iter().filter(|(_, r)| r.is_err()).count(), 3);
    let now = acks
        .iter()
        .filter(|(_, r)| matches!(r, Ok(Value::Str(s, None)) if s.as_str() == "\"now\""));
    assert_eq!(now.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dead_node_is_named_and_waited_for_no_longer() {
    let bus = MemoryBus::new();
    let config = ClusterConfig::default().with_request_timeout(Duration::from_secs(60));
    let transports = [bus.connect(), bus.connect()].map(Arc::new);
    let nodes = transports.clone().map(|t| Node::new(t, config.clone()));
    let (a, _) = nodes[0].namespace("/").await;
    let _b = nodes[1].namespace("/").await;
    let mut events = nodes[0].cluster.events();
    transports[1].cut();
    let start = tokio::time::Instant::now();
    let error = a.fetch_sockets(everyone()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.missing()),
        (ErrorKind::Incomplete, &[nodes[1].id()][..])
    );
    assert!(
        start.elapsed() < Duration::from_millis(7500),
        "{:?}",
        start.elapsed()
    );
    let left = ClusterEvent::Left {
        node: nodes[1].id(),
        reason: LeaveReason::Dead,
    };
    loop {
        let e = events.recv().await.unwrap();
        eprintln!("{e} {:?}", start.elapsed());
        if e == left {
            break;
        }
    }
    transports[1].heal();
    let joined = ClusterEvent::Joined {
        node: nodes[1].id(),
    };
    loop {
        let e = events.recv().await.unwrap();
        eprintln!("{e} {:?}", start.elapsed());
        if e == joined {
            break;
        }
    }
    assert_eq!(a.fetch_sockets(everyone()).await.unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_fast_serves_local_sockets_and_reports_exactly_what_was_lost() {
    let bus = MemoryBus::new();
    let transports = [bus.connect(), bus.connect()].map(Arc::new);
    let nodes = transports
        .clone()
        .map(|t| Node::new(t, ClusterConfig::default()));
    let (a, a_sockets) = nodes[0].namespace("/").await;
    let (_b, b_sockets) = nodes[1].namespace("/").await;
    let (sa, sb) = (a_sockets.add(Ack::Never), b_sockets.add(Ack::Never));
    a.broadcast(event("/", "before"), everyone()).await.unwrap();
    eventually("before", || b_sockets.received(sb).len() == 1).await;
    let mut events = nodes[1].cluster.events();
    // Only B is cut off: A's messages are accepted by the bus and lost for B.
    transports[1].cut();
    for i in 0..7 {
        a.broadcast(event("/", &i.to_string()), everyone())
            .await
            .unwrap();
    }
    nodes[0].cluster.flush().await.unwrap();
    assert_eq!(a_sockets.received(sa).len(), 8);
    let (b, _) = (&_b, 0);
    let error = b.broadcast(event("/", "x"), everyone()).await.unwrap_err();
    assert!(
        error.to_string().contains("link to the broker is down"),
        "{error}"
    );
    assert_eq!(b_sockets.received(sb).last().unwrap(), &wire("x"));
    let error = b.fetch_sockets(everyone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LinkDown);
    transports[1].heal();
    loop {
        if let ClusterEvent::Gap { origin, count, .. } = events.recv().await.unwrap() {
            assert_eq!((origin, count), (nodes[0].id(), 7));
            break;
        }
    }
    a.broadcast(event("/", "after"), everyone()).await.unwrap();
    eventually("after", || {
        b_sockets.received(sb).last() == Some(&wire("after"))
    })
    .await;
    assert_eq!(nodes[1].cluster.stats().envelopes_lost, 7);
    assert_eq!(nodes[1].cluster.link().state(), LinkState::Up);
}

#[tokio::test(start_paused = true)]
async fn shutdown_delivers_what_is_queued_and_says_goodbye() {
    let (_bus, nodes) = three(ClusterConfig::default().with_publish_mode(PublishMode::Confirmed));
    let (a, _) = nodes[0].namespace("/").await;
    let (_b, table) = nodes[1].namespace("/").await;
    let sid = table.add(Ack::Never);
    let mut events = nodes[1].cluster.events();
    for i in 0..10 {
        a.broadcast(event("/", &i.to_string()), everyone())
            .await
            .unwrap();
    }
    nodes[0].cluster.shutdown().await.unwrap();
    let left = ClusterEvent::Left {
        node: nodes[0].id(),
        reason: LeaveReason::Bye,
    };
    while events.recv().await.unwrap() != left {}
    eventually("all 10", || table.received(sid).len() == 10).await;
    let error = a
        .broadcast(event("/", "late"), everyone())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");
}

/// A transport whose broker is not ready to take anything for a namespace, although its link is up.
#[derive(Debug, Default)]
struct Unready(AtomicBool);

#[async_trait::async_trait]
impl Oddity for Unready {
    async fn publish(
        &self,
        inner: &MemoryTransport,
        topic: &Topic,
        payload: Bytes,
    ) -> Result<Receipt> {
        if self.0.load(Relaxed) && matches!(topic, Topic::Namespace(_)) {
            let kind = ErrorKind::Unavailable;
            return Err(Error::new(kind, "unready: publish", "loading"));
        }
        inner.publish(topic, payload).await
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_is_told_as_unsent_and_not_as_a_gap_too_however_long_it_lasts() {
    let bus = MemoryBus::new();
    let broker = Arc::new(Odd(bus.connect(), Unready::default()));
    let a = Node::over(broker.clone(), ClusterConfig::default());
    let b = Node::new(bus.connect(), ClusterConfig::default());
    let (sender, _) = a.namespace("/").await;
    let (_receiver, table) = b.namespace("/").await;
    let sid = table.add(Ack::Never);
    let emit = |text: &'static str| sender.broadcast(event("/", text), everyone());
    emit("first").await.unwrap();
    eventually("first", || table.received(sid).len() == 1).await;
    broker.1.0.store(true, Relaxed);
    emit("never sent").await.unwrap();
    tokio::time::sleep(ClusterConfig::default().retry_for * 5).await;
    assert_eq!(a.cluster.stats().envelopes_unsent, 1);
    broker.1.0.store(false, Relaxed);
    emit("last").await.unwrap();
    eventually("last", || table.received(sid).len() == 2).await;
    // A gap would have been reported by now.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(table.received(sid), [wire("first"), wire("last")]);
    assert_eq!(b.cluster.stats().envelopes_lost, 0);
}
