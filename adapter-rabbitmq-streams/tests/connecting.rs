//! Who may read from a stream, and what is said when it does not work.
#![allow(clippy::unwrap_used)]

#[path = "../../adapter-amqp/tests/common/mod.rs"]
mod common;

use common::*;
use socketioxide_adapter_core::{ErrorKind, backend::BackendUrl};
use socketioxide_adapter_rabbitmq_streams::{BACKEND, RabbitmqStreamsConfig, Stream};
use socketioxide_broker_lab::RabbitMq;

const SECRET: &str = "s3cr3t";

/// One server for all: a start takes seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_read_from_a_stream() {
    let server = RabbitMq::builder().streams().start().unwrap();
    permissions_for_the_prefix_are_enough(&server).await;
    a_stream_with_other_settings_is_refused(&server).await;
}

fn streams(url: &str) -> String {
    url.replace("amqp:", "amqp+streams:")
}

async fn permissions_for_the_prefix_are_enough(server: &RabbitMq) {
    server.ctl(&["add_user", "app", SECRET]).unwrap();
    let mine = r"^app\..*";
    let permissions = ["set_permissions", "app", mine, mine, mine];
    server.ctl(&permissions).unwrap();
    let url = streams(&server.url_as("app", SECRET));
    let node = try_connect_to::<Stream>(&format!("{url}?prefix=app")).await;
    echoes(&node.unwrap()).await;
    let error = try_connect_to::<Stream>(&format!("{url}?prefix=other")).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains("<prefix>"), "{error}");
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
}

async fn a_stream_with_other_settings_is_refused(server: &RabbitMq) {
    let url = format!("{}?prefix=set", streams(&server.url()));
    let _first = (BACKEND.connect)(BackendUrl::parse(&url).unwrap()).await;
    let error = try_connect_to::<Stream>(&format!("{url}&max_age=60s")).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let text = error.to_string();
    assert!(text.contains("other settings"), "{error}");
    assert!(text.starts_with("rabbitmq-streams: "), "{error}");
}

#[tokio::test]
async fn what_cannot_work_is_told_at_once() {
    let cases = [
        ("amqp+streams://h?queue=durable", "\"queue\""),
        ("amqp+streams://h?max_bytes=s3cr3t", "a number of bytes"),
        ("amqp+streams://h?max_age=0s", "at least 1 second"),
        ("amqp+streams://h?segment_bytes=0", "at least 1 byte"),
    ];
    for (url, says) in cases {
        let config = RabbitmqStreamsConfig::from_url(BackendUrl::parse(url).unwrap());
        let error = match config {
            Err(error) => error,
            Ok(config) => config.connect().await.unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
}
