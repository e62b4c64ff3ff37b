//! What the transport does when the broker takes nothing, or takes away what a node reads from.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use common::*;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use socketioxide_adapter_conformance::proxy::Proxy;
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{Continuity, Event, LinkState, LossCause, Topic, Transport},
};
use socketioxide_broker_lab::RabbitMq;

const RESET: Event = Event::Resumed(Continuity::Lost {
    count: None,
    cause: LossCause::Reset,
});

/// One server for all: a start takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_takes_away_is_told_and_delivery_goes_on() {
    let server = RabbitMq::builder().streams().start().unwrap();
    a_memory_alarm_ends_publishes_and_keeps_the_session(&server).await;
    a_durable_queue_that_has_expired_is_made_anew(&server).await;
    what_is_deleted_under_a_node_is_made_anew(&server).await;
    what_is_none_of_ours_in_a_stream_is_skipped_once(&server).await;
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

async fn what_is_deleted_under_a_node_is_made_anew(server: &RabbitMq) {
    let topic = namespace("/deleted");
    for (scheme, options, queue) in [
        (
            "amqp",
            "prefix=deleted.durable&queue=durable",
            "deleted.durable.node",
        ),
        ("amqp+streams", "prefix=deleted", "deleted.stream"),
    ] {
        let url = server.url().replace("amqp:", &format!("{scheme}:"));
        let node = try_connect(&format!("{url}?{options}")).await.unwrap();
        let mut subscription = node.subscribe(&topic).await.unwrap();
        delivers(&node, &topic, &mut subscription, "before").await;
        let queues = server.ctl(&["list_queues", "name"]).unwrap();
        let name = queues.lines().find(|name| name.starts_with(queue)).unwrap();
        server.ctl(&["delete_queue", name]).unwrap();
        up(&node, 2).await;
        assert_eq!(next(&mut subscription).await, RESET, "{scheme}");
        delivers(&node, &topic, &mut subscription, "after").await;
    }
}

async fn what_is_none_of_ours_in_a_stream_is_skipped_once(server: &RabbitMq) {
    let topic = namespace("/poison");
    let url = server.url().replace("amqp:", "amqp+streams:");
    let node = try_connect(&format!("{url}?prefix=poison")).await.unwrap();
    let mut subscription = node.subscribe(&topic).await.unwrap();
    let url = server.url();
    let stranger = Connection::connect(&url, ConnectionProperties::default());
    let stranger = stranger.await.unwrap();
    let channel = stranger.create_channel().await.unwrap();
    let mut number = FieldTable::default();
    number.insert("topic".into(), AMQPValue::LongInt(7));
    let plain = BasicProperties::default();
    for (key, properties) in [
        ("", plain.clone()),
        ("no.topic.of.ours", plain.clone()),
        ("ns", plain.clone().with_headers(number)),
        ("fence.of-nobody", plain),
    ] {
        let options = BasicPublishOptions::default();
        let publish = channel.basic_publish(
            "poison.topics".into(),
            key.into(),
            options,
            b"?",
            properties,
        );
        publish.await.unwrap();
    }
    stranger.close(200, "done".into()).await.unwrap();
    delivers(&node, &topic, &mut subscription, "first").await;
    assert_eq!(node.link().status().epoch, 1, "nobody was thrown out");
    server.close_connections().unwrap();
    up(&node, 2).await;
    let resumed = next(&mut subscription).await;
    assert!(
        matches!(resumed, Event::Resumed(Continuity::Unbroken { .. })),
        "{resumed:?}"
    );
    delivers(&node, &topic, &mut subscription, "second").await;
    assert_eq!(node.link().status().epoch, 2);
    node.subscribe(&Topic::Cluster).await.unwrap();
}
