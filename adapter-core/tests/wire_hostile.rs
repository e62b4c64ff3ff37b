//! Whatever bytes arrive: no panic, no growth, no effect on the frames and envelopes beside them.
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::time::{Duration, Instant};

use allocation_counter::measure;
use bytes::Bytes;
use socketioxide_adapter_core::{
    NodeId,
    transport::Topic,
    wire::{
        Envelope, FrameHead, FrameKind, HEADER_LEN, Keys, LaneId, MAX_ITEMS, MAX_ROOM_LEN,
        MIN_VERSION, NativeWire, Reject, VERSION, Wire,
    },
};

mod wire_support;
use wire_support::{Sample, check::check, keys, lane, origin, samples};

/// A data frame around the given raw envelopes, each of which gets its length prefix.
fn frame_of(envelopes: &[&[u8]]) -> Vec<u8> {
    let head = FrameHead {
        version: VERSION,
        kind: FrameKind::Void,
        origin: origin(),
        lane: lane(),
        seq: 1,
        count: envelopes.len() as u32,
    };
    let wire = NativeWire::new();
    let mut bytes = wire.seal(wire.begin(), head).to_vec();
    bytes[3] = FrameKind::Data as u8;
    for envelope in envelopes {
        bytes.extend((envelope.len() as u32).to_le_bytes());
        bytes.extend(*envelope);
    }
    bytes
}

fn open(bytes: &[u8]) -> Result<Vec<Result<Envelope, Reject>>, Reject> {
    let frame = NativeWire::new().open(lane(), Bytes::copy_from_slice(bytes))?;
    let read = frame.envelopes().map(|incoming| incoming?.decode());
    Ok(read.collect())
}

#[test]
fn no_strict_prefix_of_a_frame_is_accepted() {
    for sample in samples() {
        for len in 0..sample.bytes.len() {
            let prefix = sample.bytes.slice(..len);
            check(&prefix);
            let opened = sample.wire.open(lane(), prefix);
            assert!(opened.is_err(), "{len} bytes of {}", sample.name);
        }
    }
}

#[test]
fn no_change_of_one_byte_panics_and_none_passes_a_signature() {
    for sample in samples() {
        let mut bytes = sample.bytes.to_vec();
        for at in 0..bytes.len() {
            let original = bytes[at];
            let changes = (0..8).map(|bit| 1 << bit).chain([0xff, 0x55]);
            for change in changes {
                bytes[at] = original ^ change;
                check(&bytes);
                if sample.is_signed() {
                    let opened = sample.wire.open(lane(), Bytes::copy_from_slice(&bytes));
                    assert!(opened.is_err(), "{} ^ {change:x} at {at}", sample.name);
                }
            }
            bytes[at] = original;
        }
    }
}

/// One of the ways in which bytes are damaged, or forged by somebody who knows the layout.
fn mutate(rng: &mut fastrand::Rng, samples: &[Sample], bytes: &mut Vec<u8>) {
    let at = rng.usize(..=bytes.len());
    match rng.u8(..8) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, rng.u8(..)),
        2 => bytes.splice(at..at, [0xff; 9]).for_each(drop),
        3 => {
            let other = &rng.choice(samples).unwrap().bytes;
            bytes.truncate(at);
            bytes.extend_from_slice(&other[at.min(other.len())..]);
        }
        4 => {
            let interesting = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *rng.choice(&interesting).unwrap();
            }
        }
        5 => {
            let end = rng.usize(at..=bytes.len());
            rng.fill(&mut bytes[at..end]);
        }
        _ => {
            // Inside the body: a changed header is mostly refused at once.
            if bytes.len() > HEADER_LEN {
                let at = rng.usize(HEADER_LEN..bytes.len());
                bytes[at] ^= 1 << rng.u8(..8);
            }
        }
    }
    // Repairs the length of the first envelope and the count, so that the damage gets past the outer checks.
    if rng.bool()
        && let Some(body) = bytes.len().checked_sub(HEADER_LEN + 4)
    {
        bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&1u32.to_le_bytes());
        bytes[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&(body as u32).to_le_bytes());
    }
}

#[test]
fn a_million_mutated_frames_do_no_harm_and_the_good_ones_between_them_are_read() {
    const FRAMES: u32 = 1_000_000;
    let samples = samples();
    let plain: Vec<&Sample> = samples.iter().filter(|s| !s.is_signed()).collect();
    let halves = [1, 2].map(|seed| {
        let (samples, plain) = (&samples, &plain);
        move || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut decoded = 0;
            for n in 0..FRAMES / 2 {
                let mut bytes = rng.choice(samples).unwrap().bytes.to_vec();
                for _ in 0..rng.u8(1..=3) {
                    mutate(&mut rng, samples, &mut bytes);
                }
                decoded += usize::from(check(&bytes) > 0);
                if n % 100 == 0 {
                    let good = rng.choice(plain).unwrap();
                    let read = open(&good.bytes).unwrap().into_iter().map(Result::unwrap);
                    assert!(read.eq(good.envelopes.iter().map(|(_, e)| e.clone())));
                }
            }
            decoded
        }
    });
    let decoded: usize = std::thread::scope(|scope| {
        let halves = halves.map(|half| scope.spawn(half));
        halves.map(|half| half.join().unwrap()).into_iter().sum()
    });
    // Otherwise the mutations would only ever test the outermost checks.
    assert!(decoded > FRAMES as usize / 20, "only {decoded} got through");
}

#[test]
fn a_bad_envelope_does_not_disturb_its_neighbours() {
    let (good, unknown, bad) = (&[13][..], &[99, 1, 2][..], &[4, 0xff][..]);
    let (empty, trailing, misaddressed) = (&[][..], &[13, 0][..], &[0x8d, 0, 0][..]);
    let bytes = frame_of(&[
        good,
        unknown,
        good,
        bad,
        good,
        empty,
        good,
        trailing,
        good,
        misaddressed,
        good,
    ]);
    let read = open(&bytes).unwrap();
    let (good, bad): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
    assert_eq!(good, vec![Ok(Envelope::Bye); 6]);
    let reasons: Vec<String> = bad
        .into_iter()
        .map(|r| r.unwrap_err().to_string())
        .collect();
    assert_eq!(
        reasons,
        [
            "unknown kind 99",
            "malformed target",
            "malformed envelope kind",
            "malformed trailing bytes",
            "malformed receiver",
        ]
    );
}

#[test]
fn the_receiver_is_known_before_anything_is_decoded() {
    let node = NodeId::random();
    let mut envelope = vec![0x80];
    envelope.extend(node.as_bytes());
    envelope.extend([0xff; 50]);
    let frame = NativeWire::new().open(lane(), frame_of(&[&envelope]).into());
    let incoming = frame.unwrap().envelopes().next().unwrap().unwrap();
    assert_eq!(incoming.only, Some(node));
    assert!(incoming.decode().is_err());
}

#[test]
fn foreign_frames_are_refused_by_name() {
    let wire = NativeWire::new();
    let good = frame_of(&[&[13]]);
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        wire.open(lane(), bytes.into()).unwrap_err()
    };
    assert_eq!(with(0, b'{'), Reject::NotAFrame);
    assert_eq!(with(2, MIN_VERSION - 1), Reject::Version(MIN_VERSION - 1));
    assert_eq!(with(2, VERSION + 1), Reject::Version(VERSION + 1));
    assert_eq!(with(3, 4), Reject::UnknownKind(4));
    assert_eq!(with(4, b' '), Reject::Malformed("origin"));
    assert_eq!(with(36, 2), Reject::Malformed("envelope count"));
    assert_eq!(with(36, 0), Reject::Malformed("sequence"));
    assert_eq!(
        with(3, FrameKind::Void as u8),
        Reject::Malformed("envelope count")
    );
    assert_eq!(
        with(3, FrameKind::Tail as u8),
        Reject::Malformed("sequence")
    );
    let last = good.len();
    let overflow = [&good[..28], &[0xff; 8], &good[36..]].concat();
    let overflow = wire.open(lane(), overflow.into());
    assert_eq!(overflow.unwrap_err(), Reject::Malformed("sequence"));
    for len in 1..=3 {
        let trailing = [&good[..], &[0; 3][..len]].concat();
        let trailing = wire.open(lane(), trailing.into());
        assert_eq!(trailing.unwrap_err(), Reject::Malformed("envelope count"));
    }
    let elsewhere = LaneId::of(&Topic::Cluster);
    let replayed = wire.open(elsewhere, good.clone().into());
    assert_eq!(replayed.unwrap_err(), Reject::WrongLane(lane()));
    let narrow = NativeWire::new().with_limits(last - 1);
    let refused = narrow.open(lane(), good.clone().into());
    assert_eq!(refused.unwrap_err(), Reject::TooLong(last));

    let mut newer = good;
    newer[2] = VERSION + 1;
    assert_eq!(wire.claimed_origin(&newer), Some(origin()));
    assert_eq!(
        wire.claimed_origin(b"{\"json\":true,\"long\":\"enough\"}"),
        None
    );
}

#[test]
fn bombs_are_refused_without_allocating_for_them() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let name_of_huge_len = [&[7, 1, 1][..], &[0xff; 9], &[1]].concat();
    let bombs: [(&str, Vec<u8>); 9] = [
        ("rooms", [&[4, 0][..], &huge, &[0, 0, 0]].concat()),
        ("except", [&[4, 0, 0][..], &huge, &[0, 0]].concat()),
        ("rooms to join", [&[2, 0, 0, 0, 0, 0][..], &huge].concat()),
        ("answered rooms", [&[7, 1][..], &huge, &[0; 100]].concat()),
        ("length of a name", name_of_huge_len),
        (
            "attachments",
            [&[0, 0, 0, 0, 0, 0, 1, 1][..], &huge, &[0; 100]].concat(),
        ),
        (
            "length of an attachment",
            [&[0, 0, 0, 0, 0, 0, 1, 1, 1][..], &[0xff; 9], &[1]].concat(),
        ),
        (
            "lengths of attachments that overflow",
            [
                &[0, 0, 0, 0, 0, 0, 1, 1, 2][..],
                &[0xff; 9],
                &[1],
                &[0xff; 9],
                &[1],
            ]
            .concat(),
        ),
        (
            "sockets that are none",
            [&[8, 1][..], &[b' '; 1600]].concat(),
        ),
    ];
    for (name, envelope) in bombs {
        let bytes = Bytes::from(frame_of(&[&envelope]));
        let started = Instant::now();
        let allocated = measure(|| {
            let frame = NativeWire::new().open(lane(), bytes.clone()).unwrap();
            let incoming = frame.envelopes().next().unwrap().unwrap();
            let rejected = incoming.decode();
            assert!(matches!(rejected, Err(Reject::Malformed(_))), "{name}");
        });
        assert!(allocated.bytes_total < 4096, "{name}: {allocated:?}");
        assert!(started.elapsed() < Duration::from_secs(1), "{name}");
    }

    let lengths = [u32::MAX, 1 << 31, 1 << 20];
    for len in lengths {
        let mut bytes = frame_of(&[&[13]]);
        bytes[HEADER_LEN..HEADER_LEN + 4].copy_from_slice(&len.to_le_bytes());
        let allocated = measure(|| {
            let opened = NativeWire::new().open(lane(), bytes.into());
            assert_eq!(opened.unwrap_err(), Reject::Malformed("envelope length"));
        });
        assert!(allocated.bytes_total < 256, "{allocated:?}");
    }
}

#[test]
fn what_no_honest_node_writes_is_refused() {
    let varint = |n: usize| postcard::to_stdvec(&n).unwrap();
    let many = [&[7, 1][..], &varint(MAX_ITEMS + 1), &[0; MAX_ITEMS + 1]].concat();
    let long = [
        &[7, 1, 1][..],
        &varint(MAX_ROOM_LEN + 1),
        &[b'x'; MAX_ROOM_LEN + 1],
    ]
    .concat();
    let (sockets, lane) = ([b'A'; 17], [0; 8]);
    let cases: [(Vec<u8>, &str); 11] = [
        (many, "room count"),
        (long, "room"),
        (vec![7, 1, 1, 1, 0xff], "room"),
        (vec![4, 8, 0, 0, 0, 0], "target flags"),
        (vec![4, 0, 0, 0, 2, 0], "target"),
        ([&[8, 1][..], &sockets].concat(), "sockets"),
        (vec![12, 0, 2, 1, 0, 0, 0, 0], "presence versions"),
        (
            [&[12, 0, 1, 1, 0, 0, 0, 0][..], &lane].concat(),
            "presence lanes",
        ),
        (vec![12, 0, 1, 1, 0, 0, 2, 0], "presence lanes"),
        (vec![12, 0, 1, 1, 0, 0, 1, 0, 7], "presence lanes"),
        (vec![12, 0, 1, 1, 0, 0, 4, 0], "presence"),
    ];
    for (envelope, what) in cases {
        let read = open(&frame_of(&[&envelope])).unwrap();
        assert_eq!(read, [Err(Reject::Malformed(what))]);
    }
}

#[test]
fn a_signature_is_demanded_checked_and_not_tolerated_without_keys() {
    let signing = |secret: &str| NativeWire::new().with_keys(Keys::new(secret).unwrap());
    let seal = |wire: &NativeWire| {
        let mut frame = wire.begin();
        wire.append(&mut frame, None, &Envelope::Bye).unwrap();
        let head = FrameHead {
            version: VERSION,
            kind: FrameKind::Data,
            origin: origin(),
            lane: lane(),
            seq: 1,
            count: 1,
        };
        wire.seal(frame, head)
    };
    let (old, new) = ("the old secret of us", "the new secret of us");
    let plain = NativeWire::new();
    let refused = |by: &NativeWire, of: &NativeWire| by.open(lane(), seal(of)).unwrap_err();
    assert_eq!(refused(&signing(old), &plain), Reject::Unsigned);
    assert_eq!(refused(&plain, &signing(old)), Reject::UnexpectedSignature);
    assert_eq!(refused(&signing(old), &signing(new)), Reject::BadSignature);

    // Every step of a rotation understands the step before and after it.
    let widened = |sign: &str, also: &str| {
        let keys = Keys::new(sign).unwrap().accepting(also).unwrap();
        NativeWire::new().with_keys(keys)
    };
    let steps = [
        signing(old),
        widened(old, new),
        widened(new, old),
        signing(new),
    ];
    for pair in steps.windows(2) {
        for (writer, reader) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
            assert!(reader.open(lane(), seal(writer)).is_ok());
        }
    }
    assert_eq!(seal(&steps[0]), seal(&steps[1]), "the first key signs");
}

#[test]
fn debug_output_shows_no_secret() {
    let wire = NativeWire::new().with_keys(keys());
    let shown = format!("{wire:?} {:?}", wire.begin());
    assert!(!shown.contains("a secret"), "{shown}");
}
