//! Tests of the bus: contract, faults, names.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{BACKEND, Faults, MemoryBus};
use crate::{
    backend::Registry,
    error::{ErrorKind, Outcome},
    transport::{
        BufferLimits, Continuity, Event, LinkState, LossCause, Subscription, Topic, Transport,
    },
};

const MS: Duration = Duration::from_millis(1);

fn chat() -> Topic {
    Topic::Namespace("/chat".into())
}

fn payload(n: u32) -> Bytes {
    Bytes::copy_from_slice(&n.to_be_bytes())
}

fn message(n: u32) -> Event {
    Event::Message(payload(n))
}

/// What is there now, without waiting.
fn drain(inbox: &mut Subscription) -> Vec<Event> {
    std::iter::from_fn(|| inbox.recv().now_or_never().flatten()).collect()
}

fn numbers(events: Vec<Event>) -> Vec<u32> {
    let number = |event| match event {
        Event::Message(payload) => u32::from_be_bytes(payload[..].try_into().unwrap()),
        other => panic!("{other:?}"),
    };
    events.into_iter().map(number).collect()
}

#[tokio::test]
async fn the_receipt_counts_nodes_and_everybody_hears_the_same_order() {
    let bus = MemoryBus::new();
    let (a, b) = (bus.connect(), bus.connect());
    assert_eq!(
        a.publish(&chat(), payload(0)).await.unwrap().receivers,
        Some(0)
    );
    let mut inboxes = [
        a.subscribe(&chat()).await.unwrap(),
        b.subscribe(&chat()).await.unwrap(),
        a.subscribe(&chat()).await.unwrap(),
    ];
    let _other = a.subscribe(&Topic::Cluster).await.unwrap();
    assert_eq!(
        a.publish(&chat(), payload(1)).await.unwrap().receivers,
        Some(2)
    );
    b.publish(&chat(), payload(2)).await.unwrap();
    for inbox in &mut inboxes {
        assert_eq!(drain(inbox), [message(1), message(2)]);
    }
}

#[tokio::test]
async fn a_slow_reader_loses_with_a_count_and_others_lose_nothing() {
    let bus = MemoryBus::new();
    let (slow, quick) = (bus.connect_with(BufferLimits::new(2, 100)), bus.connect());
    let mut slow = slow.subscribe(&chat()).await.map(|s| (s, slow)).unwrap();
    let mut inbox = quick.subscribe(&chat()).await.unwrap();
    for n in 0..5 {
        quick.publish(&chat(), payload(n)).await.unwrap();
    }
    assert_eq!(
        drain(&mut slow.0),
        [message(0), message(1), Event::Lagged(3)]
    );
    assert_eq!(numbers(drain(&mut inbox)), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn stopped_it_fails_fast_and_started_it_delivers_again() {
    let bus = MemoryBus::new();
    let (a, b) = (bus.connect(), bus.connect());
    let mut inbox = b.subscribe(&chat()).await.unwrap();
    bus.stop();
    let late = bus.connect();
    let states = [&a, &late].map(|t| t.link().state());
    assert_eq!(states, [LinkState::Down, LinkState::Connecting]);
    let error = a.publish(&chat(), payload(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LinkDown);
    let error = a.subscribe(&chat()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LinkDown);
    bus.start();
    assert_eq!(
        (a.link().status().epoch, late.link().status().epoch),
        (2, 1)
    );
    a.publish(&chat(), payload(2)).await.unwrap();
    assert_eq!(
        drain(&mut inbox),
        [Event::Resumed(Continuity::Unknown), message(2)]
    );
}

#[tokio::test]
async fn a_cut_node_is_told_exactly_what_it_missed() {
    let bus = MemoryBus::new();
    let (a, b) = (bus.connect(), bus.connect());
    let mut inbox = b.subscribe(&chat()).await.unwrap();
    let mut quiet = b.subscribe(&Topic::Cluster).await.unwrap();
    b.cut();
    assert_eq!(b.link().state(), LinkState::Down);
    let error = b.publish(&chat(), payload(0)).await.unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotSent);
    for n in 1..=3 {
        let receipt = a.publish(&chat(), payload(n)).await.unwrap();
        assert_eq!(receipt.receivers, Some(0));
    }
    b.heal();
    b.publish(&chat(), payload(4)).await.unwrap();
    let lost = Continuity::Lost {
        count: Some(3),
        cause: LossCause::LinkDown,
    };
    assert_eq!(drain(&mut inbox), [Event::Resumed(lost), message(4)]);
    let nothing = Continuity::Unbroken { replayed: 0 };
    assert_eq!(drain(&mut quiet), [Event::Resumed(nothing)]);
    assert_eq!(a.link().status().epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn frozen_calls_end_by_their_deadline_with_an_unknown_outcome() {
    let bus = MemoryBus::new();
    let node = bus.connect();
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    bus.freeze();
    let start = Instant::now();
    let topic = chat();
    let (publish, subscribe) =
        tokio::join!(node.publish(&topic, payload(1)), node.subscribe(&topic));
    assert_eq!(publish.unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(subscribe.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), 5_000 * MS);
    // Thawed in time, calls succeed, in order; what was given up arrives as well.
    let (second, ()) = tokio::join!(node.publish(&topic, payload(2)), async { bus.thaw() });
    assert_eq!(second.unwrap().receivers, Some(1));
    assert_eq!(numbers(drain(&mut inbox)), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_link_lost_while_frozen_interrupts_the_waiting_publish() {
    let bus = MemoryBus::new();
    let node = bus.connect();
    bus.freeze();
    let topic = chat();
    let (publish, subscribe, ()) = tokio::join!(
        node.publish(&topic, payload(1)),
        node.subscribe(&topic),
        async { node.cut() }
    );
    assert_eq!(publish.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(subscribe.unwrap_err().kind(), ErrorKind::LinkDown);
}

#[tokio::test]
async fn a_deaf_node_hears_again_once_suspected() {
    let bus = MemoryBus::new();
    let (a, b) = (bus.connect(), bus.connect());
    let mut inbox = b.subscribe(&chat()).await.unwrap();
    b.deafen();
    a.publish(&chat(), payload(1)).await.unwrap();
    assert_eq!(b.link().state(), LinkState::Up);
    b.link().suspect();
    b.publish(&chat(), payload(2)).await.unwrap();
    assert_eq!(
        drain(&mut inbox),
        [Event::Resumed(Continuity::Unknown), message(2)]
    );
    assert_eq!(b.link().status().epoch, 2);
}

#[tokio::test]
async fn close_ends_subscriptions_and_drop_closes() {
    let bus = MemoryBus::new();
    let (a, b) = (bus.connect(), bus.connect());
    let mut inboxes = [
        a.subscribe(&chat()).await.unwrap(),
        b.subscribe(&chat()).await.unwrap(),
    ];
    let link = b.link();
    a.close().await.unwrap();
    a.close().await.unwrap();
    drop(b);
    for inbox in &mut inboxes {
        assert_eq!(inbox.recv().await, None);
    }
    assert_eq!(link.state(), LinkState::Closed);
    let error = a.publish(&chat(), payload(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn dropped_subscriptions_are_forgotten_even_on_silent_topics() {
    let bus = MemoryBus::new();
    let node = bus.connect();
    for n in 0..1_000 {
        let topic = Topic::Namespace(format!("/{n}").into());
        drop(node.subscribe(&topic).await.unwrap());
    }
    assert!(bus.core().state().subscriber_count() <= 64);
}

async fn arrivals(faults: Faults) -> Vec<u32> {
    let bus = MemoryBus::new();
    bus.set_faults(faults);
    let (a, b) = (bus.connect(), bus.connect());
    let mut inbox = b.subscribe(&chat()).await.unwrap();
    for n in 0..200 {
        a.publish(&chat(), payload(n)).await.unwrap();
        tokio::time::sleep(MS).await;
    }
    tokio::time::sleep(1_000 * MS).await;
    numbers(drain(&mut inbox))
}

#[tokio::test(start_paused = true)]
async fn faults_repeat_with_their_seed() {
    let faults = |seed| {
        Faults::new(seed)
            .with_drop(0.1)
            .with_duplicate(0.1)
            .with_reorder(0.1)
            .with_delay(MS..20 * MS)
    };
    let (one, again, other) = (
        arrivals(faults(7)).await,
        arrivals(faults(7)).await,
        arrivals(faults(8)).await,
    );
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[tokio::test(start_paused = true)]
async fn each_fault_does_what_it_says_and_nothing_else() {
    let all: Vec<u32> = (0..200).collect();
    let sorted = |mut numbers: Vec<u32>| {
        numbers.sort_unstable();
        numbers
    };

    let delayed = arrivals(Faults::new(1).with_delay(MS..50 * MS)).await;
    assert_eq!(delayed, all);

    let reordered = arrivals(Faults::new(1).with_reorder(0.1)).await;
    assert_ne!(reordered, all);
    assert_eq!(sorted(reordered), all);

    let dropped = arrivals(Faults::new(1).with_drop(0.1)).await;
    assert!((160..200).contains(&dropped.len()), "{}", dropped.len());
    assert!(dropped.is_sorted());

    let doubled = arrivals(Faults::new(1).with_duplicate(0.1)).await;
    assert!((201..240).contains(&doubled.len()), "{}", doubled.len());
    let mut once = doubled.clone();
    once.dedup();
    assert_eq!(once, all);
}

#[tokio::test]
async fn a_partition_is_silent_and_ends_with_the_faults() {
    let bus = MemoryBus::new();
    let (a, b, c) = (bus.connect(), bus.connect(), bus.connect());
    let mut inboxes = [
        a.subscribe(&chat()).await.unwrap(),
        b.subscribe(&chat()).await.unwrap(),
        c.subscribe(&chat()).await.unwrap(),
    ];
    bus.set_faults(Faults::new(0).with_partition([a.number()]));
    a.publish(&chat(), payload(1)).await.unwrap();
    b.publish(&chat(), payload(2)).await.unwrap();
    bus.set_faults(None);
    a.publish(&chat(), payload(3)).await.unwrap();
    let heard = inboxes.each_mut().map(|inbox| numbers(drain(inbox)));
    assert_eq!(heard, [vec![1, 3], vec![2, 3], vec![2, 3]]);
    assert_eq!(a.link().state(), LinkState::Up);
}

#[tokio::test(start_paused = true)]
async fn what_is_on_its_way_keeps_its_order_when_faults_end_and_is_lost_with_the_bus() {
    let bus = MemoryBus::new();
    let node = bus.connect();
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    let slow = Faults::new(0).with_delay(50 * MS..60 * MS);
    bus.set_faults(slow.clone());
    node.publish(&chat(), payload(1)).await.unwrap();
    bus.set_faults(None);
    node.publish(&chat(), payload(2)).await.unwrap();
    assert_eq!(
        [inbox.recv().await, inbox.recv().await],
        [Some(message(1)), Some(message(2))]
    );
    bus.set_faults(slow);
    node.publish(&chat(), payload(3)).await.unwrap();
    bus.stop();
    bus.start();
    bus.set_faults(None);
    node.publish(&chat(), payload(4)).await.unwrap();
    tokio::time::sleep(100 * MS).await;
    assert_eq!(
        drain(&mut inbox),
        [Event::Resumed(Continuity::Unknown), message(4)]
    );
}

#[tokio::test(start_paused = true)]
async fn the_delivery_task_ends_with_the_bus_and_is_not_there_without_faults() {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let bus = MemoryBus::new();
    let node = bus.connect();
    let _inbox = node.subscribe(&chat()).await.unwrap();
    node.publish(&chat(), payload(1)).await.unwrap();
    assert_eq!(tasks(), before);
    bus.set_faults(Faults::new(0).with_delay(MS..2 * MS));
    node.publish(&chat(), payload(1)).await.unwrap();
    assert_eq!(tasks(), before + 1);
    drop((bus, node));
    let ended = async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(1_000 * MS, ended).await.unwrap();
}

#[tokio::test]
async fn one_name_is_one_bus_while_somebody_is_connected() {
    let registry = Registry::new().with(BACKEND);
    let url = "memory://one-name-is-one-bus";
    let a = registry.connect(url).await.unwrap();
    let b = registry.connect(url).await.unwrap();
    let other = registry.connect("memory://another-bus").await.unwrap();
    let mut inbox = b.subscribe(&chat()).await.unwrap();
    let receivers = [&a, &other].map(|node: &Arc<dyn Transport>| {
        let receipt = node.publish(&chat(), payload(1)).now_or_never().unwrap();
        receipt.unwrap().receivers
    });
    assert_eq!(receivers, [Some(1), Some(0)]);
    assert_eq!(drain(&mut inbox), [message(1)]);
}

#[tokio::test]
async fn a_url_is_read_strictly() {
    let registry = Registry::new().with(BACKEND);
    let limited = "memory://limited?max_messages=1&max_bytes=100";
    let node = registry.connect(limited).await.unwrap();
    let mut inbox = node.subscribe(&chat()).await.unwrap();
    node.publish(&chat(), payload(1)).await.unwrap();
    node.publish(&chat(), payload(2)).await.unwrap();
    assert_eq!(drain(&mut inbox), [message(1), Event::Lagged(1)]);

    for (url, complaint) in [
        (
            "memory://a?max_messages=0",
            "\"max_messages\" must be a number from 1",
        ),
        ("memory://a?maxbytes=1", "did you mean \"max_bytes\"?"),
        ("memory://u:s3cret@a", "only a name can follow the scheme"),
        ("memory://a/s3cret", "only a name can follow the scheme"),
    ] {
        let error = registry.connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains(complaint), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}
