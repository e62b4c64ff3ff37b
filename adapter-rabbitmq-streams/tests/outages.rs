//! What the transport does when the stream is taken away, holds what is none of ours, or is read slowly.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../adapter-amqp/tests/common/mod.rs"]
mod common;

use common::*;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable},
};
use socketioxide_adapter_core::transport::{Continuity, Event, Topic, Transport};
use socketioxide_adapter_rabbitmq_streams::{BufferLimits, Stream};
use socketioxide_broker_lab::RabbitMq;

/// One server for all: a start takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_becomes_of_the_stream_is_told_and_delivery_goes_on() {
    let server = RabbitMq::builder().streams().start().unwrap();
    let queues = format!("{}?prefix=slow", server.url());
    let mut config = config::<Stream>(&queues.replace("amqp:", "amqp+streams:"));
    config.endpoint.limits.subscription_buffer = BufferLimits::new(100, 1 << 20);
    // Who publishes there reads from a queue.
    a_reader_that_stands_still_gets_a_count_and_costs_no_memory(config, &queues).await;
    let url = format!("{}?prefix=deleted", server.url());
    let url = url.replace("amqp:", "amqp+streams:");
    what_is_deleted_under_a_node_is_made_anew::<Stream>(&server, &url, "deleted.stream").await;
    what_is_none_of_ours_is_skipped_once(&server).await;
}

async fn what_is_none_of_ours_is_skipped_once(server: &RabbitMq) {
    let topic = namespace("/poison");
    let url = server.url().replace("amqp:", "amqp+streams:");
    let node = try_connect_to::<Stream>(&format!("{url}?prefix=poison"))
        .await
        .unwrap();
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
