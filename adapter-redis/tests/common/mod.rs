//! What all tests against a real server need.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

pub(crate) mod load;

use std::{fmt::Debug, future::Future, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{Event, LinkState, Subscription, Topic, Transport},
};
use socketioxide_adapter_redis::{Limits, RedisConfig, RedisTransport};
use socketioxide_broker_lab::Redis;

/// No wait of a test is longer.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn config(url: &str) -> RedisConfig {
    RedisConfig::from_url(BackendUrl::parse(url).unwrap()).unwrap()
}

/// A URL, and the limits to use with it.
pub(crate) fn limited(url: &str, limits: Limits) -> RedisConfig {
    let mut config = config(url);
    config.endpoint = config.endpoint.with_limits(limits);
    config
}

pub(crate) async fn try_connect(url: &str) -> Result<RedisTransport> {
    config(url).connect().await
}

pub(crate) async fn connect(redis: &Redis) -> RedisTransport {
    try_connect(&redis.url()).await.unwrap()
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

pub(crate) async fn up(transport: &RedisTransport, epoch: u64) {
    let mut link = transport.link();
    let up = link.wait_for(|status| status.state == LinkState::Up && status.epoch >= epoch);
    assert_eq!(soon("link up", up).await.state, LinkState::Up);
}

pub(crate) async fn down(transport: &RedisTransport) {
    let mut link = transport.link();
    let down = link.wait_for(|status| status.state == LinkState::Down);
    assert_eq!(soon("link down", down).await.state, LinkState::Down);
}

/// Waits until an attempt to reconnect has failed: the server is gone, and the node knows.
pub(crate) async fn tried_in_vain(transport: &RedisTransport) {
    let mut link = transport.link();
    let refused = |reason: &str| reason.contains("connection refused");
    let tried = link.wait_for(|status| status.reason.as_deref().is_some_and(refused));
    assert_eq!(soon("an attempt", tried).await.state, LinkState::Down);
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

/// How many connections of the server have `channel`.
pub(crate) fn subscribers(redis: &Redis, channel: &str) -> i64 {
    use socketioxide_broker_lab::Reply;
    match redis.command(&["PUBSUB", "NUMSUB", channel]).unwrap() {
        Reply::Array(items) => items[1].int().unwrap(),
        other => panic!("{other:?}"),
    }
}

/// How often the server has carried out `command`.
pub(crate) fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).unwrap();
    let name = format!("cmdstat_{command}:calls=");
    let calls = stats.text().unwrap().split(&name).nth(1);
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}
