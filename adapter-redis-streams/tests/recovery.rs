//! What a node gets back after it was away, and what it is told of the rest.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use socketioxide_adapter_core::transport::{
    BufferLimits, Continuity, Event, Limits, LossCause, Subscription, Transport,
};
use socketioxide_adapter_redis_streams::{RedisStreamsTransport, Retention};
use socketioxide_broker_lab::Redis;

#[tokio::test]
async fn a_thousand_missed_frames_come_back_in_order_and_once() {
    let redis = durable();
    let talker = connect(&redis).await;
    let (away, gate) = connect_gated(&redis, "").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    say(&talker, 0..10).await;
    hears(&mut inbox, 0..10).await;
    gate.shut();
    down(&away).await;
    say(&talker, 10..1_010).await;
    gate.open();
    up(&away, 2).await;
    assert_eq!(next(&mut inbox).await, unbroken(1_000));
    hears(&mut inbox, 10..1_010).await;
    hears_nothing(&mut inbox, &talker).await;
}

#[tokio::test]
async fn two_outages_with_no_frame_between_repeat_nothing() {
    let redis = durable();
    let talker = connect(&redis).await;
    let (away, gate) = connect_gated(&redis, "").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    gate.shut();
    down(&away).await;
    say(&talker, 0..250).await;
    gate.open();
    up(&away, 2).await;
    assert_eq!(next(&mut inbox).await, unbroken(250));
    hears(&mut inbox, 0..250).await;
    for epoch in 3..6 {
        gate.shut();
        down(&away).await;
        gate.open();
        up(&away, epoch).await;
        assert_eq!(next(&mut inbox).await, unbroken(0));
    }
    hears_nothing(&mut inbox, &talker).await;
}

#[tokio::test]
async fn what_was_trimmed_meanwhile_is_told_exactly_and_the_rest_comes_back() {
    let redis = Redis::builder()
        .config("stream-node-max-entries 10")
        .start()
        .unwrap();
    let talker = try_connect(&format!("{}?maxlen=1000", redis.url()))
        .await
        .unwrap();
    let (away, gate) = connect_gated(&redis, "?maxlen=1000").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    say(&talker, 0..5).await;
    hears(&mut inbox, 0..5).await;
    gate.shut();
    down(&away).await;
    say(&talker, 5..3_005).await;
    gate.open();
    up(&away, 2).await;
    let Event::Resumed(Continuity::Lost {
        count: Some(lost),
        cause: LossCause::Trimmed,
    }) = next(&mut inbox).await
    else {
        panic!("expected an exact loss");
    };
    assert!((1_990..=2_000).contains(&lost), "{lost}");
    hears(&mut inbox, 5 + lost..3_005).await;
    hears_nothing(&mut inbox, &talker).await;
}

#[tokio::test]
async fn nothing_is_told_when_exactly_what_was_read_has_been_trimmed() {
    let redis = Redis::start().unwrap();
    let talker = connect(&redis).await;
    let (away, gate) = connect_gated(&redis, "").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    say(&talker, 0..10).await;
    hears(&mut inbox, 0..10).await;
    gate.shut();
    down(&away).await;
    say(&talker, 10..15).await;
    redis.command(&["XTRIM", KEY, "MAXLEN", "=", "5"]).unwrap();
    gate.open();
    up(&away, 2).await;
    assert_eq!(next(&mut inbox).await, unbroken(5));
    hears(&mut inbox, 10..15).await;
}

#[tokio::test]
async fn a_log_that_begins_empty_is_counted_from_its_first_entry() {
    let redis = Redis::start().unwrap();
    let talker = connect(&redis).await;
    let (away, gate) = connect_gated(&redis, "").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    gate.shut();
    down(&away).await;
    say(&talker, 0..20).await;
    redis.command(&["XTRIM", KEY, "MAXLEN", "=", "5"]).unwrap();
    gate.open();
    up(&away, 2).await;
    let lost = Continuity::Lost {
        count: Some(15),
        cause: LossCause::Trimmed,
    };
    assert_eq!(next(&mut inbox).await, Event::Resumed(lost));
    hears(&mut inbox, 15..20).await;
}

#[tokio::test]
async fn a_wiped_log_is_told_once_and_delivery_goes_on() {
    let redis = durable();
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..10).await;
    hears(&mut inbox, 0..10).await;
    redis.kill().unwrap();
    redis.wipe().unwrap();
    redis.restart().unwrap();
    up(&node, 2).await;
    assert_eq!(next(&mut inbox).await, RESET);
    say(&node, 10..20).await;
    hears(&mut inbox, 10..20).await;
    // The new log is a log like any other.
    redis.kill().unwrap();
    redis.restart().unwrap();
    up(&node, 3).await;
    assert_eq!(next(&mut inbox).await, unbroken(0));
    hears_nothing(&mut inbox, &node).await;
}

#[tokio::test]
async fn a_log_deleted_under_the_reader_is_told_too() {
    let redis = Redis::start().unwrap();
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    say(&node, 0..10).await;
    hears(&mut inbox, 0..10).await;
    redis.command(&["DEL", KEY]).unwrap();
    assert_eq!(next(&mut inbox).await, RESET);
    say(&node, 10..20).await;
    hears(&mut inbox, 10..20).await;
    assert_eq!(node.link().status().epoch, 1);
}

/// Publishes 0 to 99, saves that, and publishes 100 to 149; `inbox` of `other` hears it all.
async fn about_to_roll_back(
    redis: &Redis,
    talker: &RedisStreamsTransport,
    other: &RedisStreamsTransport,
    inbox: &mut Subscription,
) {
    say(talker, 0..100).await;
    hears(inbox, 0..100).await;
    redis.stop().unwrap();
    redis.save().unwrap();
    redis.restart().unwrap();
    up(talker, 2).await;
    up(other, 2).await;
    assert_eq!(next(inbox).await, unbroken(0));
    say(talker, 100..150).await;
    hears(inbox, 100..150).await;
}

#[tokio::test]
async fn a_log_that_was_rolled_back_is_told_once_and_nothing_comes_twice() {
    let redis = durable();
    let node = connect(&redis).await;
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    about_to_roll_back(&redis, &node, &node, &mut inbox).await;
    redis.kill().unwrap();
    redis.roll_back().unwrap();
    redis.restart().unwrap();
    up(&node, 3).await;
    assert_eq!(next(&mut inbox).await, RESET);
    say(&node, 150..160).await;
    hears(&mut inbox, 150..160).await;
    hears_nothing(&mut inbox, &node).await;
}

#[tokio::test]
async fn a_log_that_was_rolled_back_and_has_grown_past_the_reader_is_told_too() {
    let redis = durable();
    let talker = connect(&redis).await;
    let (away, gate) = connect_gated(&redis, "").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    about_to_roll_back(&redis, &talker, &away, &mut inbox).await;
    gate.shut();
    down(&away).await;
    redis.kill().unwrap();
    redis.roll_back().unwrap();
    redis.restart().unwrap();
    up(&talker, 3).await;
    // Its length and its last entry now look as if nothing had happened.
    say(&talker, 150..450).await;
    let epoch = away.link().status().epoch;
    gate.open();
    up(&away, epoch + 1).await;
    assert_eq!(next(&mut inbox).await, RESET);
    hears(&mut inbox, 150..450).await;
    // What was lost from sight then is counted again.
    gate.shut();
    down(&away).await;
    say(&talker, 450..500).await;
    redis.command(&["XTRIM", KEY, "MAXLEN", "=", "20"]).unwrap();
    gate.open();
    up(&away, epoch + 2).await;
    let lost = Continuity::Lost {
        count: Some(30),
        cause: LossCause::Trimmed,
    };
    assert_eq!(next(&mut inbox).await, Event::Resumed(lost));
    hears(&mut inbox, 480..500).await;
}

#[tokio::test]
async fn a_slow_reader_finds_everything_that_is_still_kept_and_an_exact_count_of_the_rest() {
    let redis = Redis::builder()
        .config("stream-node-max-entries 10")
        .start()
        .unwrap();
    let talker = try_connect(&format!("{}?maxlen=100", redis.url()))
        .await
        .unwrap();
    let mut slow = config(&redis.url());
    slow.redis.endpoint.limits =
        Limits::default().with_subscription_buffer(BufferLimits::new(20, 1 << 20));
    let slow = slow.with_retention(Retention::Length(100));
    let slow = slow.connect().await.unwrap();
    let mut inbox = slow.subscribe(&chat()).await.unwrap();
    let mut other = slow.subscribe(&namespace("/other")).await.unwrap();
    say(&talker, 0..1_000).await;
    // The full one holds nobody up.
    talker
        .publish(&namespace("/other"), "quick".into())
        .await
        .unwrap();
    assert_eq!(next(&mut other).await, message("quick"));
    let (mut number, mut lost) = (0, 0);
    while number < 1_000 {
        match next(&mut inbox).await {
            Event::Lagged(count) => {
                number += count;
                lost += count;
            }
            event => {
                assert_eq!(event, message(number));
                number += 1;
            }
        }
    }
    assert!((800..=890).contains(&lost), "{lost}");
    hears_nothing(&mut inbox, &talker).await;
}

#[tokio::test]
async fn poison_in_the_log_is_skipped_once_and_stops_nobody() {
    let redis = Redis::start().unwrap();
    let talker = connect(&redis).await;
    let (away, gate) = connect_gated(&redis, "").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    let poison = || {
        redis
            .command(&["XADD", KEY, "*", "what", "is this"])
            .unwrap();
        redis.command(&["XADD", KEY, "*", "t", "ns/chat"]).unwrap();
    };
    poison();
    say(&talker, 0..5).await;
    hears(&mut inbox, 0..5).await;
    for round in 1..=3 {
        gate.shut();
        down(&away).await;
        poison();
        say(&talker, round * 5..round * 5 + 5).await;
        gate.open();
        up(&away, round + 1).await;
        // Two of the seven are nobody's.
        assert_eq!(next(&mut inbox).await, unbroken(7));
        hears(&mut inbox, round * 5..round * 5 + 5).await;
    }
    assert_eq!(away.link().status().epoch, 4);
}

#[tokio::test]
async fn logs_by_age_are_trimmed_by_the_servers_clock_and_losses_are_exact() {
    let redis = Redis::builder()
        .config("stream-node-max-entries 10")
        .start()
        .unwrap();
    let talker = try_connect(&format!("{}?max_age=1s", redis.url()))
        .await
        .unwrap();
    let (away, gate) = connect_gated(&redis, "?max_age=1s").await;
    let mut inbox = away.subscribe(&chat()).await.unwrap();
    say(&talker, 0..10).await;
    hears(&mut inbox, 0..10).await;
    gate.shut();
    down(&away).await;
    let length = || redis.command(&["XLEN", KEY]).unwrap().int().unwrap();
    let mut said = 10;
    // Until the log has forgotten something that the node did not see.
    soon("trimming", async {
        while said < 50 || length() + 20 > said {
            say(&talker, said as u64..said as u64 + 1).await;
            said += 1;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    gate.open();
    up(&away, 2).await;
    let Event::Resumed(Continuity::Lost {
        count: Some(lost),
        cause: LossCause::Trimmed,
    }) = next(&mut inbox).await
    else {
        panic!("expected an exact loss");
    };
    hears(&mut inbox, 10 + lost..said as u64).await;
    hears_nothing(&mut inbox, &talker).await;
}
