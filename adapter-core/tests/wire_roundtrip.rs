//! Whatever envelopes a node writes, every node reads the same.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::time::Duration;

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use socketioxide_adapter_core::{
    ErrorKind, NodeId, RequestId,
    wire::{
        Envelope, FrameHead, FrameKind, LaneId, MAX_ITEMS, MAX_ROOM_LEN, MAX_TIMEOUT, Namespaces,
        NativeWire, Payload, Presence, VERSION, Wire,
    },
};
use socketioxide_core::{
    Sid, Uid,
    adapter::{BroadcastFlags, BroadcastOptions, Room},
};

mod wire_support;
use wire_support::{keys, lane, origin};

fn head(seq: u64, count: u32) -> FrameHead {
    FrameHead {
        version: VERSION,
        kind: FrameKind::Data,
        origin: origin(),
        lane: lane(),
        seq,
        count,
    }
}

/// Sends one envelope over `wire` and returns what arrives.
fn through(wire: &NativeWire, envelope: &Envelope) -> Envelope {
    let mut frame = wire.begin();
    wire.append(&mut frame, None, envelope).unwrap();
    let frame = wire.open(lane(), wire.seal(frame, head(1, 1))).unwrap();
    let incoming = frame.envelopes().next().unwrap().unwrap();
    incoming.decode().unwrap()
}

fn sid() -> impl Strategy<Value = Sid> {
    prop_oneof![
        9 => "[A-Za-z0-9_-]{16}".prop_map(|text| text.parse().unwrap()),
        1 => Just(Sid::ZERO),
    ]
}

fn uid() -> impl Strategy<Value = Uid> {
    prop_oneof![
        9 => "[A-Za-z0-9_-]{16}".prop_map(|text| text.parse().unwrap()),
        1 => Just(Uid::ZERO),
    ]
}

fn node() -> impl Strategy<Value = NodeId> {
    "[A-Za-z0-9_-]{16}".prop_map(|text| text.parse().unwrap())
}

fn rooms() -> impl Strategy<Value = Vec<Room>> {
    vec(any::<String>().prop_map(Room::from), 0..7)
}

fn opts() -> impl Strategy<Value = BroadcastOptions> {
    let flags = [
        BroadcastFlags::Local,
        BroadcastFlags::Broadcast,
        BroadcastFlags::Volatile,
    ];
    let flags = proptest::sample::subsequence(flags.to_vec(), 0..=3);
    let parts = (
        flags,
        rooms(),
        rooms(),
        option::of(sid()),
        option::of(uid()),
    );
    parts.prop_map(|(flags, rooms, except, sid, server_id)| {
        let mut opts = BroadcastOptions::default();
        flags.into_iter().for_each(|flag| opts.add_flag(flag));
        opts.rooms = rooms.into();
        opts.except = except.into();
        opts.sid = sid;
        opts.server_id = server_id;
        opts
    })
}

fn blob() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..300).prop_map(Bytes::from)
}

fn payload() -> impl Strategy<Value = Payload> {
    let parts = (any::<bool>(), blob(), option::of(vec(blob(), 0..6)));
    parts.prop_map(|(text, data, attachments)| Payload {
        text,
        data,
        attachments,
    })
}

fn namespaces() -> impl Strategy<Value = Namespaces> {
    let lane = || any::<u64>().prop_map(LaneId);
    prop_oneof![
        any::<u32>().prop_map(Namespaces::Version),
        (any::<u32>(), vec(lane(), 0..20))
            .prop_map(|(version, lanes)| Namespaces::Full { version, lanes }),
        (any::<u32>(), lane()).prop_map(|(version, lane)| Namespaces::Added { version, lane }),
        (any::<u32>(), lane()).prop_map(|(version, lane)| Namespaces::Removed { version, lane }),
    ]
}

fn presence() -> impl Strategy<Value = Presence> {
    let versions = (any::<u8>(), any::<u8>());
    let parts = (any::<u64>(), versions, any::<[bool; 2]>(), namespaces());
    parts.prop_map(|(age, (a, b), [hello, live], namespaces)| Presence {
        age: Duration::from_millis(age),
        min_version: a.min(b),
        max_version: a.max(b),
        hello,
        live,
        namespaces,
    })
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let request = || any::<u64>().prop_map(RequestId);
    let timeout = option::of((0..=MAX_TIMEOUT.as_millis() as u64).prop_map(Duration::from_millis));
    let result = prop_oneof![payload().prop_map(Ok), blob().prop_map(Err)];
    prop_oneof![
        (opts(), payload()).prop_map(|(opts, payload)| Envelope::Broadcast { opts, payload }),
        (request(), timeout, opts(), payload()).prop_map(|(request, timeout, opts, payload)| {
            Envelope::BroadcastWithAck {
                request,
                timeout,
                opts,
                payload,
            }
        }),
        (opts(), rooms()).prop_map(|(opts, rooms)| Envelope::Join { opts, rooms }),
        (opts(), rooms()).prop_map(|(opts, rooms)| Envelope::Leave { opts, rooms }),
        opts().prop_map(|opts| Envelope::Disconnect { opts }),
        (request(), opts()).prop_map(|(request, opts)| Envelope::Rooms { request, opts }),
        (request(), opts()).prop_map(|(request, opts)| Envelope::Sockets { request, opts }),
        (request(), rooms()).prop_map(|(request, rooms)| Envelope::RoomsAnswer { request, rooms }),
        (request(), vec(sid(), 0..9))
            .prop_map(|(request, sockets)| Envelope::SocketsAnswer { request, sockets }),
        (request(), any::<u32>())
            .prop_map(|(request, count)| Envelope::AckCount { request, count }),
        (request(), sid(), result).prop_map(|(request, sid, result)| Envelope::Ack {
            request,
            sid,
            result
        }),
        Just(Envelope::AskPresence),
        presence().prop_map(Envelope::Presence),
        Just(Envelope::Bye),
    ]
}

proptest! {
    #[test]
    fn a_batch_arrives_as_it_was_written(
        batch in vec((option::of(node()), envelope()), 1..12),
        seq in 0..u64::MAX - 12,
        signed: bool,
    ) {
        let mut wire = NativeWire::new();
        if signed {
            wire = wire.with_keys(keys());
        }
        let mut frame = wire.begin();
        prop_assert!(frame.is_empty());
        for (only, envelope) in &batch {
            wire.append(&mut frame, *only, envelope).unwrap();
        }
        let (len, count) = (frame.len(), frame.count());
        let bytes = wire.seal(frame, head(seq, count));
        prop_assert_eq!((bytes.len(), count as usize), (len, batch.len()));
        prop_assert_eq!(wire.peek(&bytes), Ok(head(seq, count)));
        let frame = wire.open(lane(), bytes).unwrap();
        prop_assert_eq!(frame.head, head(seq, count));
        let read: Vec<_> = frame
            .envelopes()
            .map(|incoming| {
                let incoming = incoming.unwrap();
                (incoming.only, incoming.decode().unwrap())
            })
            .collect();
        prop_assert_eq!(read, batch);
    }

    #[test]
    fn frames_without_envelopes_arrive_as_they_were_written(seq: u64, withdrawn in 1u32..) {
        let wire = NativeWire::new();
        for (kind, count) in [
            (FrameKind::Tail, 0),
            (FrameKind::Probe, 0),
            (FrameKind::Void, withdrawn),
        ] {
            let seq = seq.min(u64::MAX - u64::from(count));
            let head = FrameHead { kind, ..head(seq, count) };
            let frame = wire.open(lane(), wire.seal(wire.begin(), head)).unwrap();
            prop_assert_eq!(frame.head, head);
            prop_assert_eq!(frame.envelopes().count(), 0);
        }
    }
}

#[test]
fn a_timeout_is_rounded_up_to_milliseconds_and_cut_to_a_day() {
    let cases = [
        (Duration::ZERO, Duration::ZERO),
        (Duration::from_nanos(1), Duration::from_millis(1)),
        (Duration::from_micros(1_001), Duration::from_millis(2)),
        (MAX_TIMEOUT, MAX_TIMEOUT),
        (Duration::MAX, MAX_TIMEOUT),
    ];
    for (written, read) in cases {
        let with = |timeout| Envelope::BroadcastWithAck {
            request: RequestId(1),
            timeout: Some(timeout),
            opts: BroadcastOptions::default(),
            payload: Payload {
                text: false,
                data: Bytes::new(),
                attachments: None,
            },
        };
        assert_eq!(through(&NativeWire::new(), &with(written)), with(read));
    }
}

#[test]
fn payloads_are_slices_of_the_received_bytes() {
    let wire = NativeWire::new();
    let mut frame = wire.begin();
    let envelope = Envelope::Broadcast {
        opts: BroadcastOptions::default(),
        payload: Payload {
            text: true,
            data: Bytes::from_static(b"51-[]"),
            attachments: Some(vec![Bytes::from(vec![1; 1000])]),
        },
    };
    wire.append(&mut frame, None, &envelope).unwrap();
    let bytes = wire.seal(frame, head(1, 1));
    let range = bytes.as_ptr_range();
    let frame = wire.open(lane(), bytes).unwrap();
    let incoming = frame.envelopes().next().unwrap().unwrap();
    let Envelope::Broadcast { payload, .. } = incoming.decode().unwrap() else {
        panic!("a broadcast stays one")
    };
    assert!(range.contains(&payload.data.as_ptr()));
    assert!(range.contains(&payload.attachments.unwrap()[0].as_ptr()));
}

#[test]
fn what_exceeds_a_limit_leaves_the_frame_as_it_was() {
    let wire = NativeWire::new().with_limits(1000).with_keys(keys());
    let wide = NativeWire::new();
    let room = |len: usize| -> Room { "x".repeat(len).into() };
    let leave = |rooms| Envelope::Leave {
        opts: BroadcastOptions::default(),
        rooms,
    };
    let blob = |len| Envelope::Ack {
        request: RequestId(1),
        sid: Sid::ZERO,
        result: Err(Bytes::from(vec![0; len])),
    };
    let too_large: [(&NativeWire, Envelope); 4] = [
        (&wire, blob(1000)),
        (&wire, leave(vec![room(500), room(500)])),
        (&wide, leave(vec![room(MAX_ROOM_LEN + 1)])),
        (&wide, leave(vec!["".into(); MAX_ITEMS + 1])),
    ];
    for (wire, envelope) in too_large {
        let mut frame = wire.begin();
        wire.append(&mut frame, None, &Envelope::Bye).unwrap();
        let (len, count) = (frame.len(), frame.count());
        let error = wire.append(&mut frame, None, &envelope).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert_eq!((frame.len(), frame.count()), (len, count));
        wire.append(&mut frame, None, &Envelope::AskPresence)
            .unwrap();
        let frame = wire.open(lane(), wire.seal(frame, head(1, 2))).unwrap();
        let read: Vec<_> = frame
            .envelopes()
            .map(|incoming| incoming.unwrap().decode().unwrap())
            .collect();
        assert_eq!(read, [Envelope::Bye, Envelope::AskPresence]);
    }
}

#[test]
fn what_just_fits_is_written_and_accepted() {
    let wire = NativeWire::new().with_limits(1000).with_keys(keys());
    let blob = |len| Envelope::Ack {
        request: RequestId(1),
        sid: Sid::ZERO,
        result: Err(Bytes::from(vec![0; len])),
    };
    let mut frame = wire.begin();
    wire.append(&mut frame, None, &blob(0)).unwrap();
    let room = 1000 - frame.len();
    let mut frame = wire.begin();
    assert!(wire.append(&mut frame, None, &blob(room + 1)).is_err());
    wire.append(&mut frame, None, &blob(room)).unwrap();
    let bytes = wire.seal(frame, head(1, 1));
    assert_eq!(bytes.len(), 1000);
    assert!(wire.open(lane(), bytes).is_ok());

    let wide = NativeWire::new();
    let limits = Envelope::Leave {
        opts: BroadcastOptions::default(),
        rooms: vec!["x".repeat(MAX_ROOM_LEN).into()],
    };
    assert_eq!(through(&wide, &limits), limits);
    let many = Envelope::RoomsAnswer {
        request: RequestId(1),
        rooms: vec!["".into(); MAX_ITEMS],
    };
    assert_eq!(through(&wide, &many), many);
}
