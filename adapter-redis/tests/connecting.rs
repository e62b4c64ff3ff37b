//! Ways to connect, and what is said when it does not work.
#![allow(clippy::unwrap_used)]

mod common;

use std::{net::TcpListener, time::Duration};

use common::*;
use socketioxide_adapter_core::{
    Error, ErrorKind,
    backend::Registry,
    transport::{LinkState, Topic, Transport},
};
use socketioxide_adapter_redis::{Address, BACKEND, RedisConfig, RedisTransport};
use socketioxide_broker_lab::Redis;

const SECRET: &str = "s3cr3t";

/// Publishes to itself.
async fn works(transport: &RedisTransport) {
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    transport
        .publish(&Topic::Cluster, "ping".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "ping");
}

/// The error of a connect, which must be one line, name the server and keep the secret.
async fn refused(config: RedisConfig) -> (ErrorKind, String) {
    let address = config.address.to_string();
    let error = soon("a refusal", RedisTransport::connect(config)).await;
    let error: Error = error.map(drop).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("redis: connect: "), "{text}");
    assert!(text.contains(&address) && !text.contains('\n'), "{text}");
    assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    (error.kind(), text)
}

fn soonish(url: &str) -> RedisConfig {
    config(url).with_connect_timeout(Duration::from_millis(500))
}

#[tokio::test]
async fn the_registry_connects_by_url() {
    let redis = Redis::start().unwrap();
    let registry = Registry::new().with(BACKEND);
    let transport = registry.connect(&redis.url()).await.unwrap();
    assert_eq!(
        (transport.name(), transport.link().state()),
        ("redis", LinkState::Up)
    );
    let valkey = redis.url().replace("redis://", "valkey://");
    assert!(registry.connect(&valkey).await.is_ok());
    let error = registry.connect(&format!("{}?prefx=x", redis.url())).await;
    let error = error.map(drop).unwrap_err().to_string();
    assert!(error.contains("did you mean \"prefix\""), "{error}");
}

#[tokio::test]
async fn a_unix_socket_with_password_and_database() {
    let redis = Redis::builder().password("p/w").start().unwrap();
    let url = format!(
        "redis+unix://{}?password=p%2Fw&db=2",
        redis.socket().display()
    );
    works(&try_connect(&url).await.unwrap()).await;
}

#[tokio::test]
async fn users_and_passwords_are_used_and_wrong_ones_are_fatal() {
    let redis = Redis::builder()
        .password("open sesame")
        .user("al@ice", "on >s3cr3t/ resetchannels &socketioxide:* +hello +ping +publish +subscribe +unsubscribe")
        .start()
        .unwrap();
    works(
        &try_connect(&redis.url_as("", "open%20sesame"))
            .await
            .unwrap(),
    )
    .await;
    works(
        &try_connect(&redis.url_as("al%40ice", "s3cr3t%2f"))
            .await
            .unwrap(),
    )
    .await;
    let start = std::time::Instant::now();
    let (kind, text) = refused(config(&redis.url_as("al%40ice", SECRET))).await;
    assert_eq!(kind, ErrorKind::Unauthorized);
    assert!(text.contains("wrong user name or password"), "{text}");
    let (kind, text) = refused(config(&format!("redis://127.0.0.1:{}", redis.port()))).await;
    assert_eq!(kind, ErrorKind::Unauthorized);
    assert!(text.contains("a password is required"), "{text}");
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "fatal is not retried"
    );
}

#[tokio::test]
async fn a_forbidden_channel_is_refused_alone() {
    let redis = Redis::builder()
        .user(
            "alice",
            "on >s3cr3t resetchannels &socketioxide:ns/yes* +@all",
        )
        .start()
        .unwrap();
    let transport = try_connect(&redis.url_as("alice", SECRET)).await.unwrap();
    let (yes, no) = (namespace("/yes"), namespace("/no"));
    // Asked for together, they are refused together, and the allowed ones must not suffer.
    let (first, second, third) = tokio::join!(
        transport.subscribe(&yes),
        transport.subscribe(&no),
        transport.publish(&no, "x".into())
    );
    for error in [second.unwrap_err(), third.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(error.to_string().contains("&<prefix>:*"), "{error}");
    }
    transport.publish(&yes, "ok".into()).await.unwrap();
    assert_eq!(message(&mut first.unwrap()).await, "ok");
    assert_eq!(transport.link().status().epoch, 1);
}

#[tokio::test]
async fn an_unreachable_server_is_named_with_the_reason() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (kind, text) = refused(soonish(&format!("redis://:{SECRET}@{closed}"))).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert_eq!(
        text,
        format!(
            "redis: connect: {closed}: connection refused, is Redis running there? (gave up after 500ms)"
        )
    );
    let (_, text) = refused(soonish("redis+unix:///nowhere/redis.sock")).await;
    assert!(
        text.contains("/nowhere/redis.sock: connection refused"),
        "{text}"
    );
    let (_, text) = refused(soonish("redis://no-such-host.invalid")).await;
    assert!(text.contains("no-such-host.invalid:6379"), "{text}");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_connect_timeout_and_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let start = std::time::Instant::now();
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let (kind, text) = refused(soonish(&url)).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(text.contains("no answer within 500ms"), "{text}");
    assert!(start.elapsed() < Duration::from_millis(800));
    assert_eq!(tasks(), before, "nothing is left running");
}

#[tokio::test]
async fn what_is_not_redis_is_said_to_be_something_else() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let web = tokio::spawn(async move {
        loop {
            use tokio::io::AsyncWriteExt;
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (kind, text) = refused(soonish(&url)).await;
    assert_eq!(kind, ErrorKind::Protocol);
    assert!(text.contains("is not Redis"), "{text}");
    web.abort();
}

#[tokio::test]
async fn a_server_that_starts_late_is_waited_for() {
    let redis = Redis::start().unwrap();
    redis.stop().unwrap();
    let starting = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        redis.restart().unwrap();
    };
    let (transport, ()) = tokio::join!(connect(&redis), starting);
    works(&transport).await;
}

#[tokio::test]
async fn a_server_with_too_many_clients_is_told_apart_from_a_dead_one() {
    let redis = Redis::builder().config("maxclients 3").start().unwrap();
    let _two = connect(&redis).await;
    let (kind, text) = refused(soonish(&redis.url())).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(text.contains("maxclients"), "{text}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_mistake_in_the_url() {
    let redis = Redis::start().unwrap();
    let (kind, text) = refused(config(&format!("{}/99", redis.url()))).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(text.contains("no such database"), "{text}");
}

#[tokio::test]
async fn a_password_change_is_survived_once_it_is_taken_back() {
    let redis = Redis::start().unwrap();
    let transport = connect(&redis).await;
    redis
        .command(&["CONFIG", "SET", "requirepass", SECRET])
        .unwrap();
    // The lab itself must log in now, so the connections are cut by the one command that needs no answer.
    redis.kill().unwrap();
    redis.restart().unwrap();
    up(&transport, 2).await;
    works(&transport).await;
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_before_anything_is_sent() {
    let tcp = || {
        RedisConfig::new(Address::Tcp {
            host: "127.0.0.1".into(),
            port: 1,
        })
    };
    let bad = [
        (tcp().with_prefix(""), "prefix"),
        (tcp().with_prefix("a/b"), "prefix"),
        (tcp().with_prefix("a".repeat(65)), "prefix"),
        (tcp().with_timeout(Duration::ZERO), "timeout"),
        (tcp().with_connect_timeout(Duration::ZERO), "timeout"),
        (tcp().with_max_payload(0), "max_payload"),
        (tcp().with_max_payload(600 << 20), "max_payload"),
    ];
    for (config, named) in bad {
        let error = RedisTransport::connect(config).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(named), "{error}");
    }
    let error = try_connect("redis://alice@127.0.0.1").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "redis: config: a user name needs a password"
    );
}
