//! What the transport does when the server is away, full, read-only, loading or frozen, and when it is refused something.
#![allow(clippy::unwrap_used)]

mod common;

use std::{sync::Arc, time::Instant};

use common::*;
use futures_util::future::join_all;
use socketioxide_adapter_core::{
    ErrorKind, Outcome,
    transport::{LinkState, Topic, Transport},
};
use socketioxide_broker_lab::{ClientKind, Redis, Reply};

#[tokio::test]
async fn a_frozen_server_is_noticed_and_what_it_had_accepted_comes_once() {
    let redis = durable();
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..10).await;
    hears(&mut inbox, 0..10).await;
    redis.freeze().unwrap();
    let frozen = Instant::now();
    let topic = chat();
    let late =
        join_all((10..20).map(|number: u64| node.publish(&topic, number.to_string().into())));
    let (late, subscribed) = tokio::join!(late, node.subscribe(&topic));
    assert!(frozen.elapsed().as_secs() < 3, "{:?}", frozen.elapsed());
    for error in late.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    }
    assert!(subscribed.unwrap_err().is_retryable());
    down(&node).await;
    assert!(frozen.elapsed().as_secs() < 4, "{:?}", frozen.elapsed());
    redis.thaw().unwrap();
    up(&node, 2).await;
    // The server found them in its buffers when it went on: they are in the log, and there is one way to hear them.
    let mut came = Vec::new();
    node.publish(&topic, "fence".into()).await.unwrap();
    loop {
        match next(&mut inbox).await {
            event if event == message("fence") => break,
            event => came.push(event),
        }
    }
    assert_eq!(came.len(), 11, "{came:?}");
    let resumed = came.iter().position(|event| {
        matches!(
            event,
            socketioxide_adapter_core::transport::Event::Resumed(_)
        )
    });
    came.remove(resumed.unwrap());
    let expected: Vec<_> = (10..20).map(message).collect();
    assert_eq!(came, expected);
}

#[tokio::test]
async fn a_server_without_memory_refuses_publishes_but_can_be_read_from() {
    let redis = Redis::start().unwrap();
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..10).await;
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let error = node.publish(&chat(), "too much".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("out of memory"), "{error}");
    assert_ne!(error.outcome(), Outcome::Unknown);
    redis.kill_clients(ClientKind::Normal).unwrap();
    up(&node, 2).await;
    hears(&mut inbox, 0..10).await;
    assert_eq!(next(&mut inbox).await, unbroken(0));
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    hears_nothing(&mut inbox, &node).await;
}

#[tokio::test]
async fn a_server_that_becomes_read_only_is_left_and_found_again() {
    let redis = Redis::start().unwrap();
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..10).await;
    hears(&mut inbox, 0..10).await;
    redis.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    // Refused, or lost with the session: the server throws out whoever waits for entries.
    let error = node.publish(&chat(), "refused".into()).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    down(&node).await;
    redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    up(&node, 2).await;
    assert_eq!(next(&mut inbox).await, unbroken(0));
    hears_nothing(&mut inbox, &node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_loading_its_data_is_waited_for() {
    // 5,000 keys that take half a millisecond each, and a look at the clients after each kilobyte.
    let redis = Redis::builder()
        .config("key-load-delay 500")
        .config("loading-process-events-interval-bytes 1024")
        .config("enable-debug-command local")
        .start()
        .unwrap();
    let redis = Arc::new(redis);
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..10).await;
    hears(&mut inbox, 0..10).await;
    redis.command(&["DEBUG", "POPULATE", "5000"]).unwrap();
    redis.command(&["SAVE"]).unwrap();
    redis.kill().unwrap();
    down(&node).await;
    let loaded = tokio::task::spawn_blocking({
        let redis = redis.clone();
        move || redis.restart()
    });
    let mut link = node.link();
    let loading = |reason: &str| reason.contains("loading its data");
    let told = link.wait_for(|status| status.reason.as_deref().is_some_and(loading));
    soon("an attempt while loading", told).await;
    up(&node, 2).await;
    loaded.await.unwrap().unwrap();
    assert_eq!(next(&mut inbox).await, unbroken(0));
    hears_nothing(&mut inbox, &node).await;
}

#[tokio::test]
async fn whichever_connection_is_killed_it_is_a_new_session_without_a_loss() {
    let redis = Redis::start().unwrap();
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    let mut members = node.subscribe(&Topic::Cluster).await.unwrap();
    let clients = || {
        let list = redis.command(&["CLIENT", "LIST"]).unwrap();
        let ours = |line: &&str| line.contains("laddr=127.0.0.1");
        let id = |line: &str| {
            line.strip_prefix("id=")
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .to_owned()
        };
        let ids: Vec<_> = list.text().unwrap().lines().filter(ours).map(id).collect();
        ids
    };
    for round in 0..3 {
        eventually(3, || clients().len()).await;
        redis
            .command(&["CLIENT", "KILL", "ID", &clients()[round as usize]])
            .unwrap();
        up(&node, round + 2).await;
        assert_eq!(next(&mut inbox).await, unbroken(0));
        next(&mut members).await;
        say(&node, round..round + 1).await;
        hears(&mut inbox, round..round + 1).await;
    }
}

#[tokio::test]
async fn a_thousand_rounds_of_subscribe_and_drop_leave_nothing_behind() {
    let redis = Redis::start().unwrap();
    let node = connect(&redis).await;
    let start = Instant::now();
    for n in 0..1_000 {
        let topic = namespace(&format!("/{}", n % 10));
        let mut inbox = node.subscribe(&topic).await.unwrap();
        if n % 100 == 0 {
            node.publish(&topic, "here".into()).await.unwrap();
            assert_eq!(next(&mut inbox).await, message("here"));
        }
    }
    // A reader that had to wait for the server to let go would need a second for each.
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    // `Debug` shows all that the transport holds.
    eventually(false, || format!("{node:?}").contains("Listener")).await;
}

#[tokio::test]
async fn nodes_with_another_layout_are_refused_with_both_named() {
    let redis = Redis::start().unwrap();
    let _node = connect(&redis).await;
    for (options, named) in [
        ("streams=2", "streams=2"),
        ("ephemeral=log", "ephemeral=log"),
    ] {
        let error = try_connect(&format!("{}?{options}", redis.url()))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(
            text.contains(named) && text.contains("ephemeral=pubsub"),
            "{text}"
        );
    }
    let elsewhere = format!("{}?streams=2&prefix=other", redis.url());
    assert!(try_connect(&elsewhere).await.is_ok());
}

#[tokio::test]
async fn logs_that_nobody_reads_expire_and_those_that_are_read_do_not() {
    let redis = Redis::start().unwrap();
    let node = try_connect(&format!("{}?expire=60s", redis.url()))
        .await
        .unwrap();
    let _inbox = node.subscribe(&chat()).await.unwrap();
    let left = || {
        redis
            .command(&["PTTL", "socketioxide:ns/chat"])
            .unwrap()
            .int()
            .unwrap()
    };
    let first = left();
    assert!((50_000..=60_000).contains(&first), "{first}");
    redis
        .command(&["PEXPIRE", "socketioxide:ns/chat", "30000"])
        .unwrap();
    eventually(true, || left() > 40_000).await;
}

#[tokio::test]
async fn the_documented_rights_suffice_and_a_missing_one_is_told() {
    const RIGHTS: &str = "on >pw resetkeys resetchannels ~socketioxide:* &socketioxide:* -@all +hello +ping +publish \
                          +subscribe +unsubscribe +xadd +xread +xrange +xinfo +xgroup|create +pexpire \
                          +set +get +time +client|id +client|unblock";
    let redis = Redis::builder()
        .user("alice", RIGHTS)
        .user("bob", &RIGHTS.replace("+xadd ", ""))
        .start()
        .unwrap();
    let alice = try_connect(&redis.url_as("alice", "pw")).await.unwrap();
    let mut inbox = alice.subscribe(&chat()).await.unwrap();
    say(&alice, 0..10).await;
    hears(&mut inbox, 0..10).await;
    let bob = try_connect(&redis.url_as("bob", "pw")).await.unwrap();
    let error = bob.publish(&chat(), "x".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(bob.link().state(), LinkState::Up);
    let log = redis.command(&["ACL", "LOG"]).unwrap();
    let Reply::Array(denied) = log else {
        panic!("{log:?}");
    };
    assert_eq!(denied.len(), 1, "{denied:?}");
}

#[tokio::test]
async fn a_key_of_another_kind_is_told_to_the_subscriber_alone() {
    let redis = Redis::start().unwrap();
    redis
        .command(&["SET", "socketioxide:ns/chat", "text"])
        .unwrap();
    let node = connect(&redis).await;
    let mut other = node.subscribe(&namespace("/other")).await.unwrap();
    let error = node.subscribe(&chat()).await.unwrap_err();
    assert!(error.to_string().contains("WRONGTYPE"), "{error}");
    node.publish(&namespace("/other"), "x".into())
        .await
        .unwrap();
    assert_eq!(next(&mut other).await, message("x"));
    assert_eq!(node.link().status().epoch, 1);
}

#[tokio::test]
async fn without_a_password_and_with_a_wrong_one_it_is_refused_at_once() {
    let redis = Redis::builder().password("open sesame").start().unwrap();
    let none = format!("redis://127.0.0.1:{}", redis.port());
    for url in [none, redis.url_as("", "s3cr3t")] {
        let error = try_connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(
            !format!("{error} {error:?}").contains("s3cr3t"),
            "{error:?}"
        );
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn by_tls_with_a_password_sessions_come_back() {
    let redis = Redis::builder()
        .append_only()
        .password("p")
        .tls()
        .start()
        .unwrap();
    let ca = redis.certificates().unwrap().ca.clone();
    let node = try_connect(&format!("{}?ca={}", redis.url(), ca.display()))
        .await
        .unwrap();
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..10).await;
    redis.kill().unwrap();
    redis.restart().unwrap();
    up(&node, 2).await;
    hears(&mut inbox, 0..10).await;
    assert_eq!(next(&mut inbox).await, unbroken(0));
    hears_nothing(&mut inbox, &node).await;
}
