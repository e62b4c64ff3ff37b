//! What all tests against a real server need.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::{fmt::Debug, future::Future, net::Ipv4Addr, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_conformance::proxy::Proxy;
use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{Continuity, Event, LinkState, LossCause, Subscription, Topic, Transport},
};
use socketioxide_adapter_redis_streams::{RedisStreamsTransport, StreamsConfig};
use socketioxide_broker_lab::Redis;

/// No wait of a test is longer.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The key of the log of [`chat`].
pub(crate) const KEY: &str = "socketioxide:ns/chat";

pub(crate) const RESET: Event = Event::Resumed(Continuity::Lost {
    count: None,
    cause: LossCause::Reset,
});

/// A server that writes its logs to disk.
pub(crate) fn durable() -> Redis {
    Redis::builder().append_only().start().unwrap()
}

pub(crate) fn config(url: &str) -> StreamsConfig {
    let url = url.replacen("://", "+streams://", 1);
    StreamsConfig::from_url(BackendUrl::parse(&url).unwrap()).unwrap()
}

/// Connects by a URL like `redis://…`.
pub(crate) async fn try_connect(url: &str) -> Result<RedisStreamsTransport> {
    config(url).connect().await
}

pub(crate) async fn connect(redis: &Redis) -> RedisStreamsTransport {
    try_connect(&redis.url()).await.unwrap()
}

/// Connects with a proxy in the way, which can cut this node off alone.
pub(crate) async fn connect_gated(redis: &Redis, options: &str) -> (RedisStreamsTransport, Proxy) {
    let server = (Ipv4Addr::LOCALHOST, redis.port()).into();
    let proxy = Proxy::start(server, 0).await.unwrap();
    let url = format!("redis://{}{options}", proxy.address());
    (try_connect(&url).await.unwrap(), proxy)
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

pub(crate) async fn up(transport: &RedisStreamsTransport, epoch: u64) {
    let mut link = transport.link();
    let up = link.wait_for(|status| status.state == LinkState::Up && status.epoch >= epoch);
    assert_eq!(soon("link up", up).await.state, LinkState::Up);
}

pub(crate) async fn down(transport: &RedisStreamsTransport) {
    let mut link = transport.link();
    let down = link.wait_for(|status| status.state == LinkState::Down);
    assert_eq!(soon("link down", down).await.state, LinkState::Down);
}

pub(crate) fn chat() -> Topic {
    namespace("/chat")
}

pub(crate) fn namespace(path: &str) -> Topic {
    Topic::Namespace(path.to_owned().into())
}

/// Publishes numbers, one after the other.
pub(crate) async fn say(transport: &RedisStreamsTransport, numbers: std::ops::Range<u64>) {
    let topic = chat();
    for number in numbers {
        let payload = Bytes::from(number.to_string());
        transport.publish(&topic, payload).await.unwrap();
    }
}

pub(crate) async fn next(subscription: &mut Subscription) -> Event {
    soon("an event", subscription.recv()).await.unwrap()
}

pub(crate) fn message(text: impl ToString) -> Event {
    Event::Message(Bytes::from(text.to_string()))
}

pub(crate) fn unbroken(replayed: u64) -> Event {
    Event::Resumed(Continuity::Unbroken { replayed })
}

/// Wants exactly these numbers, in order.
pub(crate) async fn hears(subscription: &mut Subscription, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert_eq!(next(subscription).await, message(number));
    }
}

/// Wants nothing to come before what is published now.
pub(crate) async fn hears_nothing(
    subscription: &mut Subscription,
    publisher: &RedisStreamsTransport,
) {
    let fence = format!("fence {:016x}", fastrand::u64(..));
    publisher
        .publish(&chat(), fence.clone().into())
        .await
        .unwrap();
    assert_eq!(next(subscription).await, message(fence));
}

/// How often the server has carried out `command`.
pub(crate) fn calls(redis: &Redis, command: &str) -> u64 {
    let stats = redis.command(&["INFO", "commandstats"]).unwrap();
    let name = format!("cmdstat_{command}:calls=");
    let calls = stats.text().unwrap().split(&name).nth(1);
    calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
}
