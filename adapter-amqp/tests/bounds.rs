//! What stays bounded: publishes of a server that does not answer, and readers that stand still.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{sync::Arc, time::Instant};

use common::*;
use socketioxide_adapter_amqp::{AmqpConfig, Queue};
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{BufferLimits, Topic, Transport},
};
use socketioxide_broker_lab::RabbitMq;

/// One server for all: a start takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_without_end() {
    let server = RabbitMq::start().unwrap();
    readers_that_stand_still_get_a_count_and_cost_no_memory(&server).await;
    payloads_up_to_the_limit_pass_and_larger_ones_are_refused_unsent(&server).await;
    a_storm_of_publishes_into_a_frozen_server_is_bounded_and_ends(&server).await;
}

async fn readers_that_stand_still_get_a_count_and_cost_no_memory(server: &RabbitMq) {
    let url = format!("{}?prefix=slow", server.url());
    for source in [Queue::EXCLUSIVE, Queue::DURABLE] {
        let mut config = config(&url).with_source(source);
        config.endpoint.limits.subscription_buffer = BufferLimits::new(100, 1 << 20);
        a_reader_that_stands_still_gets_a_count_and_costs_no_memory(config, &url).await;
    }
}

async fn payloads_up_to_the_limit_pass_and_larger_ones_are_refused_unsent(server: &RabbitMq) {
    const LIMIT: usize = 1_000;
    let mut config: AmqpConfig = config(&server.url());
    config.endpoint.limits.max_payload = LIMIT;
    let node = config.connect().await.unwrap();
    let mut subscription = node.subscribe(&Topic::Cluster).await.unwrap();
    let publish = node.publish(&Topic::Cluster, vec![1; LIMIT + 1].into());
    assert_eq!(publish.await.unwrap_err().kind(), ErrorKind::TooLarge);
    let publish = node.publish(&Topic::Cluster, vec![1; LIMIT].into());
    publish.await.unwrap();
    assert_eq!(message(&mut subscription).await.len(), LIMIT);
}

async fn a_storm_of_publishes_into_a_frozen_server_is_bounded_and_ends(server: &RabbitMq) {
    const ROOM: usize = 1_000;
    let mut config: AmqpConfig = config(&server.url());
    config.endpoint.limits.publish_buffer = BufferLimits::new(ROOM, 1 << 20);
    let node = Arc::new(config.connect().await.unwrap());
    server.freeze().unwrap();
    let start = Instant::now();
    let publishes: Vec<_> = (0..5 * ROOM)
        .map(|_| {
            let node = node.clone();
            tokio::spawn(async move { node.publish(&namespace("/"), vec![0; 100].into()).await })
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
    assert_eq!(full + unknown, 5 * ROOM);
    assert!(full > 0 && unknown <= ROOM, "{unknown} were let in");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    server.thaw().unwrap();
    let again = async {
        while node.publish(&namespace("/"), "again".into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon("room again", again).await;
}
