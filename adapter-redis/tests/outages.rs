//! What the transport does when the server, or the way to it, is gone.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::*;
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{BufferLimits, Continuity, Event, Limits, LinkState, Topic, Transport},
};
use socketioxide_adapter_redis::RedisTransport;
use socketioxide_broker_lab::{ClientKind, Redis};
use tokio::task::JoinHandle;

const RESUMED: Event = Event::Resumed(Continuity::Unknown);

/// Publishes every millisecond until the transport is closed; returns how long the longest call took.
fn publish_all_the_time(transport: &Arc<RedisTransport>) -> JoinHandle<Duration> {
    let transport = transport.clone();
    tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        loop {
            let start = Instant::now();
            let outcome = transport.publish(&namespace("/load"), "load".into()).await;
            longest = longest.max(start.elapsed());
            if outcome.is_err_and(|error| error.kind() == ErrorKind::Closed) {
                return longest;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_idle_and_busy_nodes_deliver_again_within_a_second() {
    let redis = Redis::start().unwrap();
    let idle = connect(&redis).await;
    let busy = Arc::new(connect(&redis).await);
    let load = publish_all_the_time(&busy);
    let topic = namespace("/kill");
    let mut at_idle = idle.subscribe(&topic).await.unwrap();
    let mut at_busy = busy.subscribe(&topic).await.unwrap();
    let mut waits = Vec::new();
    for round in 1..=5 {
        redis.kill().unwrap();
        down(&idle).await;
        down(&busy).await;
        let refused = idle.publish(&topic, "down".into()).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LinkDown);
        let refused = idle.subscribe(&Topic::Cluster).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LinkDown);
        tried_in_vain(&idle).await;
        tried_in_vain(&busy).await;
        redis.restart().unwrap();
        let start = Instant::now();
        up(&idle, round + 1).await;
        up(&busy, round + 1).await;
        waits.push(start.elapsed());
        assert_eq!(next(&mut at_idle).await, RESUMED);
        assert_eq!(next(&mut at_busy).await, RESUMED);
        let receipt = idle.publish(&topic, "back".into()).await.unwrap();
        assert_eq!(receipt.receivers, Some(2));
        assert_eq!(message(&mut at_idle).await, "back");
        assert_eq!(message(&mut at_busy).await, "back");
    }
    assert!(
        waits.iter().max() < Some(&Duration::from_secs(1)),
        "{waits:?}"
    );
    busy.close().await.unwrap();
    let longest = load.await.unwrap();
    assert!(longest < Duration::from_millis(2_100), "{longest:?}");
}

#[tokio::test]
async fn a_killed_connection_is_a_new_session_whichever_of_the_two_it_was() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topic = namespace("/kill");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    for (epoch, kind) in [(2, ClientKind::Pubsub), (3, ClientKind::Normal)] {
        assert!(redis.kill_clients(kind).unwrap() >= 1);
        up(&transport, epoch).await;
        assert_eq!(next(&mut subscription).await, RESUMED);
        transport.publish(&topic, "back".into()).await.unwrap();
        assert_eq!(message(&mut subscription).await, "back");
    }
    // The old connections are gone, and the session has two.
    let clients = redis
        .command(&["CLIENT", "LIST", "TYPE", "pubsub"])
        .unwrap();
    assert_eq!(clients.text().unwrap().lines().count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_is_noticed_and_no_call_outlives_its_deadline() {
    let redis = Redis::start().unwrap();
    let transport = Arc::new(connect(&redis).await);
    let idle = connect(&redis).await;
    let topic = namespace("/freeze");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let load = publish_all_the_time(&transport);
    redis.freeze().unwrap();
    let frozen = Instant::now();
    let (publish, subscribe) = (
        transport.publish(&topic, "lost?".into()),
        transport.subscribe(&Topic::Cluster),
    );
    let (published, subscribed) = tokio::join!(publish, subscribe);
    let took = frozen.elapsed();
    assert!(took < Duration::from_millis(2_200), "{took:?}");
    // By its own deadline, or because the unanswered SUBSCRIBE has just ended the session.
    for kind in [
        published.unwrap_err().kind(),
        subscribed.unwrap_err().kind(),
    ] {
        assert!(
            matches!(kind, ErrorKind::Timeout | ErrorKind::Interrupted),
            "{kind:?}"
        );
    }
    down(&transport).await;
    down(&idle).await;
    let noticed = frozen.elapsed();
    assert!(noticed < Duration::from_millis(2_800), "{noticed:?}");
    redis.thaw().unwrap();
    up(&transport, 2).await;
    loop {
        // What was published before the link went down may still arrive from the frozen server's buffers, but only on the
        // old connection: nothing of it is seen after the resumption.
        match next(&mut subscription).await {
            RESUMED => break,
            event => assert_eq!(event, Event::Message("lost?".into())),
        }
    }
    transport.publish(&topic, "back".into()).await.unwrap();
    assert_eq!(message(&mut subscription).await, "back");
    transport.close().await.unwrap();
    let longest = load.await.unwrap();
    assert!(longest < Duration::from_millis(2_200), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_of_three_seconds_is_a_new_session_and_no_call_is_late() {
    let redis = Redis::start().unwrap();
    let transport = Arc::new(connect(&redis).await);
    let topic = namespace("/three");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    let load = publish_all_the_time(&transport);
    redis.freeze().unwrap();
    let thawed = Instant::now() + Duration::from_secs(3);
    let mut longest = Duration::ZERO;
    let mut calls = tokio::time::interval(Duration::from_millis(10));
    while Instant::now() < thawed {
        calls.tick().await;
        let start = Instant::now();
        let error = transport.subscribe(&Topic::Cluster).await.unwrap_err();
        longest = longest.max(start.elapsed());
        assert!(
            matches!(
                error.kind(),
                ErrorKind::Timeout | ErrorKind::Interrupted | ErrorKind::LinkDown
            ),
            "{error}"
        );
    }
    assert_ne!(transport.link().state(), LinkState::Up);
    redis.thaw().unwrap();
    up(&transport, 2).await;
    assert_eq!(next(&mut subscription).await, RESUMED);
    let receipt = transport.publish(&topic, "back".into()).await.unwrap();
    assert_eq!(receipt.receivers, Some(1));
    assert_eq!(message(&mut subscription).await, "back");
    assert_eq!(transport.link().status().epoch, 2);
    transport.close().await.unwrap();
    let longest = longest.max(load.await.unwrap());
    assert!(longest < Duration::from_millis(2_200), "{longest:?}");
}

#[tokio::test]
async fn a_short_freeze_is_survived_without_a_new_session() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topic = namespace("/nap");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    redis.freeze().unwrap();
    let mut publish = transport.publish(&topic, "slow".into());
    let early = tokio::time::timeout(Duration::from_secs(1), &mut publish).await;
    assert!(early.is_err(), "{early:?}");
    redis.thaw().unwrap();
    let receipt = soon("a receipt", publish).await;
    assert_eq!(receipt.unwrap().receivers, Some(1));
    assert_eq!(message(&mut subscription).await, "slow");
    assert_eq!(transport.link().status().epoch, 1);
}

#[tokio::test]
async fn a_process_that_stood_still_does_not_blame_the_server() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    // The only thread of the runtime: neither timers nor sockets are looked at.
    std::thread::sleep(Duration::from_secs(4));
    // The server is asked for a sign of life at each tick: after six of them, the standstill is past.
    let asked = calls(&redis, "hello");
    eventually(true, || calls(&redis, "hello") >= asked + 6).await;
    assert_eq!(transport.link().status().epoch, 1);
    assert_eq!(transport.link().state(), LinkState::Up);
}

#[tokio::test]
async fn a_subscriber_that_the_server_cut_off_for_its_backlog_is_told() {
    let redis = Redis::builder()
        .config("client-output-buffer-limit pubsub 1mb 512kb 1")
        .start()
        .unwrap();
    // Room for all of the flood, so that what is missing is missing at the server.
    let roomy = limited(
        &redis.url(),
        Limits::default().with_subscription_buffer(BufferLimits::new(10_000, 64 << 20)),
    );
    let transport = roomy.connect().await.unwrap();
    let publisher = connect(&redis).await;
    let topic = namespace("/flood");
    let mut subscription = transport.subscribe(&topic).await.unwrap();
    // The server runs a script in one go, faster than anybody could read: this overruns any reader.
    let script = "for i = 1, 2000 do redis.call('publish', KEYS[1], string.rep('x', 10000)) end";
    redis
        .command(&["EVAL", script, "1", "socketioxide:ns/flood"])
        .unwrap();
    up(&transport, 2).await;
    publisher.publish(&topic, "after".into()).await.unwrap();
    let mut resumed = false;
    loop {
        match next(&mut subscription).await {
            Event::Message(payload) if payload == "after" => break,
            Event::Message(payload) => assert_eq!(payload.len(), 10_000),
            event => {
                assert_eq!(event, RESUMED);
                resumed = true;
            }
        }
    }
    assert!(resumed);
    assert_eq!(publisher.link().status().epoch, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_busy_with_a_script_refuses_publishes_and_keeps_its_session() {
    let redis = Arc::new(
        Redis::builder()
            .config("lua-time-limit 50")
            .start()
            .unwrap(),
    );
    let transport = connect(&redis).await;
    let script = tokio::task::spawn_blocking({
        let redis = redis.clone();
        move || redis.command(&["EVAL", "while true do end", "0"])
    });
    let busy = async {
        loop {
            let outcome = transport.publish(&Topic::Cluster, "x".into()).await;
            if let Err(error) = outcome {
                break error;
            }
        }
    };
    let error = soon("a refusal", busy).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("busy with a script"), "{error}");
    // For longer than it takes to give up a session that gets no answer.
    let long = Instant::now() + Duration::from_secs(3);
    let mut calls = tokio::time::interval(Duration::from_millis(10));
    while Instant::now() < long {
        calls.tick().await;
        let refused = transport.publish(&Topic::Cluster, "x".into()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(transport.link().state(), LinkState::Up);
    }
    redis.command(&["SCRIPT", "KILL"]).unwrap();
    assert!(script.await.unwrap().is_err());
    transport
        .publish(&Topic::Cluster, "x".into())
        .await
        .unwrap();
    assert_eq!(transport.link().status().epoch, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_still_loading_its_data_serves_already() {
    // 1,000 keys that take 4 ms each; the server looks at its clients after each 2 MiB, which is forty of them.
    let redis = Redis::builder()
        .config("key-load-delay 4000")
        .config("rdbcompression no")
        .start()
        .unwrap();
    let redis = Arc::new(redis);
    let fill = "for i = 1, 1000 do redis.call('set', i, string.rep('x', 50000)) end";
    redis.command(&["EVAL", fill, "0"]).unwrap();
    redis.command(&["SAVE"]).unwrap();
    let transport = connect(&redis).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    redis.kill().unwrap();
    down(&transport).await;
    let loaded = tokio::task::spawn_blocking({
        let redis = redis.clone();
        move || redis.restart()
    });
    up(&transport, 2).await;
    transport
        .publish(&Topic::Cluster, "x".into())
        .await
        .unwrap();
    assert_eq!(next(&mut subscription).await, RESUMED);
    assert_eq!(message(&mut subscription).await, "x");
    assert!(
        !loaded.is_finished(),
        "the data was loaded before anything was tried"
    );
    loaded.await.unwrap().unwrap();
    assert_eq!(transport.link().status().epoch, 2);
}

#[tokio::test]
async fn a_primary_that_is_demoted_is_left_until_it_is_one_again() {
    let (redis, other) = (Redis::start().unwrap(), Redis::start().unwrap());
    let transport = connect(&redis).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    // It cuts no connection and goes on to take publishes, which reach nobody at the new primary.
    let port = other.port().to_string();
    redis.command(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    let demoted = Instant::now();
    down(&transport).await;
    assert!(demoted.elapsed() < Duration::from_secs(2));
    let mut link = transport.link();
    let refused = link.wait_for(|status| {
        let reason = status.reason.as_deref().unwrap_or_default();
        reason.contains("a read-only replica, connect to its primary")
    });
    assert_eq!(soon("the reason", refused).await.state, LinkState::Down);
    redis.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    up(&transport, 2).await;
    assert_eq!(next(&mut subscription).await, RESUMED);
    transport
        .publish(&Topic::Cluster, "back".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "back");
}

#[tokio::test]
async fn a_session_that_a_watcher_suspects_is_replaced() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    transport.link().suspect();
    up(&transport, 2).await;
    assert_eq!(next(&mut subscription).await, RESUMED);
    transport
        .publish(&Topic::Cluster, "new".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "new");
}

#[tokio::test]
async fn calls_that_wait_when_the_link_is_lost_end_at_once() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    redis.freeze().unwrap();
    let start = Instant::now();
    let mut publish = transport.publish(&Topic::Cluster, "x".into());
    let mut subscribe = transport.subscribe(&Topic::Cluster);
    assert!(futures_util::poll!(&mut publish).is_pending());
    assert!(futures_util::poll!(&mut subscribe).is_pending());
    redis.kill().unwrap();
    let (published, subscribed) = tokio::join!(publish, subscribe);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(published.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(subscribed.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[tokio::test]
async fn a_thousand_subscriptions_come_back_together() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    let topics: Vec<Topic> = (0..1_000).map(|n| namespace(&format!("/{n}"))).collect();
    let subscribing = topics.iter().map(|topic| transport.subscribe(topic));
    let mut subscriptions = futures_util::future::try_join_all(subscribing)
        .await
        .unwrap();
    redis.kill().unwrap();
    redis.restart().unwrap();
    up(&transport, 2).await;
    for (topic, subscription) in topics.iter().zip(&mut subscriptions) {
        assert_eq!(next(subscription).await, RESUMED);
        let receipt = transport.publish(topic, "x".into()).await.unwrap();
        assert_eq!(receipt.receivers, Some(1));
        assert_eq!(message(subscription).await, "x");
    }
}
