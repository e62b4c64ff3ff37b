//! Wire version 1: how envelopes become frames of bytes and back.
//!
//! The hub speaks in [`Envelope`]s, a transport moves bytes; a [`Wire`] stands between. [`NativeWire`] is the adapter's
//! own. It batches envelopes into numbered frames, signs them if it has [`Keys`], and treats everything received as
//! hostile: sizes are checked before anything is allocated, a bad envelope is skipped without touching its neighbours,
//! and no input makes it panic. Every refusal is a [`Reject`].
//!
//! # Frame
//! Numbers are little-endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | magic `c1 53`; no UTF-8 text, JSON or MessagePack begins with `c1` |
//! | 2 | 1 | version |
//! | 3 | 1 | bits 0–6: [`FrameKind`], bit 7: signed |
//! | 4 | 16 | origin: the node id, ASCII base64url |
//! | 20 | 8 | [`LaneId`] of the topic the frame was written for |
//! | 28 | 8 | sequence number |
//! | 36 | 4 | count |
//! | 40 | | the envelopes of a [`FrameKind::Data`] frame, `count` of them and nothing else; other kinds have none |
//! | end − 16 | 16 | if signed: HMAC-SHA256 over everything before, cut to 16 bytes |
//!
//! The first 20 bytes keep their meaning in all versions.
//!
//! # Envelope
//! | bytes | field |
//! |---|---|
//! | 4 | number of bytes that follow |
//! | 1 | bits 0–6: [`EnvelopeKind`], bit 7: for one node only |
//! | 16 | if bit 7 is set: that node's id |
//! | | body |
//!
//! A body is what its kind prescribes below, to the last byte. `u32` and `u64` are
//! [postcard](https://postcard.jamesmunns.com/wire-format) varints, *flag* is a byte 0 or 1, *id* is 16 ASCII characters
//! of base64url (or 16 zero bytes for socketioxide's zero id), *name* is a varint length and so many bytes of UTF-8.
//! An optional field is a flag, then the field if the flag is 1.
//!
//! | kind | | body |
//! |---|---|---|
//! | `Broadcast` | 0 | target, payload |
//! | `BroadcastWithAck` | 1 | request `u64`, optional timeout in ms `u64`, target, payload |
//! | `Join` `Leave` | 2 3 | target, number of rooms `u32`, that many names |
//! | `Disconnect` | 4 | target |
//! | `Rooms` `Sockets` | 5 6 | request `u64`, target |
//! | `RoomsAnswer` | 7 | request `u64`, number of rooms `u32`, that many names |
//! | `SocketsAnswer` | 8 | request `u64`, ids up to the end |
//! | `AckCount` | 9 | request `u64`, count `u32` |
//! | `Ack` | 10 | request `u64`, socket id, success flag, then the payload, or the error's bytes up to the end |
//! | `AskPresence` `Bye` | 11 13 | nothing |
//! | `Presence` | 12 | age in ms `u64`, oldest and newest version accepted (a byte each), hello flag, live flag, `u32` 0 version, 1 full, 2 added, 3 removed, version of the set `u32`, lanes of 8 bytes each up to the end (none, all, one, one) |
//!
//! *target*: a byte of flags (1 local, 2 broadcast, 4 volatile), number of rooms `u32`, number of excepted rooms `u32`,
//! optional sender id, optional server id, the rooms' names, the excepted rooms' names.
//!
//! *payload*: text flag, optional number of attachments `u32`, length of each attachment `u64`, then raw up to the end:
//! the data, whose length is what the attachments leave, and the attachments. Decoding slices it from the received bytes.
//!
//! # Limits
//! A frame: [`NativeWire::with_limits`]. Entries of a list: [`MAX_ITEMS`], and never more than there are bytes left. A
//! room's name: [`MAX_ROOM_LEN`]. What exceeds a limit is refused by [`Wire::append`] with
//! [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge), and when received as [`Reject::TooLong`] or [`Reject::Malformed`].
//!
//! # A new version
//! The bytes of a version never change: golden files in `tests/golden` pin them. Version 2 is a new `v2.rs`, an arm in
//! `Incoming::decode`, and [`VERSION`] raised; `MIN_VERSION` follows one release later, so that nodes of two neighbouring
//! versions understand each other during a rolling upgrade.

mod codec;
mod envelope;
mod frame;
mod keys;
mod native;
mod payload;
mod reject;
mod v1;

use std::{fmt, time::Duration};

use bytes::Bytes;

pub use self::{
    envelope::{Envelope, EnvelopeKind, Namespaces, Presence},
    frame::{Frame, FrameBuf, FrameHead, FrameKind, Incoming, LaneId},
    keys::Keys,
    native::NativeWire,
    payload::Payload,
    reject::Reject,
};
use crate::{error::Result, id::NodeId};

/// The version this node writes.
pub const VERSION: u8 = 1;
/// The oldest version this node accepts.
pub const MIN_VERSION: u8 = 1;
/// Bytes of the fixed header of a frame.
pub const HEADER_LEN: usize = 40;
/// Bytes of a signature.
pub const TAG_LEN: usize = 16;
/// Largest frame in bytes that is written or accepted unless [`NativeWire::with_limits`] says otherwise.
pub const DEFAULT_MAX_FRAME: usize = 16 << 20;
/// Most entries of any list: rooms, sockets, attachments, lanes.
pub const MAX_ITEMS: usize = 1 << 20;
/// Longest name of a room, in bytes.
pub const MAX_ROOM_LEN: usize = 1 << 16;
/// Longest time that a request for acknowledgements may give its receivers; a longer one is cut to it.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);

/// Turns envelopes into frames of bytes and back. The seam behind which other wires can speak foreign protocols.
pub trait Wire: fmt::Debug + Send + Sync + 'static {
    /// Begins a frame.
    fn begin(&self) -> FrameBuf;

    /// Appends one envelope; with `only`, other nodes than that one will skip it.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`](crate::ErrorKind::TooLarge) if the frame, or a list or name in the envelope, would exceed
    /// its limit; the frame is then unchanged.
    fn append(&self, frame: &mut FrameBuf, only: Option<NodeId>, envelope: &Envelope)
    -> Result<()>;

    /// Writes the header and the signature. The same input gives the same bytes; the body is not copied.
    ///
    /// The version written is the one the envelopes were encoded in, and the count of a [`FrameKind::Data`] frame is the
    /// number of envelopes appended, whatever `head` says. Frames of other kinds carry no envelopes: they are dropped.
    fn seal(&self, frame: FrameBuf, head: FrameHead) -> Bytes;

    /// Reads the header and verifies nothing else, to drop a node's own echo unread.
    ///
    /// # Errors
    /// What makes the header unreadable.
    fn peek(&self, bytes: &[u8]) -> Result<FrameHead, Reject>;

    /// Who wrote a frame, by its own word and even if its version is unknown: for logs and events.
    fn claimed_origin(&self, bytes: &[u8]) -> Option<NodeId>;

    /// Checks a frame that was received on the topic of `topic_lane`.
    ///
    /// # Errors
    /// Why the frame as a whole must be skipped.
    fn open(&self, topic_lane: LaneId, bytes: Bytes) -> Result<Frame, Reject>;
}
