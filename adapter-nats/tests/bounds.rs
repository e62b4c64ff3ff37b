//! What the server allows: sizes and subjects.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::*;
use socketioxide_adapter_core::{
    ErrorKind, NodeId,
    transport::{BufferLimits, Event, Limits, LinkState, Topic, Transport},
};
use socketioxide_broker_lab::Nats;

#[tokio::test]
async fn the_largest_payload_is_what_the_server_allows() {
    let nats = Nats::builder()
        .config("max_payload: 200000")
        .start()
        .unwrap();
    let transport = connect(&nats).await;
    assert_eq!(transport.capabilities().max_payload, 200_000);
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    let publish = transport.publish(&Topic::Cluster, vec![1; 200_001].into());
    assert_eq!(publish.await.unwrap_err().kind(), ErrorKind::TooLarge);
    let publish = transport.publish(&Topic::Cluster, vec![1; 200_000].into());
    publish.await.unwrap();
    assert_eq!(message(&mut subscription).await.len(), 200_000);
    let mut less = config(&nats.url());
    less.endpoint.limits = Limits::default().with_max_payload(150_000);
    let less = less.connect().await.unwrap();
    assert_eq!(less.capabilities().max_payload, 150_000);
}

#[tokio::test]
async fn a_namespace_with_a_name_of_any_length_costs_nobody_the_connection() {
    let nats = Nats::start().unwrap();
    let transport = connect(&nats).await;
    let long = |last: &str| namespace(&format!("/{}{last}", "ü".repeat(50_000)));
    let mut one = transport.subscribe(&long("x")).await.unwrap();
    let mut two = transport.subscribe(&long("y")).await.unwrap();
    transport.publish(&long("x"), "for x".into()).await.unwrap();
    transport.publish(&long("y"), "for y".into()).await.unwrap();
    assert_eq!(message(&mut one).await, "for x");
    assert_eq!(message(&mut two).await, "for y");
    assert_eq!(transport.link().status().epoch, 1);
}

fn restricted(permissions: &str) -> Nats {
    let users = format!("users: [{{user: u, password: p, permissions: {{{permissions}}}}}]");
    Nats::builder().authorization(&users).start().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permissions_for_the_prefix_are_enough() {
    let nats = restricted("publish: \"app.one.>\", subscribe: \"app.one.>\"");
    let transport = try_connect(&format!("{}?prefix=app.one", nats.url_as("u:p@")))
        .await
        .unwrap();
    for topic in [
        Topic::Cluster,
        Topic::Node(NodeId::random()),
        namespace("/a b"),
    ] {
        let mut subscription = transport.subscribe(&topic).await.unwrap();
        transport.publish(&topic, "hello".into()).await.unwrap();
        assert_eq!(message(&mut subscription).await, "hello");
    }
    assert_eq!(transport.link().status().epoch, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_subject_is_an_error_of_the_call_and_harms_no_other() {
    let nats = restricted(
        "publish: {deny: \"socketioxide._ns./mute\"}, subscribe: {deny: \"socketioxide._ns./deaf\"}",
    );
    let transport = try_connect(&nats.url_as("u:p@")).await.unwrap();
    let mut heard = transport.subscribe(&Topic::Cluster).await.unwrap();
    let error = transport.subscribe(&namespace("/deaf")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(error.to_string().contains("permissions"), "{error}");
    let mute = namespace("/mute");
    // The client passes a refusal on by a task of its own: in theory it can come too late for the first publish.
    let _ = transport.publish(&mute, "unheard".into()).await;
    for _ in 0..20 {
        let publish = transport.publish(&mute, "unheard".into());
        assert_eq!(publish.await.unwrap_err().kind(), ErrorKind::Unauthorized);
        transport
            .publish(&Topic::Cluster, "heard".into())
            .await
            .unwrap();
        assert_eq!(message(&mut heard).await, "heard");
    }
    assert_eq!(transport.link().status().epoch, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_do_nothing_is_told_what_is_needed() {
    for permissions in [
        "publish: \"other.>\", subscribe: \">\"",
        "publish: \">\", subscribe: \"other.>\"",
    ] {
        let nats = restricted(permissions);
        let error = try_connect(&nats.url_as("u:p@")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(error.to_string().contains("<prefix>.>"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_still_gets_a_count_and_costs_no_memory() {
    let nats = Nats::start().unwrap();
    let limits = BufferLimits::new(100, 1 << 20);
    let mut slow = config(&nats.url());
    slow.endpoint.limits = Limits::default().with_subscription_buffer(limits);
    let slow = slow.connect().await.unwrap();
    let mut subscription = slow.subscribe(&Topic::Cluster).await.unwrap();
    let publisher = connect(&nats).await;
    for number in 0..1_000_u32 {
        let payload = number.to_string();
        publisher
            .publish(&Topic::Cluster, payload.into())
            .await
            .unwrap();
    }
    // All of them have come by when this one is refused or read: its own publisher hears it last.
    let mut witness = slow.subscribe(&namespace("/witness")).await.unwrap();
    publisher
        .publish(&namespace("/witness"), "end".into())
        .await
        .unwrap();
    assert_eq!(message(&mut witness).await, "end");
    let (mut read, mut lagged) = (0, 0);
    while read + lagged < 1_000 {
        match next(&mut subscription).await {
            Event::Message(payload) => {
                assert_eq!(payload, (read + lagged).to_string());
                read += 1;
            }
            Event::Lagged(count) => lagged += count,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((read, lagged), (100, 900));
    assert_eq!(slow.link().state(), LinkState::Up);
}
