//! A channel within one process: what no broker can reach.

use std::sync::Arc;

use bytes::Bytes;
use socketioxide_core::Value;
use tokio::sync::mpsc::{self, Sender};

use super::{Node, Nodes, Result, Role, text};
use crate::{heard::Heard, message::body};

const CAPACITY: usize = 1_024;

/// One bounded channel, and a task at its other end.
pub(crate) struct Channel(Sender<Bytes>);

pub(crate) fn channel(role: &Role) -> Nodes<Channel> {
    let heard = Arc::<Heard>::default();
    let channels = (0..role.nodes).map(|_| {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(CAPACITY);
        let heard = heard.clone();
        tokio::spawn(async move {
            while let Some(message) = receiver.recv().await {
                heard.message(&message);
            }
        });
        Arc::new(Channel(sender))
    });
    Nodes {
        nodes: channels.collect(),
        heard,
    }
}

impl Node for Channel {
    async fn send(&self, message: Value) -> Result<()> {
        let message = Bytes::copy_from_slice(body(&message));
        self.0.send(message).await.map_err(text)
    }
}
