//! Publishing and subscribing on a healthy server.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::*;
use futures_util::{
    future::join_all,
    stream::{self, StreamExt as _},
};
use socketioxide_adapter_core::{
    ErrorKind, NodeId,
    transport::{BufferLimits, Event, Limits, LinkState, Topic, Transport},
};
use socketioxide_broker_lab::Redis;

#[tokio::test]
async fn every_subscriber_gets_it_and_the_publisher_is_told_how_many() {
    let redis = Redis::start().unwrap();
    let (one, two) = (connect(&redis).await, connect(&redis).await);
    let topic = Topic::Node(NodeId::random());
    assert_eq!(
        one.publish(&topic, "nobody".into())
            .await
            .unwrap()
            .receivers,
        Some(0)
    );
    let mut first = one.subscribe(&topic).await.unwrap();
    let mut second = two.subscribe(&topic).await.unwrap();
    let mut third = two.subscribe(&topic).await.unwrap();
    let receipt = one.publish(&topic, "hello".into()).await.unwrap();
    // Two of the three share a connection.
    assert_eq!(receipt.receivers, Some(2));
    for subscription in [&mut first, &mut second, &mut third] {
        assert_eq!(message(subscription).await, "hello");
    }
}

#[tokio::test]
async fn payloads_and_namespaces_are_arbitrary_bytes() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for path in ["/", "/a b\r\n", "/*", "/[a-z]?", "/ü", "no slash", ""] {
        let topic = namespace(path);
        let mut subscription = transport.subscribe(&topic).await.unwrap();
        for payload in [Bytes::new(), Bytes::from(every_byte.clone())] {
            transport.publish(&topic, payload.clone()).await.unwrap();
            assert_eq!(message(&mut subscription).await, payload);
        }
    }
}

#[tokio::test]
async fn payloads_arrive_in_the_order_of_first_poll() {
    let redis = Redis::start().unwrap();
    // A busy machine may need a while for all of them.
    let transport = limited(&redis.url(), Limits::default().with_timeout(SOON))
        .connect()
        .await;
    let transport = transport.unwrap();
    let topic = namespace("/order");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let publishes = (0..10_000_u32).map(|n| {
        let payload = Bytes::copy_from_slice(&n.to_be_bytes());
        transport.publish(&topic, payload)
    });
    // `join_all` polls them first in this order, in one task, far beyond tokio's budget for one poll.
    for receipt in soon("10,000 receipts", join_all(publishes)).await {
        assert_eq!(receipt.unwrap().receivers, Some(1));
    }
    for n in 0..10_000_u32 {
        assert_eq!(message(&mut subscription).await[..], n.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_starts_while_others_wait_does_not_overtake_them() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topic = namespace("/window");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let publishes = stream::iter(0..50_000_u32).map(|n| {
        let payload = Bytes::copy_from_slice(&n.to_be_bytes());
        transport.publish(&topic, payload)
    });
    let mut receipts = publishes.buffer_unordered(200);
    let reading = async {
        for n in 0..50_000_u32 {
            assert_eq!(message(&mut subscription).await[..], n.to_be_bytes());
        }
    };
    let publishing = async {
        while let Some(receipt) = receipts.next().await {
            receipt.unwrap();
        }
    };
    tokio::join!(reading, publishing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishers_in_many_tasks_keep_their_order() {
    let redis = Redis::start().unwrap();
    let transport = std::sync::Arc::new(connect(&redis).await);
    let topic = namespace("/tasks");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let tasks = (0..8_u32).map(|task| {
        let (transport, topic) = (transport.clone(), topic.clone());
        tokio::spawn(async move {
            let publishes = (0..1_000_u32).map(|n| {
                let payload = [task.to_be_bytes(), n.to_be_bytes()].concat();
                transport.publish(&topic, payload.into())
            });
            for receipt in join_all(publishes).await {
                receipt.unwrap();
            }
        })
    });
    for task in soon("all tasks", join_all(tasks)).await {
        task.unwrap();
    }
    let mut next_of = [0_u32; 8];
    for _ in 0..8_000 {
        let payload = message(&mut subscription).await;
        let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
        let (task, n) = (number(&payload[..4]) as usize, number(&payload[4..]));
        assert_eq!(n, next_of[task]);
        next_of[task] += 1;
    }
}

#[tokio::test]
async fn large_payloads_pass_whole_and_larger_ones_are_refused_unsent() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topic = namespace("/large");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let limit = transport.capabilities().max_payload;
    assert_eq!(limit, 8 << 20);
    let largest: Bytes = (0..limit).map(|n| (n % 251) as u8).collect();
    transport.publish(&topic, largest.clone()).await.unwrap();
    assert!(message(&mut subscription).await == largest);
    let refused = transport.publish(&topic, vec![0; limit + 1].into()).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::TooLarge);
    transport.publish(&topic, "fence".into()).await.unwrap();
    assert_eq!(message(&mut subscription).await, "fence");
}

#[tokio::test]
async fn prefixes_and_databases_keep_clusters_apart() {
    let redis = Redis::start().unwrap();
    let urls = ["", "?prefix=a", "?prefix=a:b", "/3", "/4", "/4?prefix=a"];
    let mut clusters = Vec::new();
    for url in urls {
        let transport = try_connect(&format!("{}{url}", redis.url())).await.unwrap();
        let subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
        clusters.push((transport, subscription, url));
    }
    for (transport, _, url) in &clusters {
        let receipt = transport.publish(&Topic::Cluster, (*url).into()).await;
        assert_eq!(receipt.unwrap().receivers, Some(1));
    }
    for (_, subscription, url) in &mut clusters {
        assert_eq!(message(subscription).await, *url);
    }
    assert_eq!(subscribers(&redis, "a:4:cluster"), 1);
}

#[tokio::test]
async fn subscriptions_share_a_channel_and_the_last_one_ends_it() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topic = namespace("/shared");
    let channel = "socketioxide:ns/shared";
    let mut first = transport.subscribe(&topic).await.unwrap();
    let second = transport.subscribe(&topic).await.unwrap();
    assert_eq!(subscribers(&redis, channel), 1);
    drop(second);
    // The end of another subscription proves that the server was told of both.
    drop(transport.subscribe(&namespace("/other")).await.unwrap());
    eventually(0, || subscribers(&redis, "socketioxide:ns/other")).await;
    assert_eq!(subscribers(&redis, channel), 1);
    transport.publish(&topic, "still".into()).await.unwrap();
    assert_eq!(message(&mut first).await, "still");
    drop(first);
    eventually(0, || subscribers(&redis, channel)).await;
    let mut again = transport.subscribe(&topic).await.unwrap();
    transport.publish(&topic, "again".into()).await.unwrap();
    assert_eq!(message(&mut again).await, "again");
}

#[tokio::test]
async fn a_thousand_topics_are_subscribed_together_and_let_go() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topics: Vec<Topic> = (0..1_000).map(|n| namespace(&format!("/{n}"))).collect();
    let subscribing = join_all(topics.iter().map(|topic| transport.subscribe(topic)));
    let mut subscriptions = Vec::new();
    for (n, subscription) in soon("all", subscribing).await.into_iter().enumerate() {
        let mut subscription = subscription.unwrap();
        let payload = Bytes::from(n.to_string());
        transport
            .publish(&topics[n], payload.clone())
            .await
            .unwrap();
        assert_eq!(message(&mut subscription).await, payload);
        subscriptions.push(subscription);
    }
    drop(subscriptions);
    let channels = || redis.command(&["PUBSUB", "CHANNELS"]).unwrap();
    eventually(socketioxide_broker_lab::Reply::Array(Vec::new()), channels).await;
}

#[tokio::test]
async fn a_dropped_subscribe_leaves_nothing_behind() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topic = namespace("/dropped");
    for polls in 0..4 {
        let mut subscribing = transport.subscribe(&topic);
        for _ in 0..polls {
            if futures_util::poll!(&mut subscribing).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    // Whatever was begun is settled once the server has another one.
    let _fence = transport.subscribe(&Topic::Cluster).await.unwrap();
    eventually(0, || subscribers(&redis, "socketioxide:ns/dropped")).await;
}

#[tokio::test]
async fn a_slow_reader_loses_the_newest_and_is_told_how_many() {
    let redis = Redis::start().unwrap();
    let config = limited(
        &redis.url(),
        Limits::default().with_subscription_buffer(BufferLimits::new(10, 1 << 20)),
    );
    let transport = config.connect().await.unwrap();
    let topic = namespace("/slow");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let mut fence = transport.subscribe(&Topic::Cluster).await.unwrap();
    for n in 0..100_u8 {
        transport.publish(&topic, vec![n].into()).await.unwrap();
    }
    transport
        .publish(&Topic::Cluster, "fence".into())
        .await
        .unwrap();
    assert_eq!(message(&mut fence).await, "fence");
    for n in 0..10_u8 {
        assert_eq!(message(&mut subscription).await[..], [n]);
    }
    assert_eq!(next(&mut subscription).await, Event::Lagged(90));
}

#[tokio::test]
async fn too_many_waiting_publishes_are_refused_unsent() {
    let redis = Redis::start().unwrap();
    let config = limited(
        &redis.url(),
        Limits::default().with_publish_buffer(BufferLimits::new(3, 1 << 20)),
    );
    let transport = config.connect().await.unwrap();
    let topic = namespace("/full");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let publishes = (0..5_u8).map(|n| transport.publish(&topic, vec![n].into()));
    let outcomes = soon("all", join_all(publishes)).await;
    let full: Vec<bool> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::Full))
        .collect();
    assert_eq!(full, [false, false, false, true, true]);
    transport.publish(&topic, "fence".into()).await.unwrap();
    for expected in [&[0_u8][..], &[1], &[2], b"fence"] {
        assert_eq!(message(&mut subscription).await[..], *expected);
    }
}

#[tokio::test]
async fn close_ends_subscriptions_and_tasks_and_can_be_repeated() {
    let redis = Redis::start().unwrap();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let transport = connect(&redis).await;
    assert!(tasks() > before);
    let topic = namespace("/close");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let mut witness = transport.subscribe(&topic).await.unwrap();
    transport.publish(&topic, "last".into()).await.unwrap();
    // That Redis has it does not mean that it has come back: both get it from one and the same read.
    assert_eq!(message(&mut witness).await, "last");
    let (one, two) = tokio::join!(transport.close(), transport.close());
    one.and(two).unwrap();
    assert_eq!(tasks(), before);
    assert_eq!(transport.link().state(), LinkState::Closed);
    assert_eq!(message(&mut subscription).await, "last");
    assert_eq!(soon("the end", subscription.recv()).await, None);
    let closed = [
        transport.publish(&topic, "late".into()).await.unwrap_err(),
        transport.subscribe(&topic).await.unwrap_err(),
    ];
    assert_eq!(closed.map(|error| error.kind()), [ErrorKind::Closed; 2]);
    transport.close().await.unwrap();
}

#[tokio::test]
async fn dropping_the_transport_closes_it() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    drop(transport);
    assert_eq!(soon("the end", subscription.recv()).await, None);
    eventually(0, || subscribers(&redis, "socketioxide:cluster")).await;
}

#[tokio::test]
async fn close_during_publishes_lets_each_end_at_once() {
    let redis = Redis::start().unwrap();
    let transport = std::sync::Arc::new(connect(&redis).await);
    redis.freeze().unwrap();
    let publishing: Vec<_> = (0..50)
        .map(|_| {
            let transport = transport.clone();
            tokio::spawn(async move { transport.publish(&Topic::Cluster, "x".into()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let start = std::time::Instant::now();
    transport.close().await.unwrap();
    for publish in publishing {
        let kind = soon("its end", publish).await.unwrap().unwrap_err().kind();
        assert!(
            matches!(kind, ErrorKind::Interrupted | ErrorKind::Closed),
            "{kind:?}"
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}
