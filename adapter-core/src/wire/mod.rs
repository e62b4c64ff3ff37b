//! Wire version 1: how envelopes become frames of bytes and back.

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

    /// Checks a frame that was received on the topic of `topic_lane`.
    ///
    /// # Errors
    /// Why the frame as a whole must be skipped.
    fn open(&self, topic_lane: LaneId, bytes: Bytes) -> Result<Frame, Reject>;
}
