//! What a message costs on its way through the wire: `cargo bench -p bench --bench wire`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "what criterion's macros make"
)]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use socketioxide_adapter::{
    NodeId,
    transport::Topic,
    wire::{Envelope, FrameHead, FrameKind, Keys, LaneId, NativeWire, Payload, Wire},
};
use socketioxide_core::adapter::{BroadcastFlags, BroadcastOptions};

fn envelope(bytes: usize) -> Envelope {
    let mut opts = BroadcastOptions::default();
    opts.add_flag(BroadcastFlags::Broadcast);
    opts.rooms.push("lobby".into());
    Envelope::Broadcast {
        opts,
        payload: Payload {
            text: true,
            data: Bytes::from(vec![b'x'; bytes]),
            attachments: None,
        },
    }
}

fn head(count: u32) -> FrameHead {
    FrameHead {
        version: socketioxide_adapter::wire::VERSION,
        kind: FrameKind::Data,
        origin: NodeId::random(),
        lane: lane(),
        seq: 1,
        count,
    }
}

fn lane() -> LaneId {
    LaneId::of(&Topic::Namespace("/".into()))
}

fn encode(wire: &NativeWire, envelope: &Envelope, count: u32) -> Bytes {
    let mut frame = wire.begin();
    for _ in 0..count {
        wire.append(&mut frame, None, envelope).unwrap();
    }
    wire.seal(frame, head(count))
}

fn wires() -> [(&'static str, NativeWire); 2] {
    let keys = Keys::new([7; Keys::MIN_LEN]).unwrap();
    [
        ("", NativeWire::new()),
        (", signed", NativeWire::new().with_keys(keys)),
    ]
}

fn frames(c: &mut Criterion) {
    for (signed, wire) in wires() {
        for (bytes, count) in [
            (64, 1),
            (64, 256),
            (1 << 10, 1),
            (1 << 10, 100),
            (64 << 10, 1),
        ] {
            let mut group = c.benchmark_group(format!("{count} × {bytes} B{signed}"));
            group.throughput(Throughput::Elements(count.into()));
            let envelope = envelope(bytes);
            group.bench_function("encode", |b| {
                b.iter(|| encode(&wire, black_box(&envelope), count));
            });
            let sealed = encode(&wire, &envelope, count);
            group.bench_function("decode", |b| {
                b.iter_batched(
                    || sealed.clone(),
                    |sealed| {
                        let frame = wire.open(lane(), sealed).unwrap();
                        for incoming in frame.envelopes() {
                            black_box(incoming.unwrap().decode().unwrap());
                        }
                    },
                    BatchSize::SmallInput,
                );
            });
            // How a node's own echo is recognised.
            group.bench_function("peek", |b| {
                b.iter(|| wire.peek(black_box(&sealed)).unwrap())
            });
        }
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
