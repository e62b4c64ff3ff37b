//! What stays bounded: publishes of a server that does not answer, subscriptions nobody has any more, and the end.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use futures_util::{future::join_all, poll};
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{BufferLimits, Continuity, Event, LinkState, Topic, Transport},
};
use socketioxide_adapter_redis::{Limits, RedisConfig, RedisTransport};
use socketioxide_broker_lab::{Redis, Reply};

const RESUMED: Event = Event::Resumed(Continuity::Unknown);

async fn kind(transport: &RedisTransport, payload: Bytes) -> Option<ErrorKind> {
    let outcome = transport.publish(&Topic::Cluster, payload).await;
    outcome.err().map(|error| error.kind())
}

/// Publishes of ten payloads or 1 MiB may wait, and each for 100 ms.
fn ten_waiting(redis: &Redis) -> RedisConfig {
    let limits = Limits::default()
        .with_publish_buffer(BufferLimits::new(10, 1 << 20))
        .with_timeout(Duration::from_millis(100));
    limited(&redis.url(), limits)
}

#[tokio::test]
async fn a_publish_given_up_counts_until_it_is_answered() {
    let redis = Redis::start().unwrap();
    let transport = ten_waiting(&redis).connect().await.unwrap();
    redis.freeze().unwrap();
    // Five by their deadline, five dropped after they were handed over.
    let late = join_all((0..5).map(|_| kind(&transport, "late".into()))).await;
    assert_eq!(late, [Some(ErrorKind::Timeout); 5]);
    for _ in 0..5 {
        let mut dropped = transport.publish(&Topic::Cluster, "dropped".into());
        assert!(poll!(&mut dropped).is_pending());
    }
    assert_eq!(
        kind(&transport, "one more".into()).await,
        Some(ErrorKind::Full)
    );
    redis.thaw().unwrap();
    let again = async {
        while kind(&transport, "again".into()).await == Some(ErrorKind::Full) {
            tokio::task::yield_now().await;
        }
    };
    soon("room again", again).await;
    assert_eq!(transport.link().status().epoch, 1);
    let all = join_all((0..10).map(|_| kind(&transport, "all".into()))).await;
    assert_eq!(all, [None; 10]);
}

#[tokio::test]
async fn bytes_for_a_frozen_server_are_bounded_and_free_again_with_the_next_session() {
    const PAYLOAD: usize = 64 << 10;
    let redis = Redis::start().unwrap();
    let mut config = ten_waiting(&redis);
    config.endpoint.limits.publish_buffer.messages = 1_000;
    let transport = config.connect().await.unwrap();
    redis.freeze().unwrap();
    let mut taken = 0;
    let mut refused = 0;
    while transport.link().state() == LinkState::Up {
        // Ten times the limit, again and again until the session ends.
        let attempts = (0..160).map(|_| kind(&transport, vec![0; PAYLOAD].into()));
        for kind in join_all(attempts).await {
            match kind.unwrap() {
                ErrorKind::Full => refused += 1,
                ErrorKind::Timeout | ErrorKind::Interrupted => taken += PAYLOAD,
                ErrorKind::LinkDown => {}
                other => panic!("{other:?}"),
            }
        }
        tokio::task::yield_now().await;
    }
    assert!(refused > 0);
    assert_eq!(taken, 1 << 20);
    redis.thaw().unwrap();
    up(&transport, 2).await;
    // Whether each is answered within its 100 ms is up to the machine; that there is room for all of them is not.
    let all = join_all((0..16).map(|_| kind(&transport, vec![0; PAYLOAD].into()))).await;
    assert!(!all.contains(&Some(ErrorKind::Full)), "{all:?}");
}

#[tokio::test]
async fn payloads_up_to_the_limit_pass_and_larger_ones_are_refused_unsent() {
    const LIMIT: usize = 1_000;
    let redis = Redis::start().unwrap();
    let config = limited(&redis.url(), Limits::default().with_max_payload(LIMIT));
    let transport = config.connect().await.unwrap();
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    let refused = Some(ErrorKind::TooLarge);
    for (len, expected) in [(LIMIT + 1, refused), (LIMIT - 1, None), (LIMIT, None)] {
        assert_eq!(
            kind(&transport, vec![1; len].into()).await,
            expected,
            "{len}"
        );
    }
    assert_eq!(message(&mut subscription).await.len(), LIMIT - 1);
    assert_eq!(message(&mut subscription).await.len(), LIMIT);
}

#[tokio::test]
async fn a_subscription_dropped_while_the_link_is_down_is_not_subscribed_again() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let mut kept = transport.subscribe(&Topic::Cluster).await.unwrap();
    let dropped = transport.subscribe(&namespace("/dropped")).await.unwrap();
    redis.kill().unwrap();
    down(&transport).await;
    drop(dropped);
    redis.restart().unwrap();
    up(&transport, 2).await;
    // At once, and not only after a tick.
    assert_eq!(subscribers(&redis, "socketioxide:ns/dropped"), 0);
    assert_eq!(next(&mut kept).await, RESUMED);
}

#[tokio::test]
async fn a_channel_that_nobody_has_any_more_cannot_keep_the_link_down() {
    let redis = Redis::builder()
        .user("alice", "on >pw resetchannels &socketioxide:* +@all")
        .start()
        .unwrap();
    let transport = try_connect(&redis.url_as("alice", "pw")).await.unwrap();
    let mut kept = transport.subscribe(&Topic::Cluster).await.unwrap();
    let dropped = transport.subscribe(&namespace("/dropped")).await.unwrap();
    redis.freeze().unwrap();
    down(&transport).await;
    drop(dropped);
    redis.thaw().unwrap();
    // A changed ACL cuts the user's connections too.
    redis
        .command(&[
            "ACL",
            "SETUSER",
            "alice",
            "resetchannels",
            "&socketioxide:cluster",
        ])
        .unwrap();
    up(&transport, 2).await;
    assert_eq!(next(&mut kept).await, RESUMED);
    assert_eq!(kind(&transport, "back".into()).await, None);
    assert_eq!(message(&mut kept).await, "back");
}

#[tokio::test]
async fn a_thousand_rounds_of_subscribe_and_drop_leave_nothing_behind() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    for n in 0..1_000 {
        // Ten channels, so that most are subscribed again while their end is on its way.
        let topic = namespace(&format!("/{}", n % 10));
        let mut subscription = transport.subscribe(&topic).await.unwrap();
        if n % 100 == 0 {
            transport.publish(&topic, "here".into()).await.unwrap();
            assert_eq!(message(&mut subscription).await, "here");
        }
    }
    let channels = || redis.command(&["PUBSUB", "CHANNELS"]).unwrap();
    eventually(Reply::Array(Vec::new()), channels).await;
    // `Debug` shows all that the transport holds.
    assert!(
        !format!("{transport:?}").contains("Listener"),
        "{transport:?}"
    );
}

#[tokio::test]
async fn every_close_waits_for_the_same_end() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    redis.kill().unwrap();
    // No connection is left that could be waited for instead.
    tried_in_vain(&transport).await;
    let second = async {
        transport.close().await.unwrap();
        // Without waiting.
        (
            transport.link().state(),
            poll!(Box::pin(subscription.recv())),
        )
    };
    let (first, second) = tokio::join!(transport.close(), second);
    first.unwrap();
    assert_eq!(second, (LinkState::Closed, std::task::Poll::Ready(None)));
}

#[tokio::test]
async fn a_close_that_is_dropped_does_not_take_the_end_from_the_next() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    {
        let mut dropped = transport.close();
        assert!(poll!(&mut dropped).is_pending());
    }
    transport.close().await.unwrap();
    assert_eq!(transport.link().state(), LinkState::Closed);
    assert_eq!(
        poll!(Box::pin(subscription.recv())),
        std::task::Poll::Ready(None)
    );
}

#[tokio::test]
async fn close_of_a_frozen_server_returns_at_once_and_ends_all() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    redis.freeze().unwrap();
    let mut dropped = transport.publish(&Topic::Cluster, "dropped".into());
    assert!(poll!(&mut dropped).is_pending());
    drop(dropped);
    let start = Instant::now();
    transport.close().await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(soon("the end", subscription.recv()).await, None);
    assert_eq!(tasks(), 0);
}
