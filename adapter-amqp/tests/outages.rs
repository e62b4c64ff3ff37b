//! What the transport does when the broker takes nothing, or takes away what a node reads from.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use common::*;
use socketioxide_adapter_amqp::Queue;
use socketioxide_adapter_conformance::proxy::Proxy;
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{Continuity, Event, LinkState, Transport},
};
use socketioxide_broker_lab::RabbitMq;

/// One server for all: a start takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_takes_away_is_told_and_delivery_goes_on() {
    let server = RabbitMq::start().unwrap();
    a_memory_alarm_ends_publishes_and_keeps_the_session(&server).await;
    a_durable_queue_that_has_expired_is_made_anew(&server).await;
    let url = format!("{}?prefix=deleted&queue=durable", server.url());
    what_is_deleted_under_a_node_is_made_anew::<Queue>(&server, &url, "deleted.node").await;
}

async fn a_memory_alarm_ends_publishes_and_keeps_the_session(server: &RabbitMq) {
    let topic = namespace("/alarm");
    let one = connect(server, "prefix=alarm").await;
    let two = connect(server, "prefix=alarm").await;
    let mut subscription = two.subscribe(&topic).await.unwrap();
    delivers(&one, &topic, &mut subscription, "before").await;
    server.memory_alarm(true).unwrap();
    // The server tells those who publish, and nobody else.
    let mut last = ErrorKind::Config;
    let begin = Instant::now();
    while one.link().state() == LinkState::Up {
        assert!(begin.elapsed() < SOON, "no word of the alarm");
        let start = Instant::now();
        if let Err(error) = one.publish(&topic, "unheard".into()).await {
            last = error.kind();
        }
        assert!(start.elapsed() < Duration::from_secs(3));
    }
    assert!(
        matches!(last, ErrorKind::Timeout | ErrorKind::Config),
        "{last:?}"
    );
    let reason = one.link().status().reason.unwrap_or_default();
    assert!(reason.contains("short of memory"), "{reason}");
    let refused = one.publish(&topic, "refused".into()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LinkDown);
    // Longer than a silence that would end an ordinary session.
    tokio::time::sleep(Duration::from_secs(4)).await;
    server.memory_alarm(false).unwrap();
    up(&one, 2).await;
    one.publish(&topic, "after".into()).await.unwrap();
    loop {
        match next(&mut subscription).await {
            Event::Message(payload) if payload == "after" => break,
            // Those that the server had on its socket come once it reads on; never one that was refused.
            Event::Message(payload) => assert_eq!(payload, "unheard"),
            Event::Resumed(Continuity::Unbroken { replayed: 0 }) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn a_durable_queue_that_has_expired_is_made_anew(server: &RabbitMq) {
    let topic = namespace("/expired");
    let broker = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
    let proxy = Proxy::start(broker, 0).await.unwrap();
    let url = format!(
        "amqp://{}?prefix=expired&queue=durable&expires=1s",
        proxy.address()
    );
    let away = try_connect(&url).await.unwrap();
    let here = connect(server, "prefix=expired").await;
    let mut subscription = away.subscribe(&topic).await.unwrap();
    delivers(&here, &topic, &mut subscription, "before").await;
    proxy.shut();
    down(&away).await;
    here.publish(&topic, "missed".into()).await.unwrap();
    // The other node has a queue of its own, which is not durable.
    let queues = || server.ctl(&["list_queues", "name", "durable"]).unwrap();
    let is_left = |line: &str| line.starts_with("expired.node") && line.ends_with("true");
    let begin = Instant::now();
    while queues().lines().any(is_left) {
        assert!(begin.elapsed() < SOON, "the queue does not expire");
    }
    proxy.open();
    up(&away, 2).await;
    assert_eq!(next(&mut subscription).await, RESET);
    delivers(&here, &topic, &mut subscription, "after").await;
}
