//! Frames to test the wire with: one of every kind, with fixed content.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "every test binary compiles this module, uses a part of it, and fails by panicking"
)]

pub(crate) mod check;

use std::{fs, path::PathBuf, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_core::{
    NodeId, RequestId,
    transport::Topic,
    wire::{
        Envelope, FrameHead, FrameKind, Keys, LaneId, Namespaces, NativeWire, Payload, Presence,
        VERSION, Wire,
    },
};
use socketioxide_core::adapter::{BroadcastFlags, BroadcastOptions};

/// The node that writes all sample frames.
pub(crate) fn origin() -> NodeId {
    "Origin_of_frame1".parse().unwrap()
}

/// The lane of all sample frames.
pub(crate) fn lane() -> LaneId {
    LaneId::of(&Topic::Namespace("/chat".into()))
}

/// The keys of the signed samples.
pub(crate) fn keys() -> Keys {
    Keys::new("a secret of 24 bytes ...").unwrap()
}

/// A sample: its bytes, and what it must decode to.
pub(crate) struct Sample {
    pub(crate) name: &'static str,
    pub(crate) wire: NativeWire,
    pub(crate) head: FrameHead,
    pub(crate) envelopes: Vec<(Option<NodeId>, Envelope)>,
    pub(crate) bytes: Bytes,
}

impl Sample {
    fn new(
        name: &'static str,
        wire: NativeWire,
        kind: FrameKind,
        (seq, count): (u64, u32),
        envelopes: Vec<(Option<NodeId>, Envelope)>,
    ) -> Self {
        let head = FrameHead {
            version: VERSION,
            kind,
            origin: origin(),
            lane: lane(),
            seq,
            count,
        };
        let mut frame = wire.begin();
        for (only, envelope) in &envelopes {
            wire.append(&mut frame, *only, envelope).unwrap();
        }
        let bytes = wire.seal(frame, head);
        Self {
            name,
            wire,
            head,
            envelopes,
            bytes,
        }
    }

    pub(crate) fn is_signed(&self) -> bool {
        self.bytes[3] & 0x80 != 0
    }
}

/// One frame per kind of envelope, then the other kinds of frame, a batch, and a signed frame.
pub(crate) fn samples() -> Vec<Sample> {
    let plain = NativeWire::new;
    let mut samples: Vec<Sample> = envelopes()
        .into_iter()
        .map(|(name, envelope)| {
            let envelopes = vec![(None, envelope)];
            Sample::new(name, plain(), FrameKind::Data, (7, 1), envelopes)
        })
        .collect();
    let bye = || (None, Envelope::Bye);
    let asked = ("Node_that_is_me1".parse().ok(), Envelope::AskPresence);
    let batch = || {
        let mut batch: Vec<_> = envelopes().into_iter().map(|(_, e)| (None, e)).collect();
        batch.insert(1, asked.clone());
        batch
    };
    let count = batch().len() as u32;
    samples.extend([
        Sample::new("frame_tail", plain(), FrameKind::Tail, (8, 0), vec![]),
        Sample::new(
            "frame_probe",
            plain(),
            FrameKind::Probe,
            (u64::MAX, 0),
            vec![],
        ),
        Sample::new("frame_void", plain(), FrameKind::Void, (3, 300), vec![]),
        Sample::new("frame_batch", plain(), FrameKind::Data, (1, count), batch()),
        Sample::new(
            "frame_signed",
            plain().with_keys(keys()),
            FrameKind::Data,
            (1 << 40, 2),
            vec![asked.clone(), bye()],
        ),
        Sample::new(
            "frame_signed_tail",
            plain().with_keys(keys()),
            FrameKind::Tail,
            (1, 0),
            vec![],
        ),
    ]);
    samples
}

fn envelopes() -> Vec<(&'static str, Envelope)> {
    let sid = "Socket_number_01".parse().unwrap();
    let mut everything = BroadcastOptions::new(sid);
    everything.add_flag(BroadcastFlags::Local);
    everything.add_flag(BroadcastFlags::Broadcast);
    everything.add_flag(BroadcastFlags::Volatile);
    everything.server_id = Some(origin().to_uid());
    everything.rooms = ["red", "größe"].map(Into::into).into_iter().collect();
    everything.except = [""].map(Into::into).into_iter().collect();
    let mut to_all = BroadcastOptions::default();
    to_all.add_flag(BroadcastFlags::Broadcast);
    let request = RequestId(300);
    let text = Payload {
        text: true,
        data: Bytes::from_static(b"2[\"hi\",\"\xc3\xa9\"]"),
        attachments: None,
    };
    let attached = Payload {
        text: true,
        data: Bytes::from_static(b"51-[\"file\",{\"_placeholder\":true,\"num\":0}]"),
        attachments: Some(vec![
            Bytes::from_static(&[0, 255, 128]),
            Bytes::new(),
            Bytes::from(vec![7; 130]),
        ]),
    };
    let binary = Payload {
        text: false,
        data: Bytes::from_static(&[0x83, 0xa4, 0xff]),
        attachments: None,
    };
    let presence = |hello, live, namespaces| {
        Envelope::Presence(Presence {
            age: Duration::from_millis(90_061_001),
            min_version: 1,
            max_version: 2,
            hello,
            live,
            namespaces,
        })
    };
    let lanes = vec![lane(), LaneId(0)];
    vec![
        (
            "broadcast_text",
            Envelope::Broadcast {
                opts: to_all.clone(),
                payload: text.clone(),
            },
        ),
        (
            "broadcast_binary",
            Envelope::Broadcast {
                opts: BroadcastOptions::default(),
                payload: binary.clone(),
            },
        ),
        (
            "broadcast_attachments",
            Envelope::Broadcast {
                opts: everything.clone(),
                payload: attached,
            },
        ),
        (
            "broadcast_with_ack",
            Envelope::BroadcastWithAck {
                request,
                timeout: Some(Duration::from_millis(1500)),
                opts: to_all.clone(),
                payload: text.clone(),
            },
        ),
        (
            "broadcast_with_ack_default_timeout",
            Envelope::BroadcastWithAck {
                request,
                timeout: None,
                opts: everything.clone(),
                payload: binary,
            },
        ),
        (
            "join",
            Envelope::Join {
                opts: everything.clone(),
                rooms: vec!["blue".into(), "größe".into()],
            },
        ),
        (
            "leave",
            Envelope::Leave {
                opts: to_all.clone(),
                rooms: vec![],
            },
        ),
        (
            "disconnect",
            Envelope::Disconnect {
                opts: everything.clone(),
            },
        ),
        (
            "rooms",
            Envelope::Rooms {
                request: RequestId(u64::MAX),
                opts: to_all,
            },
        ),
        (
            "sockets",
            Envelope::Sockets {
                request: RequestId(0),
                opts: everything,
            },
        ),
        (
            "rooms_answer",
            Envelope::RoomsAnswer {
                request,
                rooms: vec!["red".into(), "".into(), "größe".into()],
            },
        ),
        (
            "sockets_answer",
            Envelope::SocketsAnswer {
                request,
                sockets: vec![sid, "Socket_number_02".parse().unwrap()],
            },
        ),
        (
            "ack_count",
            Envelope::AckCount {
                request,
                count: 70_000,
            },
        ),
        (
            "ack",
            Envelope::Ack {
                request,
                sid,
                result: Ok(text),
            },
        ),
        (
            "ack_error",
            Envelope::Ack {
                request,
                sid,
                result: Err(Bytes::from_static(b"\"Timeout\"")),
            },
        ),
        ("ask_presence", Envelope::AskPresence),
        (
            "presence_version",
            presence(false, true, Namespaces::Version(9)),
        ),
        (
            "presence_full",
            presence(true, false, Namespaces::Full { version: 2, lanes }),
        ),
        (
            "presence_added",
            presence(
                false,
                true,
                Namespaces::Added {
                    version: 3,
                    lane: lane(),
                },
            ),
        ),
        (
            "presence_removed",
            presence(
                false,
                true,
                Namespaces::Removed {
                    version: 4,
                    lane: lane(),
                },
            ),
        ),
        ("bye", Envelope::Bye),
    ]
}

/// The directory of the golden files.
pub(crate) fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Reads the bytes of a golden file: hexadecimal, with comments from `#` to the end of the line.
pub(crate) fn golden(name: &str) -> Option<Vec<u8>> {
    let text = fs::read_to_string(golden_dir().join(name).with_extension("hex")).ok()?;
    let digits: Vec<u32> = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(str::chars)
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("hexadecimal digits"))
        .collect();
    Some(
        digits
            .chunks(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect(),
    )
}
