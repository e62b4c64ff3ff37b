//! Sockets that only count: what socketioxide puts behind an adapter, without the network.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_core::FusedStream;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use socketioxide_core::{
    Sid, Str, Uid, Value,
    adapter::{AckStreamItem, BroadcastIter, RemoteSocketData, SocketEmitter, errors::SocketError},
    packet::Packet,
    parser::Parse,
};
use socketioxide_parser_common::CommonParser;

use crate::{heard::Heard, message::body};

pub(crate) struct Emitter {
    path: Str,
    uid: Uid,
    sids: Vec<Sid>,
    heard: Arc<Heard>,
}

impl Emitter {
    pub(crate) fn new(path: &str, uid: Uid, sockets: usize, heard: Arc<Heard>) -> Self {
        Self {
            path: Str::copy_from_slice(path),
            uid,
            sids: (0..sockets).map(|_| Sid::new()).collect(),
            heard,
        }
    }
}

#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("no acknowledgement in time")]
pub(crate) struct NoAck;

impl SocketEmitter for Emitter {
    type AckError = NoAck;
    type AckStream = Pin<Box<dyn FusedStream<Item = AckStreamItem<NoAck>> + Send>>;

    fn get_all_sids(&self, filter: impl Fn(&Sid) -> bool) -> Vec<Sid> {
        self.sids
            .iter()
            .copied()
            .filter(|sid| filter(sid))
            .collect()
    }

    fn get_remote_sockets(&self, sids: BroadcastIter<'_>) -> Vec<RemoteSocketData> {
        sids.map(|id| RemoteSocketData {
            id,
            server_id: self.uid,
            ns: self.path.clone(),
        })
        .collect()
    }

    fn send_many(&self, sids: BroadcastIter<'_>, data: Value) -> Result<(), Vec<SocketError>> {
        for _ in sids {
            self.heard.message(body(&data));
        }
        Ok(())
    }

    fn send_many_volatile(&self, sids: BroadcastIter<'_>, data: Value) {
        let _ = self.send_many(sids, data);
    }

    fn send_many_with_ack(
        &self,
        sids: BroadcastIter<'_>,
        _packet: Packet,
        _timeout: Option<Duration>,
    ) -> (Self::AckStream, u32) {
        let acks: Vec<_> = sids
            .map(|sid| (sid, Ok(Value::Str(Str::from("[\"ok\"]"), None))))
            .collect();
        let count = acks.len() as u32;
        (Box::pin(stream::iter(acks).fuse()), count)
    }

    fn disconnect_many(&self, _sids: Vec<Sid>) -> Result<(), Vec<SocketError>> {
        Ok(())
    }

    fn path(&self) -> &Str {
        &self.path
    }

    fn parser(&self) -> impl Parse {
        CommonParser
    }

    fn server_id(&self) -> Uid {
        self.uid
    }

    fn ack_timeout(&self) -> Duration {
        Duration::from_secs(5)
    }
}
