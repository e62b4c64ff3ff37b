//! What the transport does when the server, or the way to it, is gone.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::*;
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{BufferLimits, Continuity, Event, Limits, LinkState, Topic, Transport},
};
use socketioxide_adapter_nats::NatsTransport;
use socketioxide_broker_lab::Nats;
use tokio::task::JoinHandle;

const RESUMED: Event = Event::Resumed(Continuity::Unknown);

/// Publishes every millisecond until the transport is closed; returns how long the longest call took.
fn publish_all_the_time(transport: &Arc<NatsTransport>) -> JoinHandle<Duration> {
    let transport = transport.clone();
    tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        loop {
            let start = Instant::now();
            let outcome = transport.publish(&namespace("/load"), "load".into()).await;
            longest = longest.max(start.elapsed());
            if outcome.is_err_and(|error| error.kind() == ErrorKind::Closed) {
                return longest;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// Waits until an attempt to reconnect has failed: the server is gone, and the node knows.
async fn tried_in_vain(transport: &NatsTransport) {
    let mut link = transport.link();
    let refused = |reason: &str| reason.contains("connection refused");
    let tried = link.wait_for(|status| status.reason.as_deref().is_some_and(refused));
    assert_eq!(soon("an attempt", tried).await.state, LinkState::Down);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_idle_and_busy_nodes_deliver_again_within_a_second() {
    let nats = Nats::start().unwrap();
    let idle = connect(&nats).await;
    let busy = Arc::new(connect(&nats).await);
    let load = publish_all_the_time(&busy);
    let topic = namespace("/kill");
    let mut at_idle = idle.subscribe(&topic).await.unwrap();
    let mut at_busy = busy.subscribe(&topic).await.unwrap();
    let mut waits = Vec::new();
    for round in 1..=5 {
        nats.kill().unwrap();
        down(&idle).await;
        down(&busy).await;
        let refused = idle.publish(&topic, "down".into()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LinkDown);
        let refused = idle.subscribe(&Topic::Cluster).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LinkDown);
        tried_in_vain(&idle).await;
        tried_in_vain(&busy).await;
        nats.restart().unwrap();
        let start = Instant::now();
        up(&idle, round + 1).await;
        up(&busy, round + 1).await;
        waits.push(start.elapsed());
        assert_eq!(next(&mut at_idle).await, RESUMED);
        assert_eq!(next(&mut at_busy).await, RESUMED);
        idle.publish(&topic, "back".into()).await.unwrap();
        assert_eq!(message(&mut at_idle).await, "back");
        assert_eq!(message(&mut at_busy).await, "back");
    }
    assert!(
        waits.iter().max() < Some(&Duration::from_secs(1)),
        "{waits:?}"
    );
    busy.close().await.unwrap();
    let longest = load.await.unwrap();
    assert!(longest < Duration::from_millis(2_100), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_noticed_and_no_call_outlives_its_deadline() {
    let nats = Nats::start().unwrap();
    let transport = Arc::new(connect(&nats).await);
    let topic = namespace("/freeze");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let load = publish_all_the_time(&transport);
    nats.freeze().unwrap();
    let frozen = Instant::now();
    down(&transport).await;
    let noticed = frozen.elapsed();
    assert!(noticed < Duration::from_secs(4), "{noticed:?}");
    nats.thaw().unwrap();
    up(&transport, 2).await;
    assert_eq!(next(&mut subscription).await, RESUMED);
    transport.publish(&topic, "back".into()).await.unwrap();
    assert_eq!(message(&mut subscription).await, "back");
    transport.close().await.unwrap();
    let longest = load.await.unwrap();
    assert!(longest < Duration::from_millis(2_500), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_publishes_into_a_frozen_server_is_bounded_and_ends() {
    let nats = Nats::start().unwrap();
    let mut config = config(&nats.url());
    let buffer = BufferLimits::new(1_000, 1 << 20);
    config.endpoint.limits = Limits::default().with_publish_buffer(buffer);
    let transport = Arc::new(config.connect().await.unwrap());
    nats.freeze().unwrap();
    let start = Instant::now();
    let publishes: Vec<_> = (0..5_000)
        .map(|_| {
            let transport = transport.clone();
            tokio::spawn(async move {
                transport
                    .publish(&namespace("/"), vec![0; 1_000].into())
                    .await
            })
        })
        .collect();
    let (mut full, mut unknown) = (0, 0);
    for publish in publishes {
        match publish.await.unwrap().unwrap_err().kind() {
            ErrorKind::Full | ErrorKind::LinkDown => full += 1,
            ErrorKind::Timeout | ErrorKind::Interrupted => unknown += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(full + unknown, 5_000);
    assert!(unknown <= 1_000, "{unknown} were let in");
    assert!(start.elapsed() < Duration::from_secs(5));
    nats.thaw().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_about_to_stop_is_left_for_another() {
    let (first, second) = (Nats::start().unwrap(), Nats::start().unwrap());
    second.kill().unwrap();
    let url = format!("{},127.0.0.1:{}", first.url(), second.port());
    let transport = try_connect(&url).await.unwrap();
    let alone = connect(&first).await;
    second.restart().unwrap();
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    first.lame_duck().unwrap();
    // Long before the server would have closed the connection: it waits for ten seconds first.
    let start = Instant::now();
    up(&transport, 2).await;
    assert!(start.elapsed() < Duration::from_secs(8));
    assert_eq!(next(&mut subscription).await, RESUMED);
    let there = connect(&second).await;
    there
        .publish(&Topic::Cluster, "moved".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "moved");
    // Who has nowhere else to go stays until the end.
    assert_eq!(alone.link().status().epoch, 1);
    alone
        .publish(&Topic::Cluster, "still here".into())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lets_nobody_in_for_a_while_is_tried_again() {
    let nats = Nats::start().unwrap();
    let transport = connect(&nats).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    for epoch in 2..=4 {
        nats.cut().unwrap();
        up(&transport, epoch).await;
        assert_eq!(next(&mut subscription).await, RESUMED);
        transport
            .publish(&Topic::Cluster, "back".into())
            .await
            .unwrap();
        assert_eq!(message(&mut subscription).await, "back");
    }
}
