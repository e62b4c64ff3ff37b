//! What stays bounded: publishes of a server that does not answer, and readers that stand still.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{sync::Arc, time::Instant};

use common::*;
use socketioxide_adapter_amqp::{AmqpTransport, Limits, Source};
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{BufferLimits, Event, Topic, Transport},
};
use socketioxide_broker_lab::RabbitMq;

/// One server for all: a start takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_without_end() {
    let server = RabbitMq::builder().streams().start().unwrap();
    a_reader_that_stands_still_gets_a_count_and_costs_no_memory(&server).await;
    payloads_up_to_the_limit_pass_and_larger_ones_are_refused_unsent(&server).await;
    a_storm_of_publishes_into_a_frozen_server_is_bounded_and_ends(&server).await;
}

async fn a_reader_that_stands_still_gets_a_count_and_costs_no_memory(server: &RabbitMq) {
    let topic = namespace("/slow");
    for source in [Source::EXCLUSIVE, Source::DURABLE, Source::STREAM] {
        let slow = config(&server.url())
            .with_prefix("slow")
            .with_source(source.clone())
            .with_limits(
                Limits::default().with_subscription_buffer(BufferLimits::new(100, 1 << 20)),
            );
        let slow = AmqpTransport::connect(slow).await.unwrap();
        let mut subscription = slow.subscribe(&topic).await.unwrap();
        let mut witness = slow.subscribe(&Topic::Cluster).await.unwrap();
        let publisher = connect(server, "prefix=slow").await;
        for number in 0..400_u32 {
            let payload = number.to_string();
            publisher.publish(&topic, payload.into()).await.unwrap();
        }
        // It comes last, and the other one is not waited for for ever.
        delivers(&publisher, &Topic::Cluster, &mut witness, "end").await;
        let (mut read, mut lagged) = (0, 0);
        while read + lagged < 400 {
            match next(&mut subscription).await {
                Event::Message(payload) => {
                    assert_eq!(payload, (read + lagged).to_string());
                    read += 1;
                }
                Event::Lagged(count) => lagged += count,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((read, lagged), (100, 300), "{source:?}");
        delivers(&publisher, &topic, &mut subscription, "and on").await;
        assert_eq!(slow.link().status().epoch, 1);
    }
}

async fn payloads_up_to_the_limit_pass_and_larger_ones_are_refused_unsent(server: &RabbitMq) {
    const LIMIT: usize = 1_000;
    let config = config(&server.url()).with_limits(Limits::default().with_max_payload(LIMIT));
    let node = AmqpTransport::connect(config).await.unwrap();
    let mut subscription = node.subscribe(&Topic::Cluster).await.unwrap();
    let publish = node.publish(&Topic::Cluster, vec![1; LIMIT + 1].into());
    assert_eq!(publish.await.unwrap_err().kind(), ErrorKind::TooLarge);
    let publish = node.publish(&Topic::Cluster, vec![1; LIMIT].into());
    publish.await.unwrap();
    assert_eq!(message(&mut subscription).await.len(), LIMIT);
}

async fn a_storm_of_publishes_into_a_frozen_server_is_bounded_and_ends(server: &RabbitMq) {
    const ROOM: usize = 1_000;
    let config = config(&server.url())
        .with_limits(Limits::default().with_publish_buffer(BufferLimits::new(ROOM, 1 << 20)));
    let node = Arc::new(AmqpTransport::connect(config).await.unwrap());
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
