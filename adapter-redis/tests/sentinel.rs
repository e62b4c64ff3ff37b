//! `redis+sentinel://`: the primary that the sentinels know, and what happens when it is another one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::{sync::Arc, time::Instant};

use common::{load::Load, *};
use socketioxide_adapter_core::{
    ErrorKind,
    backend::{BackendUrl, Registry},
    transport::{Continuity, Event, LinkState, Topic, Transport},
};
use socketioxide_adapter_redis::{BACKEND, RedisConfig, RootCa};
use socketioxide_broker_lab::{Redis, RedisSentinel};

const RESUMED: Event = Event::Resumed(Continuity::Unknown);

async fn works(transport: &dyn Transport) {
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    transport
        .publish(&Topic::Cluster, "ping".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "ping");
}

/// How many clients have subscribed to the topic of the cluster.
fn listeners(redis: &Redis) -> i64 {
    subscribers(redis, "socketioxide:cluster")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_primaries_are_followed_under_load_and_no_loss_is_silent() {
    let set = RedisSentinel::start().unwrap();
    let publisher = Arc::new(try_connect(&set.url()).await.unwrap());
    let receiver = try_connect(&set.url()).await.unwrap();
    let load = Load::start(&publisher, &receiver, &namespace("/load")).await;
    let mut waits = Vec::new();
    for round in 1..=3 {
        load.goes_on(200).await;
        let killed = Instant::now();
        tokio::task::block_in_place(|| set.kill_primary().unwrap());
        let promoted = killed.elapsed();
        up(&publisher, round + 1).await;
        up(&receiver, round + 1).await;
        load.goes_on(1).await;
        waits.push((promoted, killed.elapsed()));
        tokio::task::block_in_place(|| set.heal().unwrap());
    }
    println!("promoted, delivered again after: {waits:?}");
    println!("{}", load.balances().await);
    for (promoted, delivered) in waits {
        let late = delivered.saturating_sub(promoted);
        assert!(late.as_millis() < 2_000, "{late:?} after the fail-over");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_that_is_asked_for_moves_everybody_to_the_new_primary() {
    let set = RedisSentinel::start().unwrap();
    let (one, two) = (
        try_connect(&set.url()).await.unwrap(),
        try_connect(&set.url()).await.unwrap(),
    );
    let mut at_one = one.subscribe(&Topic::Cluster).await.unwrap();
    let mut at_two = two.subscribe(&Topic::Cluster).await.unwrap();
    let old = set.primary().unwrap();
    let asked = Instant::now();
    tokio::task::block_in_place(|| set.fail_over().unwrap());
    for (transport, subscription) in [(&one, &mut at_one), (&two, &mut at_two)] {
        up(transport, 2).await;
        assert_eq!(next(subscription).await, RESUMED);
    }
    let new = set.primary().unwrap();
    assert_ne!(new.port(), old.port());
    // Whoever came back to the old one for a moment leaves it again.
    eventually(2, || listeners(new)).await;
    println!("everybody moved after {:?}", asked.elapsed());
    let receipt = one.publish(&Topic::Cluster, "moved".into()).await.unwrap();
    assert_eq!(receipt.receivers, Some(2));
    for mut subscription in [at_one, at_two] {
        while next(&mut subscription).await != Event::Message("moved".into()) {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_does_not_know_it_is_left() {
    let set = RedisSentinel::start().unwrap();
    let transport = try_connect(&set.url()).await.unwrap();
    let old = set.primary().unwrap();
    // As if it were cut off from the sentinels: it stays a primary and keeps its clients.
    old.command(&["ACL", "SETUSER", "default", "-replicaof", "-slaveof"])
        .unwrap();
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    tokio::task::block_in_place(|| set.fail_over().unwrap());
    eventually(1, || listeners(set.primary().unwrap())).await;
    assert_eq!(listeners(old), 0);
    let role = old.command(&["ROLE"]).unwrap();
    assert_eq!(role.items().unwrap()[0].text(), Some("master"));
    up(&transport, 2).await;
    assert_eq!(next(&mut subscription).await, RESUMED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_primary_that_comes_back_gets_no_new_clients() {
    let set = RedisSentinel::start().unwrap();
    let old = set.primary().unwrap();
    tokio::task::block_in_place(|| set.kill_primary().unwrap());
    // For seconds it takes itself for the primary.
    old.restart().unwrap();
    let transport = try_connect(&set.url()).await.unwrap();
    let _subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    assert_eq!((listeners(set.primary().unwrap()), listeners(old)), (1, 0));
}

#[tokio::test]
async fn sentinels_that_are_down_or_frozen_are_passed_over() {
    let set = RedisSentinel::start().unwrap();
    let [first, second, _] = set.sentinels() else {
        panic!("three sentinels");
    };
    let primary = set.primary().unwrap();
    first.kill().unwrap();
    second.freeze().unwrap();
    let transport = Registry::new()
        .with(BACKEND)
        .connect(&set.url())
        .await
        .unwrap();
    works(&*transport).await;
    // Nor does a session end because its sentinels are away.
    set.sentinels()[2].kill().unwrap();
    let asked = calls(primary, "hello");
    eventually(true, || calls(primary, "hello") >= asked + 10).await;
    assert_eq!(
        (transport.link().state(), transport.link().status().epoch),
        (LinkState::Up, 1)
    );
}

#[tokio::test]
async fn servers_and_sentinels_have_passwords_of_their_own() {
    let set = RedisSentinel::builder()
        .password("s3rver")
        .sentinel_password("s3ntinel")
        .start()
        .unwrap();
    let url = |server, sentinel| {
        format!(
            "{}?password={server}&sentinel_password={sentinel}",
            set.url()
        )
    };
    works(&try_connect(&url("s3rver", "s3ntinel")).await.unwrap()).await;
    for (server, sentinel) in [("s3rver", "wr0ng"), ("wr0ng", "s3ntinel")] {
        let error = try_connect(&url(server, sentinel)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(!error.to_string().contains("wr0ng"), "{error}");
    }
}

#[tokio::test]
async fn users_of_the_sentinels_need_one_command() {
    let set = RedisSentinel::start().unwrap();
    for sentinel in set.sentinels() {
        let rules = ["ACL", "SETUSER", "ask", "on", ">s3ntinel", "+hello"];
        let rules = [&rules[..], &["+sentinel|get-master-addr-by-name"]].concat();
        sentinel.command(&rules).unwrap();
    }
    let url = format!("{}?sentinel_user=ask&sentinel_password=s3ntinel", set.url());
    works(&try_connect(&url).await.unwrap()).await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn with_tls_nothing_is_in_plain_text() {
    let set = RedisSentinel::builder().tls().start().unwrap();
    assert!(set.url().starts_with("rediss+sentinel://"));
    let ca = set.certificates().unwrap().ca.display();
    works(
        &try_connect(&format!("{}?ca={ca}", set.url()))
            .await
            .unwrap(),
    )
    .await;
    let error = try_connect(&set.url()).await.unwrap_err();
    assert!(error.to_string().contains("option \"ca\""), "{error}");
}

#[tokio::test]
async fn what_is_wrong_is_named() {
    let set = RedisSentinel::start().unwrap();
    let error = try_connect(&set.url().replace("lab@", "main@"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("knows no primary \"main\""),
        "{error}"
    );
    for sentinel in set.sentinels() {
        sentinel.kill().unwrap();
    }
    let url = format!("{}?connect_timeout=300ms", set.url());
    let error = try_connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[test]
fn a_url_names_the_primary_and_the_sentinels() {
    let url = "rediss+sentinel://main@a,b:1,[::1]:2?user=u&password=p&db=3&sentinel_user=v&sentinel_password=q";
    let read = config(url);
    assert_eq!(read.endpoint.at(), "a:26379,b:1,[::1]:2");
    assert_eq!(read.endpoint.tls, Some(RootCa::System));
    assert_eq!(
        (
            read.endpoint.username.as_deref(),
            read.endpoint.password.as_deref(),
            read.database
        ),
        (Some("u"), Some("p"), 3)
    );
    assert_eq!(format!("{:?}", read.topology), "sentinels of \"main\"");
    for secret in ["\"p\"", "\"q\""] {
        assert!(!format!("{read:?}").contains(secret), "{read:?}");
    }
    let bad = [
        "redis+sentinel://a,b",
        "redis+sentinel://main:s3cr3t@a",
        "redis+sentinel://main@a/3",
        "redis+sentinel://main@",
    ];
    for url in bad {
        let error = BackendUrl::parse(url)
            .and_then(RedisConfig::from_url)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        assert!(!error.to_string().contains("s3cr3t"), "{error}");
    }
}
