//! Frames: the fixed header, the buffer that envelopes are written into, and the checked frame they are read from.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};

use super::{Envelope, EnvelopeKind, HEADER_LEN, MIN_VERSION, Reject, VERSION, codec::take, v1};
use crate::{id::NodeId, transport::Topic};

const MAGIC: [u8; 2] = [0xc1, b'S'];
/// Bit of the kind byte of a frame: a signature ends it.
const SIGNED: u8 = 0x80;
/// Bit of the kind byte of an envelope: a node id follows, and other nodes skip it.
pub(super) const ONLY: u8 = 0x80;

/// The number that binds a frame to its topic: FNV-1a 64 of the topic's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u64);

impl LaneId {
    /// The lane of `topic`.
    pub fn of(topic: &Topic) -> Self {
        struct Fnv(u64);
        impl fmt::Write for Fnv {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for byte in text.bytes() {
                    self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
                Ok(())
            }
        }
        let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
        // Neither the hash nor a topic's `Display` can fail.
        let _ = fmt::Write::write_fmt(&mut hash, format_args!("{topic}"));
        Self(hash.0)
    }
}

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Carries the envelopes numbered `seq..seq + count`.
    Data = 0,
    /// Carries nothing; `seq` is the number the next envelope of this lane will get.
    Tail = 1,
    /// Carries nothing; `seq` is a nonce by which the sender recognises it. Others answer with a [`Tail`](Self::Tail).
    Probe = 2,
    /// Carries nothing; the numbers `seq..seq + count` are withdrawn: the broker refused their frame, or they were never used.
    Void = 3,
}

/// The fixed header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Wire version the frame is written in.
    pub version: u8,
    /// What the frame is for.
    pub kind: FrameKind,
    /// The node that wrote it.
    pub origin: NodeId,
    /// The topic it was written for.
    pub lane: LaneId,
    /// Number of the first envelope; see [`FrameKind`]. `seq + count` does not overflow in a frame that was opened.
    pub seq: u64,
    /// Number of envelopes carried ([`FrameKind::Data`], at least 1) or withdrawn ([`FrameKind::Void`], at least 1);
    /// otherwise 0.
    pub count: u32,
}

impl FrameHead {
    /// Reads the header alone. The second value says whether the frame is signed.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, bool), Reject> {
        let rest = &mut &*bytes;
        let truncated = Reject::Malformed("header");
        if take(rest) != Some(MAGIC) {
            return Err(Reject::NotAFrame);
        }
        let [version, kind] = take(rest).ok_or(truncated)?;
        if !(MIN_VERSION..=VERSION).contains(&version) {
            return Err(Reject::Version(version));
        }
        let signed = kind & SIGNED != 0;
        let kind = match kind & !SIGNED {
            0 => FrameKind::Data,
            1 => FrameKind::Tail,
            2 => FrameKind::Probe,
            3 => FrameKind::Void,
            other => return Err(Reject::UnknownKind(other)),
        };
        let origin = take(rest).ok_or(truncated)?;
        let head = Self {
            version,
            kind,
            origin: NodeId::from_bytes(origin).map_err(|_| Reject::Malformed("origin"))?,
            lane: LaneId(u64::from_le_bytes(take(rest).ok_or(truncated)?)),
            seq: u64::from_le_bytes(take(rest).ok_or(truncated)?),
            count: u32::from_le_bytes(take(rest).ok_or(truncated)?),
        };
        let counts = matches!(kind, FrameKind::Data | FrameKind::Void);
        if counts != (head.count > 0) || head.seq.checked_add(head.count.into()).is_none() {
            return Err(Reject::Malformed("sequence"));
        }
        Ok((head, signed))
    }

    /// Reads the origin of a frame of any version.
    pub(super) fn claimed_origin(bytes: &[u8]) -> Option<NodeId> {
        let id = bytes.strip_prefix(&MAGIC)?.get(2..)?.first_chunk()?;
        NodeId::from_bytes(*id).ok()
    }

    fn to_bytes(self, signed: bool) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2] = self.version;
        bytes[3] = self.kind as u8 | if signed { SIGNED } else { 0 };
        bytes[4..20].copy_from_slice(self.origin.as_bytes());
        bytes[20..28].copy_from_slice(&self.lane.0.to_le_bytes());
        bytes[28..36].copy_from_slice(&self.seq.to_le_bytes());
        bytes[36..].copy_from_slice(&self.count.to_le_bytes());
        bytes
    }
}

/// A frame being filled with envelopes; made by [`Wire::begin`](super::Wire::begin).
pub struct FrameBuf {
    /// Room for the header, then the envelopes.
    pub(super) bytes: BytesMut,
    pub(super) count: u32,
    /// Bytes that sealing will add.
    tag: usize,
}

impl FrameBuf {
    pub(super) fn new(tag: usize) -> Self {
        let mut bytes = BytesMut::with_capacity(1024);
        bytes.resize(HEADER_LEN, 0);
        Self {
            bytes,
            count: 0,
            tag,
        }
    }

    /// Bytes the frame will have when sealed: header, envelopes and signature.
    // `is_empty` speaks of envelopes: a frame is never without bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.tag
    }

    /// Number of envelopes in it.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Whether it has no envelopes yet.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes the last envelope out again; `len` is the length before it.
    pub(crate) fn undo(&mut self, len: usize) {
        self.bytes.truncate(len - self.tag);
        self.count -= 1;
    }

    /// Writes the header over the room reserved for it.
    pub(super) fn finish(mut self, head: FrameHead, signed: bool) -> BytesMut {
        let data = head.kind == FrameKind::Data;
        if !data {
            self.bytes.truncate(HEADER_LEN);
        }
        let head = FrameHead {
            version: VERSION,
            count: if data { self.count } else { head.count },
            ..head
        };
        self.bytes[..HEADER_LEN].copy_from_slice(&head.to_bytes(signed));
        self.bytes
    }
}

impl fmt::Debug for FrameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (len, count) = (self.len(), self.count);
        write!(f, "FrameBuf({count} envelopes, {len} bytes)")
    }
}

/// A received frame whose version, lane, signature and envelope boundaries were checked.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The header.
    pub head: FrameHead,
    body: Bytes,
}

impl Frame {
    /// Checks that `body` is exactly as many length-prefixed envelopes as `head` says: where one envelope ends must be
    /// beyond doubt before a bad one may be skipped.
    pub(super) fn new(head: FrameHead, body: Bytes) -> Result<Self, Reject> {
        let mut rest = &*body;
        let mut count = 0u64;
        while let Some(len) = take(&mut rest) {
            let len = u32::from_le_bytes(len) as usize;
            rest = rest
                .get(len..)
                .ok_or(Reject::Malformed("envelope length"))?;
            count += 1;
        }
        let carried = match head.kind {
            FrameKind::Data => u64::from(head.count),
            FrameKind::Tail | FrameKind::Probe | FrameKind::Void => 0,
        };
        if !rest.is_empty() || count != carried {
            return Err(Reject::Malformed("envelope count"));
        }
        Ok(Self { head, body })
    }

    /// The envelopes in the order of their numbers; the `n`th, counted from 0, has the number `head.seq + n`, a bad one
    /// included.
    pub fn envelopes(&self) -> impl Iterator<Item = Result<Incoming, Reject>> {
        let version = self.head.version;
        let mut body = self.body.clone();
        std::iter::from_fn(move || {
            let len = u32::from_le_bytes(take(&mut &*body)?) as usize;
            body.advance(size_of::<u32>());
            if len > body.len() {
                return None;
            }
            Some(Incoming::parse(version, body.split_to(len)))
        })
    }
}

/// A received envelope whose body has not been looked at yet.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// If set, the envelope is for this node alone: others skip it without decoding.
    pub only: Option<NodeId>,
    kind: EnvelopeKind,
    version: u8,
    body: Bytes,
}

impl Incoming {
    fn parse(version: u8, mut bytes: Bytes) -> Result<Self, Reject> {
        let rest = &mut &*bytes;
        let [first] = take(rest).ok_or(Reject::Malformed("envelope kind"))?;
        let only = if first & ONLY != 0 {
            let id = take(rest).and_then(|id| NodeId::from_bytes(id).ok());
            Some(id.ok_or(Reject::Malformed("receiver"))?)
        } else {
            None
        };
        let number = first & !ONLY;
        let kind = EnvelopeKind::from_wire(number).ok_or(Reject::UnknownKind(number))?;
        let fixed = bytes.len() - rest.len();
        bytes.advance(fixed);
        Ok(Self {
            only,
            kind,
            version,
            body: bytes,
        })
    }

    /// What kind of envelope it is.
    pub const fn kind(&self) -> EnvelopeKind {
        self.kind
    }

    /// Decodes the body. Payloads are slices of the received bytes, which they keep alive.
    ///
    /// # Errors
    /// [`Reject::Malformed`] if the body is not what its kind prescribes, to the last byte.
    pub fn decode(self) -> Result<Envelope, Reject> {
        match self.version {
            1 => v1::decode(self.kind, self.body),
            other => Err(Reject::Version(other)),
        }
    }
}
