//! What the nodes of a cluster say to each other, typed.

use std::time::Duration;

use bytes::Bytes;
use socketioxide_core::{
    Sid,
    adapter::{BroadcastOptions, Room},
};

use super::{LaneId, Payload};
use crate::id::RequestId;

/// One message between nodes.
///
/// Exhaustive on purpose, as are the types inside: a wire that forgets a new variant or field must not compile, since it
/// would lose it silently.
#[derive(Debug, Clone, PartialEq)]
pub enum Envelope {
    /// Namespace topic: emit to the sockets that `opts` selects.
    Broadcast {
        /// Which sockets.
        opts: BroadcastOptions,
        /// The encoded packet.
        payload: Payload,
    },
    /// Namespace topic: emit and send every acknowledgement back to the asking node.
    BroadcastWithAck {
        /// Ties [`AckCount`](Self::AckCount) and [`Ack`](Self::Ack) to this.
        request: RequestId,
        /// How long a socket may take; `None` means the answering node's own default. Whole milliseconds, rounded up, at
        /// most [`MAX_TIMEOUT`](super::MAX_TIMEOUT).
        timeout: Option<Duration>,
        /// Which sockets.
        opts: BroadcastOptions,
        /// The encoded packet.
        payload: Payload,
    },
    /// Namespace topic: the selected sockets join rooms.
    Join {
        /// Which sockets.
        opts: BroadcastOptions,
        /// The rooms to join.
        rooms: Vec<Room>,
    },
    /// Namespace topic: the selected sockets leave rooms.
    Leave {
        /// Which sockets.
        opts: BroadcastOptions,
        /// The rooms to leave.
        rooms: Vec<Room>,
    },
    /// Namespace topic: the selected sockets are disconnected.
    Disconnect {
        /// Which sockets.
        opts: BroadcastOptions,
    },
    /// Namespace topic: asks for the rooms of the selected sockets.
    Rooms {
        /// Ties [`RoomsAnswer`](Self::RoomsAnswer) to this.
        request: RequestId,
        /// Which sockets.
        opts: BroadcastOptions,
    },
    /// Namespace topic: asks for the ids of the selected sockets.
    Sockets {
        /// Ties [`SocketsAnswer`](Self::SocketsAnswer) to this.
        request: RequestId,
        /// Which sockets.
        opts: BroadcastOptions,
    },
    /// Node topic: answers [`Rooms`](Self::Rooms).
    RoomsAnswer {
        /// Which request.
        request: RequestId,
        /// The rooms found on the answering node.
        rooms: Vec<Room>,
    },
    /// Node topic: answers [`Sockets`](Self::Sockets).
    SocketsAnswer {
        /// Which request.
        request: RequestId,
        /// The sockets found on the answering node.
        sockets: Vec<Sid>,
    },
    /// Node topic: how many acknowledgements the answering node will send.
    AckCount {
        /// Which request.
        request: RequestId,
        /// Number of [`Ack`](Self::Ack)s to expect from this node.
        count: u32,
    },
    /// Node topic: the acknowledgement of one socket.
    Ack {
        /// Which request.
        request: RequestId,
        /// The socket that acknowledged, or failed to.
        sid: Sid,
        /// The acknowledgement, or the emitter's error as JSON.
        result: Result<Payload, Bytes>,
    },
    /// Node topic: asks the node for its [`Presence`].
    AskPresence,
    /// Cluster topic: the sender is there.
    Presence(Presence),
    /// Cluster topic: the sender leaves for good.
    Bye,
}

impl Envelope {
    /// What kind of envelope this is.
    pub const fn kind(&self) -> EnvelopeKind {
        match self {
            Self::Broadcast { .. } => EnvelopeKind::Broadcast,
            Self::BroadcastWithAck { .. } => EnvelopeKind::BroadcastWithAck,
            Self::Join { .. } => EnvelopeKind::Join,
            Self::Leave { .. } => EnvelopeKind::Leave,
            Self::Disconnect { .. } => EnvelopeKind::Disconnect,
            Self::Rooms { .. } => EnvelopeKind::Rooms,
            Self::Sockets { .. } => EnvelopeKind::Sockets,
            Self::RoomsAnswer { .. } => EnvelopeKind::RoomsAnswer,
            Self::SocketsAnswer { .. } => EnvelopeKind::SocketsAnswer,
            Self::AckCount { .. } => EnvelopeKind::AckCount,
            Self::Ack { .. } => EnvelopeKind::Ack,
            Self::AskPresence => EnvelopeKind::AskPresence,
            Self::Presence(_) => EnvelopeKind::Presence,
            Self::Bye => EnvelopeKind::Bye,
        }
    }
}

/// The kinds of [`Envelope`], with their number on the wire. Numbers are never used again for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EnvelopeKind {
    /// [`Envelope::Broadcast`].
    Broadcast = 0,
    /// [`Envelope::BroadcastWithAck`].
    BroadcastWithAck = 1,
    /// [`Envelope::Join`].
    Join = 2,
    /// [`Envelope::Leave`].
    Leave = 3,
    /// [`Envelope::Disconnect`].
    Disconnect = 4,
    /// [`Envelope::Rooms`].
    Rooms = 5,
    /// [`Envelope::Sockets`].
    Sockets = 6,
    /// [`Envelope::RoomsAnswer`].
    RoomsAnswer = 7,
    /// [`Envelope::SocketsAnswer`].
    SocketsAnswer = 8,
    /// [`Envelope::AckCount`].
    AckCount = 9,
    /// [`Envelope::Ack`].
    Ack = 10,
    /// [`Envelope::AskPresence`].
    AskPresence = 11,
    /// [`Envelope::Presence`].
    Presence = 12,
    /// [`Envelope::Bye`].
    Bye = 13,
}

impl EnvelopeKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Broadcast,
        Self::BroadcastWithAck,
        Self::Join,
        Self::Leave,
        Self::Disconnect,
        Self::Rooms,
        Self::Sockets,
        Self::RoomsAnswer,
        Self::SocketsAnswer,
        Self::AckCount,
        Self::Ack,
        Self::AskPresence,
        Self::Presence,
        Self::Bye,
    ];

    pub(super) fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

/// A sign of life, and what the node serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// How long the process has been running, in whole milliseconds on the wire. The peer's word: any value may come, so
    /// do no unchecked arithmetic with it.
    pub age: Duration,
    /// Oldest wire version the node accepts.
    pub min_version: u8,
    /// Newest wire version the node accepts.
    pub max_version: u8,
    /// Asks every other node for its presence.
    pub hello: bool,
    /// The node's own probes come back: it hears what others say.
    pub live: bool,
    /// The namespaces it serves.
    pub namespaces: Namespaces,
}

/// The set of namespaces a node serves, or a change of it. Each change raises the version by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// The version alone, for those who know that version's set.
    Version(u32),
    /// The whole set.
    Full {
        /// Version of the set.
        version: u32,
        /// Lanes of all namespaces served.
        lanes: Vec<LaneId>,
    },
    /// One namespace more than in the version before.
    Added {
        /// Version of the set with the change.
        version: u32,
        /// Lane of the namespace.
        lane: LaneId,
    },
    /// One namespace less than in the version before.
    Removed {
        /// Version of the set with the change.
        version: u32,
        /// Lane of the namespace.
        lane: LaneId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_number() {
        for kind in EnvelopeKind::ALL {
            assert_eq!(EnvelopeKind::from_wire(kind as u8), Some(kind));
        }
        assert_eq!(EnvelopeKind::from_wire(14), None);
    }
}
