//! Who wants which channel: outlives the sessions, and is where what a session receives is handed out.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use smallvec::SmallVec;
use socketioxide_adapter_core::{
    Error, Result,
    transport::{BufferLimits, Continuity, Subscription, SubscriptionSender},
};
use tokio::sync::{Notify, oneshot};

/// A channel name as Redis knows it.
pub(crate) type Channel = Vec<u8>;

/// Tells a subscriber that the server has the subscription, or why not.
pub(crate) type Confirmation = oneshot::Receiver<Result<()>>;

/// The wanted channels and their listeners.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    state: Mutex<State>,
    changed: Notify,
}

/// Whether listeners can be added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No: there is no session.
    #[default]
    Down,
    /// Yes.
    Up,
    /// Never again.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Number of the present session. The reader of an earlier one may still be busy on another thread; what it hands
    /// out then is not from this session and is ignored.
    session: u64,
    channels: HashMap<Channel, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whether the server has the subscription in the present session.
    confirmed: bool,
    listeners: SmallVec<[Listener; 1]>,
}

#[derive(Debug)]
struct Listener {
    sender: SubscriptionSender,
    /// Somebody waits for the first confirmation. `None`: it came, and the next one is a resumption.
    waiting: Option<oneshot::Sender<Result<()>>>,
}

impl Topics {
    /// Adds a listener. The confirmation is `None` if the server has the channel already.
    ///
    /// # Errors
    /// The phase, if it is not [`Phase::Up`].
    pub(crate) fn add(
        &self,
        channel: &[u8],
        limits: BufferLimits,
    ) -> Result<(Subscription, Option<Confirmation>), Phase> {
        let (sender, subscription) = Subscription::channel(limits);
        let mut state = self.lock();
        if state.phase != Phase::Up {
            return Err(state.phase);
        }
        let entry = match state.channels.get_mut(channel) {
            Some(entry) => entry,
            None => state.channels.entry(channel.to_vec()).or_default(),
        };
        let (waiting, confirmation) = if entry.confirmed {
            (None, None)
        } else {
            let (tx, rx) = oneshot::channel();
            (Some(tx), Some(rx))
        };
        entry.listeners.push(Listener { sender, waiting });
        drop(state);
        self.changed.notify_one();
        Ok((subscription, confirmation))
    }

    /// Waits until a listener was added.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The number of the session that can start now, for [`receive`](Self::receive).
    pub(crate) fn session(&self) -> u64 {
        self.lock().session
    }

    /// Notes that the session has all wanted channels and can take more.
    pub(crate) fn open(&self) {
        self.lock().phase = Phase::Up;
    }

    /// Ends the present session: the next server has nothing yet, and who waits for a confirmation waits in vain.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.session += 1;
        state.phase = Phase::Down;
        for entry in state.channels.values_mut() {
            entry.confirmed = false;
            entry
                .listeners
                .retain(|listener| listener.waiting.is_none());
        }
    }

    /// Ends all subscriptions for good.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        for (_, entry) in state.channels.drain() {
            for listener in entry.listeners {
                listener.sender.end();
            }
        }
    }

    /// Channels that are wanted, but not confirmed.
    pub(crate) fn missing(&self) -> Vec<Channel> {
        let state = self.lock();
        let missing = state.channels.iter().filter(|(_, entry)| !entry.confirmed);
        missing.map(|(channel, _)| channel.clone()).collect()
    }

    /// Forgets listeners that were dropped; returns the channels that nobody wants any more, but the server has.
    pub(crate) fn sweep(&self) -> Vec<Channel> {
        let mut unwanted = Vec::new();
        self.lock().channels.retain(|channel, entry| {
            entry
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            let wanted = !entry.listeners.is_empty();
            if !wanted && entry.confirmed {
                unwanted.push(channel.clone());
            }
            wanted
        });
        unwanted
    }

    /// Tells those who wait for `channel` that the server refuses it.
    ///
    /// # Errors
    /// The same error, if somebody had the channel before: then the session is of no use.
    pub(crate) fn refuse(&self, channel: &[u8], error: impl Fn() -> Error) -> Result<()> {
        let mut state = self.lock();
        let Some(entry) = state.channels.get_mut(channel) else {
            return Ok(());
        };
        entry
            .listeners
            .retain(|listener| match listener.waiting.take() {
                Some(waiting) => {
                    let _ = waiting.send(Err(error()));
                    false
                }
                None => true,
            });
        if entry.listeners.is_empty() {
            Ok(())
        } else {
            Err(error())
        }
    }

    /// Hands out what `session` received. Called by the reader itself, in the order of arrival; never blocks.
    pub(crate) fn receive(&self, session: u64, push: PushInfo) {
        let mut data = push.data.into_iter();
        let Some(Value::BulkString(channel)) = data.next() else {
            return;
        };
        let mut state = self.lock();
        if state.session != session {
            return;
        }
        let Some(entry) = state.channels.get_mut(&channel) else {
            return;
        };
        match (push.kind, data.next()) {
            // Before the confirmation it would be the rest of a subscription that is just being ended.
            (PushKind::Message, Some(Value::BulkString(payload))) if entry.confirmed => {
                let payload = Bytes::from(payload);
                if let Some((last, others)) = entry.listeners.split_last() {
                    for listener in others {
                        listener.sender.push(payload.clone());
                    }
                    last.sender.push(payload);
                }
            }
            (PushKind::Subscribe, _) => {
                entry.confirmed = true;
                for listener in &mut entry.listeners {
                    match listener.waiting.take() {
                        Some(waiting) => drop(waiting.send(Ok(()))),
                        None => listener.sender.resumed(Continuity::Unknown),
                    }
                }
            }
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
