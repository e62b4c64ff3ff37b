//! `redis+cluster://`: sharded Pub/Sub over all masters, whichever they are.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../../adapter-redis/tests/common/mod.rs"]
mod common;

use std::{sync::Arc, time::Instant};

use common::{load::Load, *};
use futures_util::future::join_all;
use socketioxide_adapter_core::{
    ErrorKind, Result,
    backend::{BackendUrl, Registry},
    transport::{Continuity, Event, Topic, Transport},
};
use socketioxide_adapter_redis_cluster::{BACKEND, RedisClusterConfig, RedisTransport};
use socketioxide_broker_lab::{Redis, RedisCluster, Reply};
use tokio::task::block_in_place;

const RESUMED: Event = Event::Resumed(Continuity::Unknown);

async fn try_connect(url: &str) -> Result<RedisTransport> {
    RedisClusterConfig::from_url(BackendUrl::parse(url)?)?
        .connect()
        .await
}

fn shard_channels(server: &Redis) -> usize {
    let channels = server.command(&["PUBSUB", "SHARDCHANNELS"]).unwrap();
    channels.items().unwrap().len()
}

async fn works(transport: &dyn Transport, topic: &Topic) {
    let mut subscription = transport.subscribe(topic).await.unwrap();
    transport.publish(topic, "ping".into()).await.unwrap();
    assert_eq!(message(&mut subscription).await, "ping");
}

#[tokio::test]
async fn topics_are_spread_over_the_masters_and_nothing_is_broadcast() {
    let cluster = RedisCluster::start().unwrap();
    let transport = Registry::new()
        .with(BACKEND)
        .connect(&cluster.url())
        .await
        .unwrap();
    let other = try_connect(&cluster.url()).await.unwrap();
    // Braces mean something to the cluster.
    let mut topics: Vec<Topic> = (0..100).map(|n| namespace(&format!("/{n}"))).collect();
    topics.extend(["/{a}b", "/{}", "/}{", "/{{x}}"].map(namespace));
    topics.push(Topic::Cluster);
    let subscribing = join_all(topics.iter().map(|topic| other.subscribe(topic)));
    let subscriptions = soon("all", subscribing).await;
    for (topic, subscription) in topics.iter().zip(subscriptions) {
        let mut subscription = subscription.unwrap();
        let payload = topic.to_string();
        let receipt = transport
            .publish(topic, payload.clone().into())
            .await
            .unwrap();
        assert_eq!(receipt.receivers, Some(1));
        assert_eq!(message(&mut subscription).await, payload);
        // Kept, so that the servers have all of them at the end.
        std::mem::forget(subscription);
    }
    let counts: Vec<usize> = cluster.servers().map(shard_channels).collect();
    assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), topics.len());
    for server in cluster.servers() {
        let channels = server.command(&["PUBSUB", "CHANNELS"]).unwrap();
        assert_eq!(channels, Reply::Array(Vec::new()));
        assert_eq!(
            server.command(&["PUBSUB", "NUMPAT"]).unwrap(),
            Reply::Int(0)
        );
    }
    drop(other);
    for server in cluster.servers() {
        eventually(0, || shard_channels(server)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_is_followed_under_load_without_a_new_session() {
    let cluster = RedisCluster::start().unwrap();
    let publisher = Arc::new(try_connect(&cluster.url()).await.unwrap());
    let receiver = try_connect(&cluster.url()).await.unwrap();
    let slot = cluster.slot("socketioxide:ns/load").unwrap();
    // Somebody else's topic, which must not notice.
    let elsewhere = (0..).map(|n| format!("/{n}")).find(|path| {
        let slot = cluster.slot(&format!("socketioxide:ns{path}")).unwrap();
        cluster.owner(slot).unwrap()
            != cluster
                .owner(cluster.slot("socketioxide:ns/load").unwrap())
                .unwrap()
    });
    let elsewhere = namespace(&elsewhere.unwrap());
    let mut bystander = receiver.subscribe(&elsewhere).await.unwrap();
    let load = Load::start(&publisher, &receiver, &namespace("/load")).await;
    let mut waits = Vec::new();
    for _ in 0..10 {
        load.goes_on(100).await;
        let next = (cluster.owner(slot).unwrap() + 1) % 3;
        block_in_place(|| cluster.move_slot(slot, next).unwrap());
        waits.push(load.goes_on(1).await);
    }
    load.goes_on(100).await;
    println!("delivered again after {waits:?}");
    println!("{}", load.balances().await);
    for transport in [&*publisher, &receiver] {
        assert_eq!(transport.link().status().epoch, 1);
    }
    publisher.publish(&elsewhere, "calm".into()).await.unwrap();
    assert_eq!(message(&mut bystander).await, "calm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_followed_to_its_replica_under_load() {
    let cluster = RedisCluster::builder().replicas().start().unwrap();
    let publisher = Arc::new(try_connect(&cluster.url()).await.unwrap());
    let receiver = try_connect(&cluster.url()).await.unwrap();
    let slot = cluster.slot("socketioxide:ns/load").unwrap();
    let load = Load::start(&publisher, &receiver, &namespace("/load")).await;
    load.goes_on(200).await;
    let owner = cluster.owner(slot).unwrap();
    let killed = Instant::now();
    cluster.servers().nth(owner).unwrap().kill().unwrap();
    block_in_place(|| cluster.taken_over(slot, owner).unwrap());
    let promoted = killed.elapsed();
    up(&publisher, 2).await;
    up(&receiver, 2).await;
    load.goes_on(200).await;
    println!(
        "promoted after {promoted:?}, delivered again after {:?}",
        killed.elapsed()
    );
    // The dead one comes back as the replica of its successor.
    block_in_place(|| cluster.heal().unwrap());
    load.goes_on(100).await;
    println!("{}", load.balances().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_that_is_asked_for_is_followed_to_a_server_that_was_not_known() {
    let cluster = RedisCluster::builder().replicas().start().unwrap();
    let transport = try_connect(&cluster.url()).await.unwrap();
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    let slot = cluster.slot("socketioxide:cluster").unwrap();
    let owner = cluster.owner(slot).unwrap();
    let replica = cluster.servers().nth(owner + 3).unwrap();
    block_in_place(|| cluster.fail_over(slot).unwrap());
    eventually(1, || shard_channels(replica)).await;
    assert_eq!(next(&mut subscription).await, RESUMED);
    up(&transport, 2).await;
    transport
        .publish(&Topic::Cluster, "back".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "back");
}

#[tokio::test]
async fn passwords_are_used_and_wrong_ones_are_fatal() {
    let cluster = RedisCluster::builder().password("s3cr3t").start().unwrap();
    works(&try_connect(&cluster.url()).await.unwrap(), &Topic::Cluster).await;
    let error = try_connect(&cluster.url().replace("s3cr3t", "wr0ng"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(!error.to_string().contains("wr0ng"), "{error}");
}

#[tokio::test]
async fn users_need_the_commands_of_sharded_pub_sub_and_their_channels() {
    let cluster = RedisCluster::start().unwrap();
    for server in cluster.servers() {
        let rules = "on >s3cr3t resetchannels &socketioxide:ns/yes* +hello +cluster|slots +spublish +ssubscribe +sunsubscribe";
        let rules = [
            &["ACL", "SETUSER", "alice"][..],
            &rules.split(' ').collect::<Vec<_>>(),
        ]
        .concat();
        server.command(&rules).unwrap();
    }
    let url = cluster.url().replace("://", "://alice:s3cr3t@");
    let transport = try_connect(&url).await.unwrap();
    for n in 0..10 {
        works(&transport, &namespace(&format!("/yes{n}"))).await;
    }
    let refused = [
        transport
            .subscribe(&Topic::Cluster)
            .await
            .map(drop)
            .unwrap_err(),
        transport
            .publish(&Topic::Cluster, "x".into())
            .await
            .map(drop)
            .unwrap_err(),
    ];
    assert_eq!(
        refused.map(|error| error.kind()),
        [ErrorKind::Unauthorized; 2]
    );
    assert_eq!(transport.link().status().epoch, 1);
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn with_tls_every_master_is_reached_by_it() {
    let cluster = RedisCluster::builder().tls().start().unwrap();
    let ca = cluster.certificates().unwrap().ca.display();
    let transport = try_connect(&format!("{}?ca={ca}", cluster.url()))
        .await
        .unwrap();
    for n in 0..10 {
        works(&transport, &namespace(&format!("/{n}"))).await;
    }
}

#[tokio::test]
async fn one_server_of_the_url_that_can_be_reached_is_enough() {
    let cluster = RedisCluster::start().unwrap();
    let servers = cluster.url().rsplit_once(',').unwrap().1.to_owned();
    let url = format!("redis+cluster://127.0.0.1:1,127.0.0.1:2,{servers}");
    works(&try_connect(&url).await.unwrap(), &Topic::Cluster).await;
}

#[tokio::test]
async fn what_is_no_cluster_is_told_apart() {
    let redis = Redis::start().unwrap();
    let url = redis.url().replace("redis://", "redis+cluster://");
    let error = try_connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("no Redis Cluster"), "{error}");
    let error = try_connect("redis+cluster://127.0.0.1:1/3")
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "redis: config: a Redis Cluster has no database but 0"
    );
    for url in ["redis+cluster://", "redis+cluster://h/x"] {
        let error = BackendUrl::parse(url)
            .and_then(RedisClusterConfig::from_url)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
    }
}
