//! The one way of an operation to the other nodes: offered at once, completed after the local sockets were served.

use socketioxide_core::{
    adapter::BroadcastOptions,
    packet::{Packet, PacketData},
};

use super::Attached;
use crate::{
    error::Result,
    hub::Offer,
    id::NodeId,
    wire::{Envelope, Payload},
};

/// An operation that was offered to the lane.
pub(super) struct Published<'a> {
    attached: &'a Attached,
    only: Option<NodeId>,
    offer: Offer,
    /// The envelope, if it must be offered again.
    again: Option<Envelope>,
}

/// Offers an envelope without waiting. Gives its options back for the local sockets, or `None` if another node is meant.
pub(super) fn publish(
    attached: &Attached,
    envelope: Envelope,
) -> (Published<'_>, Option<BroadcastOptions>) {
    let hub = &attached.hub;
    let only = opts_of(&envelope).and_then(|opts| hub.target(opts));
    let offer = hub.offer(&attached.namespace, only, &envelope);
    let (again, opts) = if matches!(offer, Offer::Wait) {
        let opts = opts_of(&envelope).cloned();
        (Some(envelope), opts)
    } else {
        (None, into_opts(envelope))
    };
    let published = Published {
        attached,
        only,
        offer,
        again,
    };
    (published, opts.filter(|_| only.is_none()))
}

impl Published<'_> {
    /// Waits as the publish mode and the outage policy say.
    pub(super) async fn complete(self) -> Result<()> {
        let Attached { hub, namespace, .. } = self.attached;
        hub.complete(namespace, self.only, self.offer, self.again)
            .await
    }
}

/// The payload of an event; other packets never leave the node.
pub(super) fn payload_of(packet: &Packet) -> Option<Payload> {
    match &packet.inner {
        PacketData::Event(value, _) | PacketData::BinaryEvent(value, _) => {
            Some(Payload::from_value(value))
        }
        _ => None,
    }
}

const fn opts_of(envelope: &Envelope) -> Option<&BroadcastOptions> {
    match envelope {
        Envelope::Broadcast { opts, .. }
        | Envelope::BroadcastWithAck { opts, .. }
        | Envelope::Join { opts, .. }
        | Envelope::Leave { opts, .. }
        | Envelope::Disconnect { opts } => Some(opts),
        _ => None,
    }
}

fn into_opts(envelope: Envelope) -> Option<BroadcastOptions> {
    match envelope {
        Envelope::Broadcast { opts, .. }
        | Envelope::BroadcastWithAck { opts, .. }
        | Envelope::Join { opts, .. }
        | Envelope::Leave { opts, .. }
        | Envelope::Disconnect { opts } => Some(opts),
        _ => None,
    }
}
