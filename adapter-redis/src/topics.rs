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
        let mut state = self.lock();
        if state.phase == Phase::Down {
            state.phase = Phase::Up;
        }
    }

    /// Ends the present session: the next server has nothing yet, and who waits for a confirmation waits in vain.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.session += 1;
        if state.phase == Phase::Up {
            state.phase = Phase::Down;
        }
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

    /// Forgets listeners that were dropped. Returns the channels that the server has, but nobody wants any more, and those
    /// that are wanted, but the server does not have.
    pub(crate) fn differences(&self) -> (Vec<Channel>, Vec<Channel>) {
        let (mut unwanted, mut missing) = (Vec::new(), Vec::new());
        self.lock().channels.retain(|channel, entry| {
            entry
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            let wanted = !entry.listeners.is_empty();
            match (wanted, entry.confirmed) {
                (true, false) => missing.push(channel.clone()),
                (false, true) => unwanted.push(channel.clone()),
                _ => {}
            }
            wanted
        });
        (unwanted, missing)
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
                None => !listener.sender.is_closed(),
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use socketioxide_adapter_core::{ErrorKind, transport::Event};

    use super::*;

    const RESUMED: Event = Event::Resumed(Continuity::Unknown);

    fn missing() -> (Vec<Channel>, Vec<Channel>) {
        (vec![], vec![b"c".into()])
    }

    fn nothing() -> (Vec<Channel>, Vec<Channel>) {
        (vec![], vec![])
    }

    fn up() -> Topics {
        let topics = Topics::default();
        topics.open();
        topics
    }

    fn add(topics: &Topics) -> (Subscription, Option<Confirmation>) {
        topics.add(b"c", BufferLimits::default()).unwrap()
    }

    fn receive(topics: &Topics, session: u64, kind: PushKind, payload: &str) {
        let text = |text: &str| Value::BulkString(text.into());
        let data = vec![text("c"), text(payload)];
        topics.receive(session, PushInfo { kind, data });
    }

    fn message(payload: &'static str) -> Option<Event> {
        Some(Event::Message(payload.into()))
    }

    fn read(subscription: &mut Subscription) -> Option<Event> {
        subscription.recv().now_or_never().flatten()
    }

    #[test]
    fn a_session_resumes_in_the_order_of_what_it_receives() {
        let topics = up();
        let (mut subscription, confirmation) = add(&topics);
        assert_eq!(topics.differences(), missing());
        receive(&topics, 0, PushKind::Subscribe, "");
        assert!(matches!(
            confirmation.unwrap().now_or_never(),
            Some(Ok(Ok(())))
        ));
        receive(&topics, 0, PushKind::Message, "first");
        topics.end();
        assert_eq!(topics.differences(), missing());
        let session = topics.session();
        receive(&topics, session, PushKind::Subscribe, "");
        receive(&topics, session, PushKind::Message, "second");
        assert_eq!(read(&mut subscription), message("first"));
        assert_eq!(read(&mut subscription), Some(RESUMED));
        assert_eq!(read(&mut subscription), message("second"));
        assert_eq!(topics.differences(), nothing());
    }

    #[test]
    fn what_a_session_receives_after_its_end_is_ignored() {
        let topics = up();
        let (mut subscription, _) = add(&topics);
        receive(&topics, 0, PushKind::Subscribe, "");
        topics.end();
        for kind in [PushKind::Subscribe, PushKind::Message] {
            receive(&topics, 0, kind, "late");
        }
        assert_eq!(read(&mut subscription), None);
        assert_eq!(topics.differences(), missing());
    }

    #[test]
    fn the_rest_of_an_ended_subscription_is_not_mistaken_for_a_new_one() {
        let topics = up();
        let (old, _) = add(&topics);
        receive(&topics, 0, PushKind::Subscribe, "");
        drop(old);
        assert_eq!(topics.differences(), (vec![b"c".into()], vec![]));
        // UNSUBSCRIBE is on its way; whatever comes between it and the new SUBSCRIBE would leave a hole.
        let (mut new, _) = add(&topics);
        receive(&topics, 0, PushKind::Message, "rest");
        receive(&topics, 0, PushKind::Unsubscribe, "");
        assert_eq!(topics.differences(), missing());
        receive(&topics, 0, PushKind::Subscribe, "");
        receive(&topics, 0, PushKind::Message, "new");
        assert_eq!(read(&mut new), message("new"));
    }

    #[test]
    fn a_refusal_ends_those_who_wait_and_the_session_of_those_who_had_it() {
        let topics = up();
        let refused = || Error::new(ErrorKind::Unauthorized, "test", "no");
        let (subscription, confirmation) = add(&topics);
        assert!(topics.refuse(b"c", refused).is_ok());
        let answer = confirmation.unwrap().now_or_never().unwrap().unwrap();
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unauthorized);
        drop(subscription);
        assert_eq!(topics.differences(), nothing());
        let (had_it, _) = add(&topics);
        receive(&topics, 0, PushKind::Subscribe, "");
        topics.end();
        assert!(topics.refuse(b"c", refused).is_err());
        drop(had_it);
        assert!(topics.refuse(b"c", refused).is_ok());
    }

    #[test]
    fn nobody_is_added_without_a_session() {
        let topics = Topics::default();
        let phase = |topics: &Topics| topics.add(b"c", BufferLimits::default()).unwrap_err();
        assert_eq!(phase(&topics), Phase::Down);
        topics.open();
        let (_waiting, confirmation) = add(&topics);
        topics.end();
        assert_eq!(phase(&topics), Phase::Down);
        assert!(matches!(confirmation.unwrap().now_or_never(), Some(Err(_))));
        topics.close();
        topics.end();
        assert_eq!(phase(&topics), Phase::Closed);
    }
}
