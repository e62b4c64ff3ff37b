//! What all tests against a real server need, also those of RabbitMQ streams.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::{future::Future, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_amqp::{Amqp, AmqpTransport, Config, Source};
use socketioxide_adapter_core::{
    Result,
    backend::BackendUrl,
    transport::{
        Connected, Continuity, Event, LinkState, LossCause, Subscription, Topic, Transport,
    },
};
use socketioxide_broker_lab::RabbitMq;

/// No wait of a test is longer. RabbitMQ itself takes seconds to say something while its machine is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn config<S: Source>(url: &str) -> Config<S> {
    Config::from_url(BackendUrl::parse(url).unwrap()).unwrap()
}

/// A node that reads from any source.
pub(crate) async fn try_connect_to<S: Source>(url: &str) -> Result<Connected<Amqp<S>>> {
    config(url).connect().await
}

pub(crate) async fn try_connect(url: &str) -> Result<AmqpTransport> {
    try_connect_to(url).await
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

/// Publishes to a topic that `subscription` has, and reads it from there.
pub(crate) async fn delivers(
    transport: &impl Transport,
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

pub(crate) async fn echoes(transport: &impl Transport) {
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    delivers(transport, &Topic::Cluster, &mut subscription, "hello").await;
}

pub(crate) const RESET: Event = Event::Resumed(Continuity::Lost {
    count: None,
    cause: LossCause::Reset,
});

/// `config` has room for 100 payloads a subscription, and `url` leads to its cluster.
pub(crate) async fn a_reader_that_stands_still_gets_a_count_and_costs_no_memory<S: Source>(
    config: Config<S>,
    url: &str,
) {
    let topic = namespace("/slow");
    let slow = config.connect().await.unwrap();
    let mut subscription = slow.subscribe(&topic).await.unwrap();
    let mut witness = slow.subscribe(&Topic::Cluster).await.unwrap();
    let publisher = try_connect(url).await.unwrap();
    for number in 0..400_u32 {
        let payload = number.to_string();
        publisher.publish(&topic, payload.into()).await.unwrap();
    }
    // It comes last, and the other one is not waited for for ever.
    delivers(&publisher, &Topic::Cluster, &mut witness, "end").await;
    let (mut read, mut lagged) = (0, 0);
    while read + lagged < 400 {
        match next(&mut subscription).await {
            Event::Message(payload) => {
                assert_eq!(payload, (read + lagged).to_string());
                read += 1;
            }
            Event::Lagged(count) => lagged += count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((read, lagged), (100, 300));
    delivers(&publisher, &topic, &mut subscription, "and on").await;
    assert_eq!(slow.link().status().epoch, 1);
}

/// What a node reads from is called `queue…` at the broker.
pub(crate) async fn what_is_deleted_under_a_node_is_made_anew<S: Source>(
    server: &RabbitMq,
    url: &str,
    queue: &str,
) {
    let topic = namespace("/deleted");
    let node = try_connect_to::<S>(url).await.unwrap();
    let mut subscription = node.subscribe(&topic).await.unwrap();
    delivers(&node, &topic, &mut subscription, "before").await;
    let queues = server.ctl(&["list_queues", "name"]).unwrap();
    let name = queues.lines().find(|name| name.starts_with(queue)).unwrap();
    server.ctl(&["delete_queue", name]).unwrap();
    up(&node, 2).await;
    assert_eq!(next(&mut subscription).await, RESET);
    delivers(&node, &topic, &mut subscription, "after").await;
}
