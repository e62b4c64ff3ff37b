//! With sentinels: another server is the primary, and its copy of the log may lack the end.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use socketioxide_adapter_core::transport::{Event, Subscription, Transport};
use socketioxide_adapter_redis_streams::RedisStreamsTransport;
use socketioxide_broker_lab::RedisSentinel;
use tokio::task::block_in_place;

/// Lets the replica take over, and returns what the subscription was told until it heard what was published then.
async fn fail_over(
    set: &RedisSentinel,
    node: &RedisStreamsTransport,
    inbox: &mut Subscription,
) -> Vec<Event> {
    let old = node.link().status().epoch;
    block_in_place(|| {
        set.fail_over().unwrap();
        set.settle().unwrap();
    });
    up(node, old + 1).await;
    let mut number = 1_000;
    // The first may still go to the old primary, which refuses it.
    while node
        .publish(&chat(), number.to_string().into())
        .await
        .is_err()
    {
        number += 1;
    }
    let mut told = Vec::new();
    loop {
        match next(inbox).await {
            event if event == message(number) => return told,
            event => told.push(event),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_to_a_whole_copy_is_followed_and_the_log_is_read_on_in_it() {
    let set = RedisSentinel::start().unwrap();
    let node = try_connect(&set.url()).await.unwrap();
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..100).await;
    hears(&mut inbox, 0..100).await;
    block_in_place(|| set.replicate().unwrap());
    let told = fail_over(&set, &node, &mut inbox).await;
    assert!(!told.is_empty());
    assert!(told.iter().all(|event| *event == unbroken(0)), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_lacks_what_was_read_is_told_once_and_the_log_is_read_on_in_it() {
    let set = RedisSentinel::start().unwrap();
    let node = try_connect(&set.url()).await.unwrap();
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..50).await;
    hears(&mut inbox, 0..50).await;
    block_in_place(|| {
        set.replicate().unwrap();
        // Nobody listens there. The sentinels put it right, but only after 3 s.
        let away = ["REPLICAOF", "127.0.0.1", "1"];
        set.replica().unwrap().command(&away).unwrap();
    });
    say(&node, 50..100).await;
    hears(&mut inbox, 50..100).await;
    let mut told = fail_over(&set, &node, &mut inbox).await;
    told.retain(|event| *event != unbroken(0));
    assert_eq!(told, [RESET]);
    block_in_place(|| {
        let length = set.primary().unwrap().command(&["XLEN", KEY]).unwrap();
        assert!(length.int() < Some(100), "{length:?}");
    });
    say(&node, 100..110).await;
    hears(&mut inbox, 100..110).await;
}
