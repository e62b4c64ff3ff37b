//! Frames that no node wrote: what strangers, nodes of other versions and attackers put on the topics.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use socketioxide_adapter_core::{
    NodeId,
    transport::{Topic, Transport},
    wire::{
        Envelope, FrameHead, FrameKind, LaneId, Namespaces, NativeWire, Payload, Presence, VERSION,
        Wire as _,
    },
};
use socketioxide_core::adapter::{BroadcastFlags, BroadcastOptions};

use super::stage::SAID;
use crate::check::Verdict;

/// A node that exists only as far as its frames do.
pub(crate) struct Stranger {
    pub(crate) id: NodeId,
    transport: Arc<dyn Transport>,
    wire: NativeWire,
    next: u64,
}

impl Stranger {
    pub(crate) fn new(transport: Arc<dyn Transport>) -> Self {
        Self {
            id: NodeId::random(),
            transport,
            wire: NativeWire::new(),
            next: 1,
        }
    }

    /// Publishes bytes as they are.
    pub(crate) async fn publish(&self, topic: &Topic, payload: Bytes) -> Verdict {
        self.transport.publish(topic, payload).await?;
        Ok(())
    }

    /// A frame with these envelopes, numbered after the ones before.
    pub(crate) fn frame(&mut self, topic: &Topic, envelopes: &[Envelope]) -> Verdict<Bytes> {
        let mut buf = self.wire.begin();
        for envelope in envelopes {
            self.wire.append(&mut buf, None, envelope)?;
        }
        let head = FrameHead {
            version: VERSION,
            kind: FrameKind::Data,
            origin: self.id,
            lane: LaneId::of(topic),
            seq: self.next,
            count: buf.count(),
        };
        if matches!(topic, Topic::Namespace(_)) {
            self.next += u64::from(buf.count());
        }
        Ok(self.wire.seal(buf, head))
    }

    /// Says that it is there and which versions it speaks.
    pub(crate) async fn appears(&mut self, min_version: u8, max_version: u8) -> Verdict {
        let presence = Envelope::Presence(Presence {
            age: Duration::from_secs(1),
            min_version,
            max_version,
            hello: false,
            live: true,
            namespaces: Namespaces::Full {
                version: 1,
                lanes: Vec::new(),
            },
        });
        let frame = self.frame(&Topic::Cluster, &[presence])?;
        self.publish(&Topic::Cluster, frame).await
    }
}

/// The topic of the namespace `/`.
pub(crate) fn main_topic() -> Topic {
    Topic::Namespace("/".into())
}

/// What a node writes for a word that is said to everybody.
pub(crate) fn saying(word: &str) -> Envelope {
    let mut opts = BroadcastOptions::default();
    opts.add_flag(BroadcastFlags::Broadcast);
    Envelope::Broadcast {
        opts,
        payload: Payload {
            text: true,
            data: Bytes::from(format!("2[\"{}\",\"{word}\"]", SAID)),
            attachments: None,
        },
    }
}
