//! A million damaged frames into live nodes: nothing panics, nothing grows, and every good message arrives.

#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use fastrand::Rng;
use socketioxide_adapter_core::{
    ClusterConfig, NodeId,
    memory::MemoryBus,
    transport::{Topic, Transport},
    wire::{Envelope, FrameHead, FrameKind, Keys, LaneId, NativeWire, Payload, Wire},
};
use socketioxide_core::adapter::{BroadcastOptions, CoreAdapter};
use support::{Ack, Node, event, eventually, everyone, wire};

const ROUNDS: u64 = 500;
const FRAMES_PER_ROUND: usize = 1_000;

/// A whole frame of a stranger for a room that nobody is in.
fn frame(wire: &NativeWire, origin: NodeId) -> Bytes {
    let mut opts = BroadcastOptions::default();
    opts.rooms.push("nobody".into());
    let mut buf = wire.begin();
    for text in ["2[\"a\"]", "2[\"b\",{\"c\":[1,2,3]}]"] {
        let envelope = Envelope::Broadcast {
            opts: opts.clone(),
            payload: Payload {
                text: true,
                data: Bytes::from_static(text.as_bytes()),
                attachments: None,
            },
        };
        wire.append(&mut buf, None, &envelope).unwrap();
    }
    let head = FrameHead {
        version: 1,
        kind: FrameKind::Data,
        origin,
        lane: LaneId::of(&Topic::Namespace("/".into())),
        seq: 1,
        count: 2,
    };
    wire.seal(buf, head)
}

/// Damages one to four bytes from `from` on, and sometimes cuts the end off.
fn damage(rng: &mut Rng, frame: &[u8], from: usize) -> Bytes {
    let mut bytes = frame.to_vec();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(from..bytes.len());
        bytes[at] ^= rng.u8(1..);
    }
    if rng.u8(..) < 32 {
        bytes.truncate(rng.usize(..bytes.len()));
    }
    // Two blows on one byte can undo each other.
    if bytes == frame {
        bytes[from] ^= 1;
    }
    bytes.into()
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Sends the frames between good messages; returns how many were refused.
async fn attack(
    config: ClusterConfig,
    wire_of_stranger: NativeWire,
    from: usize,
    at_least: u64,
) -> u64 {
    let bus = MemoryBus::new();
    let (a, b) = (
        Node::new(bus.connect(), config.clone()),
        Node::new(bus.connect(), config),
    );
    let (sender, _) = a.namespace("/").await;
    let (_receiver, sockets) = b.namespace("/").await;
    let sid = sockets.add(Ack::Never);
    let stranger = bus.connect();
    let template = frame(&wire_of_stranger, NodeId::random());
    let topics = [
        Topic::Namespace("/".into()),
        Topic::Cluster,
        Topic::Node(b.id()),
    ];
    let mut rng = Rng::with_seed(7);
    let mut before = 0;
    for round in 0..ROUNDS {
        for i in 0..FRAMES_PER_ROUND {
            let topic = if i % 10 == 0 {
                &topics[rng.usize(..3)]
            } else {
                &topics[0]
            };
            let damaged = damage(&mut rng, &template, from);
            stranger.publish(topic, damaged).await.unwrap();
        }
        let text = round.to_string();
        sender
            .broadcast(event("/", &text), everyone())
            .await
            .unwrap();
        eventually("the good message", || {
            sockets.received(sid).len() as u64 == round + 1
        })
        .await;
        if round == ROUNDS / 5 {
            before = resident_bytes();
        }
    }
    let expected: Vec<String> = (0..ROUNDS).map(|i| wire(&i.to_string())).collect();
    assert_eq!(sockets.received(sid), expected);
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "grew by {grown} bytes");
    let refused = || {
        let stats = b.cluster.stats();
        stats.frames_malformed + stats.frames_unauthentic + stats.frames_incompatible
    };
    // The last ones of the other topics may still be on their way.
    eventually("everything handled", || refused() >= at_least).await;
    refused()
}

#[tokio::test]
async fn half_a_million_damaged_frames_do_no_harm_without_keys() {
    // Whoever may publish to a cluster without keys may also speak for others: the sender's name stays whole here.
    attack(ClusterConfig::default(), NativeWire::new(), 20, 100_000).await;
}

#[tokio::test]
async fn of_half_a_million_damaged_frames_not_one_passes_the_signature() {
    let keys = Keys::new("0123456789abcdef").unwrap();
    let config = ClusterConfig::default().with_keys(Some(keys.clone()));
    let all = ROUNDS * FRAMES_PER_ROUND as u64;
    let refused = attack(config, NativeWire::new().with_keys(keys), 0, all).await;
    assert_eq!(refused, all);
}
