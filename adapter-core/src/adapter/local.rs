//! What peers ask of this node's sockets.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use socketioxide_core::{
    Sid, Value,
    adapter::{AckStreamItem, BroadcastOptions, Room, SocketEmitter},
    packet::Packet,
};
use tokio::time::timeout;
use tracing::debug;

use super::ClusterAdapter;
use crate::{
    hub::{AckRequest, Hub, Lane, LocalNamespace, Push},
    wire::{Envelope, Payload, Reject},
};

/// Longest wait of one acknowledgement for room in the lane to the asking node.
const ACK_PATIENCE: Duration = Duration::from_secs(5);

impl<E: SocketEmitter> ClusterAdapter<E> {
    /// The packet in a payload, unless the sender's parser is another one: encoding that would panic.
    fn packet(&self, payload: Payload) -> Option<Packet> {
        let value = if payload.text == self.text {
            payload.into_value()
        } else {
            Err(Reject::Malformed("payload of another parser"))
        };
        match value {
            Ok(value) => Some(Packet::event(self.local.path().clone(), value)),
            Err(reject) => {
                if let Some(attached) = self.attached.get() {
                    attached.hub.shared.rejected(None, &reject);
                }
                None
            }
        }
    }

    /// Whether a room of the options has members here: cheaper than decoding and encoding for nobody.
    fn concerns_us(&self, opts: &BroadcastOptions) -> bool {
        opts.rooms.is_empty() || !self.local.sockets(opts.clone()).is_empty()
    }
}

impl<E: SocketEmitter> LocalNamespace for ClusterAdapter<E> {
    fn broadcast(&self, opts: BroadcastOptions, payload: Payload) {
        if !self.concerns_us(&opts) {
            return;
        }
        if let Some(packet) = self.packet(payload) {
            self.count_dropped(self.local.broadcast(packet, opts));
        }
    }

    fn broadcast_with_ack(&self, request: AckRequest, opts: BroadcastOptions, payload: Payload) {
        let Some(attached) = self.attached.get() else {
            return;
        };
        let hub = &attached.hub;
        let Some(lane) = hub.answer_lane(request.from) else {
            return;
        };
        // Without a packet nobody will answer, and the asking node should know at once.
        let started = self
            .packet(payload)
            .map(|packet| self.local.broadcast_with_ack(packet, opts, request.timeout));
        let count = started.as_ref().map_or(0, |(_, count)| *count);
        // Not published from here: the acknowledgements that are there at once travel in the same frame.
        let counted = Envelope::AckCount {
            request: request.id,
            count,
        };
        let _ = lane.push(None, &counted, false);
        if let Some((acks, 1..)) = started {
            let cancelled = hub.cancelled();
            let send = send_acks::<E>(hub.clone(), lane, request, Box::pin(acks));
            hub.spawn(async move {
                tokio::select! {
                    () = cancelled.cancelled() => {}
                    () = send => {}
                }
            });
        }
    }

    fn join(&self, opts: BroadcastOptions, rooms: Vec<Room>) {
        self.join_local(opts, rooms);
    }

    fn leave(&self, opts: BroadcastOptions, rooms: Vec<Room>) {
        self.local.del_sockets(opts, rooms);
    }

    fn disconnect(&self, opts: BroadcastOptions) {
        self.count_dropped(self.local.disconnect_socket(opts));
    }

    fn rooms(&self, opts: BroadcastOptions) -> Vec<Room> {
        self.local.rooms(opts).into_iter().collect()
    }

    fn sockets(&self, opts: BroadcastOptions) -> Vec<Sid> {
        // Through the emitter: it knows which sockets exist, the room table alone does not.
        let sockets = self.local.fetch_sockets(opts);
        sockets.into_iter().map(|socket| socket.id).collect()
    }
}

/// Sends each acknowledgement to the asking node as it comes; ends with the sockets' own time-out.
async fn send_acks<E: SocketEmitter>(
    hub: Arc<Hub>,
    lane: Arc<Lane>,
    request: AckRequest,
    mut acks: std::pin::Pin<Box<E::AckStream>>,
) {
    while let Some(ack) = acks.next().await {
        let envelope = ack_envelope::<E>(&request, ack);
        let sent = timeout(ACK_PATIENCE, push_when_room(&lane, &envelope)).await;
        if !matches!(sent, Ok(true)) {
            debug!(node = %request.from, "acknowledgements dropped: the asking node is gone or too slow");
            hub.shared.counters.acks_dropped.inc();
            return;
        }
    }
}

fn ack_envelope<E: SocketEmitter>(
    request: &AckRequest,
    (sid, result): AckStreamItem<E::AckError>,
) -> Envelope {
    let result = match result {
        Ok(value) => Ok(Payload::from_value(&Value::clone(&value))),
        Err(error) => Err(serde_json::to_vec(&error).map_or_else(|_| Bytes::new(), Bytes::from)),
    };
    Envelope::Ack {
        request: request.id,
        sid,
        result,
    }
}

/// `false` if the lane is closed.
async fn push_when_room(lane: &Lane, envelope: &Envelope) -> bool {
    loop {
        let settled = lane.settled();
        tokio::pin!(settled);
        settled.as_mut().enable();
        match lane.push(None, envelope, false) {
            Ok(Push::Full) => settled.await,
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}
