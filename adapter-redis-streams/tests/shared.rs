//! Logs that many topics share, and what they cost the server.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use futures_util::future::join_all;
use socketioxide_adapter_core::transport::{Continuity, Event, Transport};

#[tokio::test]
async fn topics_that_share_a_log_and_start_together_ask_for_its_end_once() {
    const TOPICS: usize = 1_000;
    let redis = durable();
    let node = try_connect(&format!("{}?streams=2", redis.url()))
        .await
        .unwrap();
    let topics: Vec<_> = (0..TOPICS).map(|n| namespace(&format!("/{n}"))).collect();
    let before = calls(&redis, "xinfo|stream");
    let subscribing = join_all(topics.iter().map(|topic| node.subscribe(topic)));
    let mut inboxes = soon("subscriptions", subscribing).await;
    // Once for each log. On one thread, all have asked before the reader runs.
    assert_eq!(calls(&redis, "xinfo|stream") - before, 2);
    for (topic, inbox) in topics.iter().zip(&mut inboxes) {
        let payload = topic.to_string();
        node.publish(topic, payload.clone().into()).await.unwrap();
        assert_eq!(next(inbox.as_mut().unwrap()).await, message(payload));
    }
}

#[tokio::test]
async fn topics_that_share_logs_do_not_mix_and_come_back() {
    let redis = durable();
    let options = "?streams=2&ephemeral=log";
    let talker = try_connect(&format!("{}{options}", redis.url()))
        .await
        .unwrap();
    let (away, gate) = connect_gated(&redis, options).await;
    let topics: Vec<_> = (0..8).map(|n| namespace(&format!("/{n}"))).collect();
    let mut inboxes = Vec::new();
    for topic in &topics {
        inboxes.push(away.subscribe(topic).await.unwrap());
    }
    gate.shut();
    down(&away).await;
    for round in 0..50 {
        for topic in &topics {
            let payload = format!("{topic} {round}");
            talker.publish(topic, payload.into()).await.unwrap();
        }
    }
    gate.open();
    up(&away, 2).await;
    for (topic, inbox) in topics.iter().zip(&mut inboxes) {
        assert!(matches!(
            next(inbox).await,
            Event::Resumed(Continuity::Unbroken { replayed: 1..=50 })
        ));
        for round in 0..50 {
            assert_eq!(next(inbox).await, message(format!("{topic} {round}")));
        }
    }
    // Two logs and the note about them, and nothing by Pub/Sub.
    assert_eq!(redis.command(&["DBSIZE"]).unwrap().int(), Some(3));
}
