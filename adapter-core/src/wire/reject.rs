//! Why received bytes were refused.

use std::{error::Error as StdError, fmt};

use super::{LaneId, MIN_VERSION, VERSION};

/// Why a frame, or one envelope of it, was refused. Count it under its [`label`](Self::label), skip it, go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reject {
    /// The bytes do not begin like a frame: somebody else publishes on this topic.
    NotAFrame,
    /// A frame of a version outside [`MIN_VERSION`]`..=`[`VERSION`].
    Version(u8),
    /// More bytes than this node accepts in one frame.
    TooLong(usize),
    /// A frame of another topic: replayed, or misrouted by the broker.
    WrongLane(LaneId),
    /// Keys are set and the frame has no signature.
    Unsigned,
    /// The signature is not of one of our keys, or the bytes were changed.
    BadSignature,
    /// The frame is signed and this node has no keys: one of the two is misconfigured.
    UnexpectedSignature,
    /// A frame or envelope of a kind this version does not define.
    UnknownKind(u8),
    /// The bytes break the layout; says which part.
    Malformed(&'static str),
}

impl Reject {
    /// Short name for counters, one per variant.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NotAFrame => "not_a_frame",
            Self::Version(_) => "version",
            Self::TooLong(_) => "too_long",
            Self::WrongLane(_) => "wrong_lane",
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad_signature",
            Self::UnexpectedSignature => "unexpected_signature",
            Self::UnknownKind(_) => "unknown_kind",
            Self::Malformed(_) => "malformed",
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFrame => f.write_str("not a frame of this adapter"),
            Self::Version(theirs) => write!(
                f,
                "wire version {theirs}, this node accepts {MIN_VERSION} to {VERSION}"
            ),
            Self::TooLong(len) => write!(f, "frame of {len} bytes exceeds the limit"),
            Self::WrongLane(lane) => write!(f, "frame of another topic (lane {:016x})", lane.0),
            Self::Unsigned => f.write_str("unsigned, but this node has keys"),
            Self::BadSignature => f.write_str("signature does not match any key of this node"),
            Self::UnexpectedSignature => f.write_str("signed, but this node has no keys"),
            Self::UnknownKind(kind) => write!(f, "unknown kind {kind}"),
            Self::Malformed(what) => write!(f, "malformed {what}"),
        }
    }
}

impl StdError for Reject {}
