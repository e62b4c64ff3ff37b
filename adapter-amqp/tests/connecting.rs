//! Logging in, and what is said when it does not work.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;

use common::*;
use socketioxide_adapter_amqp::AmqpConfig;
use socketioxide_adapter_core::{
    ErrorKind,
    backend::BackendUrl,
    transport::{Topic, Transport},
};
use socketioxide_broker_lab::RabbitMq;

const SECRET: &str = "s3cr3t";

/// The kind and the text of the error that connecting gives; it must not tell the secret.
async fn refused(url: &str) -> (ErrorKind, String) {
    let error = try_connect(url).await.map(drop).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    (error.kind(), error.to_string())
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// One server for all: a start takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_come_in_and_what_the_others_are_told() {
    let server = RabbitMq::builder().user("us@er", SECRET).start().unwrap();
    let url = server.url_as("us%40er", SECRET);
    a_wrong_password_or_virtual_host_is_told_at_once(&server, &url).await;
    a_virtual_host_is_a_cluster_of_its_own(&server, &url).await;
    permissions_for_the_prefix_are_enough(&server).await;
    one_of_several_servers_is_enough(&server).await;
}

async fn a_wrong_password_or_virtual_host_is_told_at_once(server: &RabbitMq, url: &str) {
    echoes(&try_connect(url).await.unwrap()).await;
    for wrong in [
        server.url_as("us%40er", "s3cr3tt"),
        server.url_as("guest", SECRET),
    ] {
        let (kind, text) = refused(&wrong).await;
        assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
        assert!(text.contains("wrong user name or password"), "{text}");
    }
    let (kind, text) = refused(&format!("{url}/nowhere")).await;
    assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
    assert!(text.contains("no such virtual host"), "{text}");
}

async fn a_virtual_host_is_a_cluster_of_its_own(server: &RabbitMq, url: &str) {
    server.ctl(&["add_vhost", "a/b"]).unwrap();
    let everything = ["set_permissions", "-p", "a/b", "us@er", ".*", ".*", ".*"];
    server.ctl(&everything).unwrap();
    let here = try_connect(url).await.unwrap();
    let there = try_connect(&format!("{url}/a%2Fb")).await.unwrap();
    let mut at_here = here.subscribe(&Topic::Cluster).await.unwrap();
    let mut at_there = there.subscribe(&Topic::Cluster).await.unwrap();
    delivers(&there, &Topic::Cluster, &mut at_there, "there").await;
    delivers(&here, &Topic::Cluster, &mut at_here, "here").await;
}

async fn permissions_for_the_prefix_are_enough(server: &RabbitMq) {
    server.ctl(&["add_user", "app", SECRET]).unwrap();
    let mine = r"^app\..*";
    let permissions = ["set_permissions", "app", mine, mine, mine];
    server.ctl(&permissions).unwrap();
    let url = server.url_as("app", SECRET);
    for url in [
        format!("{url}?prefix=app"),
        format!("{url}?prefix=app&queue=durable"),
    ] {
        echoes(&try_connect(&url).await.unwrap()).await;
    }
    let (kind, text) = refused(&format!("{url}?prefix=other")).await;
    assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
    assert!(text.contains("<prefix>"), "{text}");
}

async fn one_of_several_servers_is_enough(server: &RabbitMq) {
    // One that takes connections and says nothing, and one that takes none.
    let (silent, gone) = (listener(), listener());
    let [silent_at, gone_at] = [&silent, &gone].map(|it| it.local_addr().unwrap());
    drop(gone);
    let here = format!("127.0.0.1:{}", server.port());
    for hosts in [
        format!("{gone_at},{here}"),
        format!("{here},{gone_at}"),
        format!("{silent_at},{here}"),
        format!("{gone_at},{silent_at},{here}"),
    ] {
        let url = format!("amqp://us%40er:{SECRET}@{hosts}");
        echoes(&try_connect(&url).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_question_to_ask() {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    // It takes the connection and says nothing.
    let url = format!("amqp://u:{SECRET}@{address}?connect_timeout=300ms");
    let (kind, text) = refused(&url).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains(&address.to_string()), "{text}");
    assert!(text.contains("amqps:// port"), "{text}");
    drop(listener);
    let (kind, text) = refused(&url).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("is RabbitMQ running there?"), "{text}");
    let (kind, text) = refused("amqp://no-such-host.invalid?connect_timeout=300ms").await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("no-such-host.invalid:5672"), "{text}");
}

#[tokio::test]
async fn what_cannot_work_is_told_at_once() {
    let cases = [
        ("amqp://h?prefx=s3cr3t", "did you mean \"prefix\""),
        ("amqp://h?prefix=a%20b", "prefix must be"),
        ("amqp://h?prefix=amq.x", "are the broker's"),
        ("amqp://h?queue=s3cr3t", "exclusive or durable"),
        ("amqp://h?max_bytes=s3cr3t", "a number of bytes"),
        ("amqp://h?expires=5s", "\"expires\""),
        ("amqp://h?queue=durable&expires=10ms", "at least 1 second"),
        ("amqp://h?heartbeat=0s", "heartbeat must be"),
        ("amqp://h?timeout=0s", "more than 0"),
    ];
    for (url, says) in cases {
        let error = match AmqpConfig::from_url(BackendUrl::parse(url).unwrap()) {
            Err(error) => error,
            Ok(config) => config.connect().await.unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
}
