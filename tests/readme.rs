//! README promises what the backends declare, and nothing else.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use std::collections::BTreeMap;

use socketioxide_adapter::{
    connect,
    transport::{Capabilities, Delivery, Replay},
};
use socketioxide_broker_lab::{Nats, RabbitMq, Redis, RedisCluster};

const README: &str = include_str!("../README.md");

/// The cells of a row of the table of guarantees that `capabilities` stand for.
fn promise(capabilities: Capabilities) -> [String; 5] {
    let yes_no = |yes| if yes { "yes" } else { "no" };
    let delivery = match capabilities.delivery {
        Delivery::AtMostOnce => "at most once",
        Delivery::AtLeastOnce => "at least once",
        _ => "unknown",
    };
    let replay = match capabilities.replay {
        Replay::None => "nothing comes back, the loss is counted",
        Replay::WithinRetention => "what the broker still has comes back",
        _ => "unknown",
    };
    [
        delivery.to_owned(),
        replay.to_owned(),
        yes_no(capabilities.confirms).to_owned(),
        yes_no(capabilities.total_order).to_owned(),
        match capabilities.max_payload {
            bytes if bytes < 1 << 20 => format!("{} KiB", bytes >> 10),
            bytes => format!("{} MiB", bytes >> 20),
        },
    ]
}

/// The rows of the table by their first cell, each with its last five.
fn table() -> BTreeMap<String, [String; 5]> {
    let (_, rest) = README.split_once("<!-- guarantees:start -->").unwrap();
    let (table, _) = rest.split_once("<!-- guarantees:end -->").unwrap();
    let rows = table.trim().lines().skip(2).map(|row| {
        let cells = row.trim_matches('|').split('|');
        let cells: Vec<String> = cells.map(|cell| cell.trim().to_owned()).collect();
        let promised = cells[cells.len() - 5..].to_vec();
        (cells[0].clone(), promised.try_into().unwrap())
    });
    rows.collect()
}

#[tokio::test]
async fn the_table_of_guarantees_is_what_the_backends_declare() {
    let (redis, cluster) = (Redis::start().unwrap(), RedisCluster::start().unwrap());
    let rabbit = RabbitMq::start().unwrap();
    let nats = Nats::start().unwrap();
    let jetstream = Nats::builder().jetstream().start().unwrap();
    let backends = [
        ("in memory", "memory://readme".to_owned()),
        ("Redis Pub/Sub", redis.url()),
        ("Redis Cluster", cluster.url()),
        (
            "Redis Streams",
            redis.url().replace("redis://", "redis+streams://"),
        ),
        ("RabbitMQ queues", rabbit.url()),
        (
            "RabbitMQ durable queues",
            format!("{}?queue=durable", rabbit.url()),
        ),
        (
            "RabbitMQ streams",
            rabbit.url().replace("amqp://", "amqp+streams://"),
        ),
        ("NATS", nats.url()),
        ("NATS JetStream", jetstream.url()),
    ];
    let mut declared = BTreeMap::new();
    for (name, url) in backends {
        let cluster = connect(&url).await.unwrap();
        declared.insert(name.to_owned(), promise(cluster.capabilities()));
        cluster.shutdown().await.unwrap();
    }
    assert_eq!(table(), declared);
}

#[test]
fn every_scheme_of_this_build_is_in_the_table() {
    for scheme in socketioxide_adapter::registry().schemes() {
        // Valkey's names are synonyms, told in the crate's documentation.
        assert!(
            scheme.starts_with("valkey") || README.contains(&format!("`{scheme}://")),
            "{scheme}:// is not in README"
        );
    }
}
