//! What all tests against a real server need.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::{fmt::Debug, future::Future, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{Event, LinkState, Subscription, Topic, Transport},
};
use socketioxide_adapter_nats::{NatsConfig, NatsTransport};
use socketioxide_broker_lab::Nats;

/// No wait of a test is longer.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn config(url: &str) -> NatsConfig {
    NatsConfig::from_url(BackendUrl::parse(url).unwrap()).unwrap()
}

pub(crate) async fn try_connect(url: &str) -> Result<NatsTransport> {
    config(url).connect().await
}

pub(crate) async fn connect(nats: &Nats) -> NatsTransport {
    try_connect(&nats.url()).await.unwrap()
}

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future)
        .await
        .unwrap_or_else(|_| panic!("not within {SOON:?}: {what}"))
}

/// Polls until `condition`; for what can only be asked, not awaited.
pub(crate) async fn eventually<T: PartialEq + Debug>(expected: T, mut ask: impl FnMut() -> T) {
    soon(&format!("{expected:?}"), async {
        while ask() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn up(transport: &impl Transport, epoch: u64) {
    let mut link = transport.link();
    let up = link.wait_for(|status| status.state == LinkState::Up && status.epoch >= epoch);
    assert_eq!(soon("link up", up).await.state, LinkState::Up);
}

pub(crate) async fn down(transport: &impl Transport) {
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

pub(crate) fn namespace(path: &str) -> Topic {
    Topic::Namespace(path.to_owned().into())
}
