//! What all tests against a real server need.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::{future::Future, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_amqp::{AmqpConfig, AmqpTransport};
use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{Event, LinkState, Subscription, Topic, Transport},
};
use socketioxide_broker_lab::RabbitMq;

/// No wait of a test is longer. RabbitMQ itself takes seconds to say something while its machine is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn config(url: &str) -> AmqpConfig {
    AmqpConfig::from_url(BackendUrl::parse(url).unwrap()).unwrap()
}

pub(crate) async fn try_connect(url: &str) -> Result<AmqpTransport> {
    AmqpTransport::connect(config(url)).await
}

/// A node of the cluster `prefix`: the tests of a file share a server.
pub(crate) async fn connect(server: &RabbitMq, options: &str) -> AmqpTransport {
    try_connect(&format!("{}?{options}", server.url()))
        .await
        .unwrap()
}

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

pub(crate) async fn up(transport: &AmqpTransport, epoch: u64) {
    let mut link = transport.link();
    let up = link.wait_for(|status| status.state == LinkState::Up && status.epoch >= epoch);
    assert_eq!(soon("link up", up).await.state, LinkState::Up);
}

pub(crate) async fn down(transport: &AmqpTransport) {
    let mut link = transport.link();
    let down = link.wait_for(|status| status.state == LinkState::Down);
    assert_eq!(soon("link down", down).await.state, LinkState::Down);
}

pub(crate) async fn next(subscription: &mut Subscription) -> Event {
    soon("an event", subscription.recv()).await.unwrap()
}

pub(crate) async fn message(subscription: &mut Subscription) -> Bytes {
    match next(subscription).await {
        Event::Message(payload) => payload,
        other => panic!("expected a message, got {other:?}"),
    }
}

/// Publishes to a topic that `subscription` has, and reads it from there.
pub(crate) async fn delivers(
    transport: &AmqpTransport,
    topic: &Topic,
    subscription: &mut Subscription,
    payload: &'static str,
) {
    transport.publish(topic, payload.into()).await.unwrap();
    assert_eq!(message(subscription).await, payload);
}

pub(crate) fn namespace(path: &str) -> Topic {
    Topic::Namespace(path.to_owned().into())
}
