//! Ways to connect, and what is said when it does not work.
#![allow(clippy::unwrap_used)]

mod common;

use std::{net::TcpListener, time::Duration};

use common::*;
use socketioxide_adapter_core::{
    Error, ErrorKind,
    backend::{BackendUrl, Registry},
    transport::{BufferLimits, Event, LinkState, Topic, Transport},
};
use socketioxide_adapter_redis::{Address, BACKEND, Endpoint, Limits, RedisConfig, RedisTransport};
use socketioxide_broker_lab::{ClientKind, Redis};

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
    let address = config.endpoint.at();
    let error = soon("a refusal", config.connect()).await;
    let error: Error = error.map(drop).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("redis: connect: "), "{text}");
    assert!(text.contains(&address) && !text.contains('\n'), "{text}");
    assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    (error.kind(), text)
}

fn soonish(url: &str) -> RedisConfig {
    limited(
        url,
        Limits::default().with_connect_timeout(Duration::from_millis(500)),
    )
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
        .user(
            "al@ice",
            "on >s3cr3t/ resetchannels &socketioxide:* +hello +publish +subscribe +unsubscribe",
        )
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
        {
            // Nobody is there: the first attempt is accepted and let down.
            let nobody = tokio::net::TcpListener::bind(("127.0.0.1", redis.port())).await;
            soon("an attempt", nobody.unwrap().accept()).await.unwrap();
        }
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
async fn a_replica_is_refused_until_it_is_promoted() {
    let primary = Redis::start().unwrap();
    let replica = Redis::builder()
        .config(format!("replicaof 127.0.0.1 {}", primary.port()))
        .start()
        .unwrap();
    let (kind, text) = refused(soonish(&replica.url())).await;
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(
        text.contains("a read-only replica, connect to its primary"),
        "{text}"
    );
    let promotion = async {
        // One attempt logs in twice and asks once. The next one means that the first was refused.
        let asked = calls(&replica, "hello");
        eventually(true, || calls(&replica, "hello") > asked + 3).await;
        replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    };
    let (transport, ()) = tokio::join!(connect(&replica), promotion);
    works(&transport).await;
}

#[tokio::test]
async fn a_replica_in_a_cluster_passes_on_what_is_published() {
    let node = || {
        let node = Redis::builder().config("cluster-enabled yes");
        let node = node.config("cluster-node-timeout 2000");
        node.start().unwrap()
    };
    let (primary, replica) = (node(), node());
    let id = primary.command(&["CLUSTER", "MYID"]).unwrap();
    let id = id.text().unwrap();
    let slots: Vec<String> = (0..16_384).map(|slot| slot.to_string()).collect();
    let slots = slots.iter().map(String::as_str);
    let add: Vec<&str> = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots).collect();
    primary.command(&add).unwrap();
    let port = primary.port().to_string();
    replica
        .command(&["CLUSTER", "MEET", "127.0.0.1", &port])
        .unwrap();
    // Refused until the two have met.
    eventually(true, || {
        replica.command(&["CLUSTER", "REPLICATE", id]).is_ok()
    })
    .await;
    // A node drops what comes from one that it does not know yet.
    eventually(true, || {
        let nodes = primary.command(&["CLUSTER", "NODES"]).unwrap();
        nodes.text().unwrap().contains(" slave ")
    })
    .await;
    let here = connect(&primary).await;
    let there = connect(&replica).await;
    let mut subscription = here.subscribe(&Topic::Cluster).await.unwrap();
    there.publish(&Topic::Cluster, "all".into()).await.unwrap();
    assert_eq!(message(&mut subscription).await, "all");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_mistake_in_the_url() {
    let redis = Redis::start().unwrap();
    let (kind, text) = refused(config(&format!("{}/99", redis.url()))).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(text.contains("no such database"), "{text}");
}

#[tokio::test]
async fn rights_that_are_taken_away_are_waited_for() {
    let redis = Redis::builder()
        .user("alice", "on >s3cr3t &* +@all")
        .start()
        .unwrap();
    let transport = try_connect(&redis.url_as("alice", SECRET)).await.unwrap();
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    let cases = [
        (["resetchannels"], ["allchannels"], "forbidden by the ACL"),
        (["resetpass"], [">s3cr3t"], "wrong user name or password"),
    ];
    for (epoch, (take, give, reason)) in (2..).zip(cases) {
        let set = |rule: [&str; 1]| {
            redis
                .command(&["ACL", "SETUSER", "alice", rule[0]])
                .unwrap()
        };
        set(take);
        let _ = redis.kill_clients(ClientKind::Pubsub);
        let mut link = transport.link();
        let refused = link.wait_for(|status| {
            let text = status.reason.as_deref().unwrap_or_default();
            status.state == LinkState::Down && text.contains(reason)
        });
        let status = soon(reason, refused).await;
        assert!(!format!("{status:?}").contains(SECRET), "{status:?}");
        set(give);
        up(&transport, epoch).await;
        assert!(matches!(next(&mut subscription).await, Event::Resumed(_)));
    }
    transport
        .publish(&Topic::Cluster, "back".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "back");
}

#[tokio::test]
async fn a_server_that_repeats_the_password_does_not_get_it_into_an_error() {
    let answers = [
        (
            "ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `default`, `s3cr3t`",
            ErrorKind::Config,
        ),
        ("ERR s3cr3t is not the password", ErrorKind::Unavailable),
        ("S3CR3T s3cr3t", ErrorKind::Unavailable),
        ("WRONGPASS s3cr3t", ErrorKind::Unauthorized),
    ];
    for (answer, expected) in answers {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://:{SECRET}@{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(format!("-{answer}\r\n").as_bytes()).await;
            }
        });
        let (kind, _) = refused(soonish(&url)).await;
        assert_eq!(kind, expected, "{answer}");
        server.abort();
    }
}

#[tokio::test]
async fn the_password_is_in_no_text() {
    let redis = Redis::builder().password(SECRET).start().unwrap();
    let transport = connect(&redis).await;
    let mut texts = vec![format!("{transport:?}"), format!("{:?}", transport.link())];
    let urls = [
        "redis://alice:s3cr3t@h/0",
        "rediss://alice:s3cr3t@h?ca=/nowhere",
        "redis+unix:///s?user=alice&password=s3cr3t",
    ];
    for url in urls {
        let config = config(url);
        texts.push(format!(
            "{config:?} {:?} {:?}",
            config.endpoint, config.endpoint.servers
        ));
        assert_eq!(config.endpoint.password.as_deref(), Some(SECRET));
    }
    let bad = [
        "redis://:s3cr3t@",
        "redis://:s3cr3t@h/s3cr3t",
        "redis://:s3cr3t@h?timeout=s3cr3t",
        "redis://:s3cr3t@h?password=s3cr3t",
        "redis+unix://alice:s3cr3t@/s",
        "redis+unix:///s?db=s3cr3t&password=s3cr3t",
    ];
    for url in bad {
        let error = BackendUrl::parse(url).and_then(RedisConfig::from_url);
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}");
        texts.push(format!("{error} {error:?}"));
    }
    for text in texts {
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_before_anything_is_sent() {
    let tcp = || Endpoint::new(Address::new("127.0.0.1", 1));
    let bad = [
        (tcp().with_server(Address::new("h", 1)), "one server"),
        (tcp().with_prefix(""), "prefix"),
        (tcp().with_prefix("a/b"), "prefix"),
        (tcp().with_prefix("a".repeat(65)), "prefix"),
        (
            tcp().with_limits(Limits::default().with_timeout(Duration::ZERO)),
            "timeout",
        ),
        (
            tcp().with_limits(Limits::default().with_connect_timeout(Duration::ZERO)),
            "timeout",
        ),
        (
            tcp().with_limits(Limits::default().with_max_payload(0)),
            "max_payload",
        ),
        (
            tcp().with_limits(Limits::default().with_max_payload(600 << 20)),
            "max_payload",
        ),
        (
            tcp().with_limits(Limits::default().with_publish_buffer(BufferLimits::new(0, 1))),
            "publish_buffer",
        ),
        (
            tcp().with_limits(Limits::default().with_publish_buffer(BufferLimits::new(20_000, 1))),
            "publish_buffer",
        ),
    ];
    for (endpoint, named) in bad {
        let error = RedisConfig::new(endpoint).connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(named), "{error}");
    }
    let several = BackendUrl::parse("redis://a,b").and_then(RedisConfig::from_url);
    assert_eq!(several.unwrap_err().kind(), ErrorKind::Config);
    let error = try_connect("redis://alice@127.0.0.1").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "redis: config: a user name needs a password"
    );
}
