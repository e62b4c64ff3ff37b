//! Who wants which channel: outlives the sessions, and is where what a session receives is handed out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use smallvec::SmallVec;
use socketioxide_adapter_core::{
    Error, Result,
    transport::{Continuity, Subscription, SubscriptionSender},
};
use tokio::sync::{Notify, oneshot};

use crate::{
    config::RedisConfig,
    error::{self, Step},
    session::Session,
};

/// A channel name as Redis knows it.
pub(crate) type Channel = Vec<u8>;

/// A channel and the index of a server.
pub(crate) type Placed = (usize, Channel);

/// Tells a subscriber that the server has the subscription, or why not.
pub(crate) type Confirmation = oneshot::Receiver<Result<()>>;

/// The wanted channels and their listeners.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    state: Mutex<State>,
    changed: Notify,
}

/// Whether there is a session.
#[derive(Debug, Clone, Default)]
pub(crate) enum Phase {
    /// No: nothing can be published, and no listeners added.
    #[default]
    Down,
    /// This one.
    Up(Arc<Session>),
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
    /// Index of the server that was asked for it in the present session.
    server: usize,
    /// Whether that server has the subscription.
    confirmed: bool,
    listeners: SmallVec<[Listener; 1]>,
}

#[derive(Debug)]
struct Listener {
    sender: SubscriptionSender,
    /// Somebody waits for the first confirmation. `None`: it came, and the next one is a resumption.
    waiting: Option<oneshot::Sender<Result<()>>>,
}

impl Phase {
    fn session(&self, step: Step, config: &RedisConfig) -> Result<Arc<Session>> {
        match self {
            Self::Up(session) => Ok(session.clone()),
            Self::Down => Err(error::down(step, config.at())),
            Self::Closed => Err(error::closed(step)),
        }
    }
}

impl Topics {
    /// Adds a listener. The confirmation is `None` if the server has the channel already.
    ///
    /// # Errors
    /// If there is no session.
    pub(crate) fn add(
        &self,
        config: &RedisConfig,
        channel: &[u8],
    ) -> Result<(Subscription, Option<Confirmation>)> {
        let (sender, subscription) = Subscription::channel(config.limits.subscription_buffer);
        let mut state = self.lock();
        state.phase.session(Step::Subscribe, config)?;
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

    /// Waits until a listener was added, or a server has given up a channel.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The present session.
    ///
    /// # Errors
    /// If there is none; `step` is what it was wanted for.
    pub(crate) fn session(&self, step: Step, config: &RedisConfig) -> Result<Arc<Session>> {
        self.lock().phase.session(step, config)
    }

    /// The number of the session that can start now, for [`receive`](Self::receive).
    pub(crate) fn next_session(&self) -> u64 {
        self.lock().session
    }

    /// Notes that the session has all wanted channels and can take more.
    pub(crate) fn open(&self, session: Arc<Session>) {
        let mut state = self.lock();
        if !matches!(state.phase, Phase::Closed) {
            state.phase = Phase::Up(session);
        }
    }

    /// Ends the present session: the next server has nothing yet, and who waits for a confirmation waits in vain.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.session += 1;
        if !matches!(state.phase, Phase::Closed) {
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

    /// Forgets listeners that were dropped. Returns the channels that a server has, but nobody wants any more, and those
    /// that are wanted, but no server has: these are to be asked for at the server that `route` tells.
    pub(crate) fn differences(&self, route: impl Fn(&[u8]) -> usize) -> (Vec<Placed>, Vec<Placed>) {
        let (mut unwanted, mut missing) = (Vec::new(), Vec::new());
        self.lock().channels.retain(|channel, entry| {
            entry
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            let wanted = !entry.listeners.is_empty();
            match (wanted, entry.confirmed) {
                (true, false) => {
                    entry.server = route(channel);
                    missing.push((entry.server, channel.clone()));
                }
                (false, true) => unwanted.push((entry.server, channel.clone())),
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

    /// Hands out what `session` received from a server. Called by the reader itself, in the order of arrival; never blocks.
    pub(crate) fn receive(&self, session: u64, server: usize, push: PushInfo) {
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
        if entry.server != server {
            return;
        }
        match (push.kind, data.next()) {
            // Before the confirmation it would be the rest of a subscription that is just being ended.
            (PushKind::Message | PushKind::SMessage, Some(Value::BulkString(payload)))
                if entry.confirmed =>
            {
                let payload = Bytes::from(payload);
                if let Some((last, others)) = entry.listeners.split_last() {
                    for listener in others {
                        listener.sender.push(payload.clone());
                    }
                    last.sender.push(payload);
                }
            }
            (PushKind::Subscribe | PushKind::SSubscribe, _) => {
                entry.confirmed = true;
                for listener in &mut entry.listeners {
                    match listener.waiting.take() {
                        Some(waiting) => drop(waiting.send(Ok(()))),
                        None => listener.sender.resumed(Continuity::Unknown),
                    }
                }
            }
            // Not asked for, or it would have no entry or an unconfirmed one: the slot of the channel has moved.
            (PushKind::SUnsubscribe, _) if entry.confirmed => {
                entry.confirmed = false;
                self.changed.notify_one();
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
    use crate::config::Address;

    const RESUMED: Event = Event::Resumed(Continuity::Unknown);

    type Differences = (Vec<Placed>, Vec<Placed>);

    fn missing() -> Differences {
        (vec![], vec![(0, b"c".into())])
    }

    fn unwanted() -> Differences {
        (vec![(0, b"c".into())], vec![])
    }

    fn nothing() -> Differences {
        (vec![], vec![])
    }

    fn differences(topics: &Topics) -> Differences {
        topics.differences(|_| 0)
    }

    fn up() -> Topics {
        let topics = Topics::default();
        topics.open(Arc::default());
        topics
    }

    fn config() -> RedisConfig {
        RedisConfig::new(Address::Unix("/nowhere".into()))
    }

    fn add(topics: &Topics) -> (Subscription, Option<Confirmation>) {
        topics.add(&config(), b"c").unwrap()
    }

    fn receive(topics: &Topics, session: u64, kind: PushKind, payload: &str) {
        receive_from(topics, session, 0, kind, payload);
    }

    fn receive_from(topics: &Topics, session: u64, server: usize, kind: PushKind, payload: &str) {
        let text = |text: &str| Value::BulkString(text.into());
        let data = vec![text("c"), text(payload)];
        topics.receive(session, server, PushInfo { kind, data });
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
        assert_eq!(differences(&topics), missing());
        receive(&topics, 0, PushKind::Subscribe, "");
        assert!(matches!(
            confirmation.unwrap().now_or_never(),
            Some(Ok(Ok(())))
        ));
        receive(&topics, 0, PushKind::Message, "first");
        topics.end();
        assert_eq!(differences(&topics), missing());
        let session = topics.next_session();
        receive(&topics, session, PushKind::Subscribe, "");
        receive(&topics, session, PushKind::Message, "second");
        assert_eq!(read(&mut subscription), message("first"));
        assert_eq!(read(&mut subscription), Some(RESUMED));
        assert_eq!(read(&mut subscription), message("second"));
        assert_eq!(differences(&topics), nothing());
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
        assert_eq!(differences(&topics), missing());
    }

    #[test]
    fn the_rest_of_an_ended_subscription_is_not_mistaken_for_a_new_one() {
        let topics = up();
        let (old, _) = add(&topics);
        receive(&topics, 0, PushKind::Subscribe, "");
        drop(old);
        assert_eq!(differences(&topics), unwanted());
        // UNSUBSCRIBE is on its way; whatever comes between it and the new SUBSCRIBE would leave a hole.
        let (mut new, _) = add(&topics);
        receive(&topics, 0, PushKind::Message, "rest");
        receive(&topics, 0, PushKind::Unsubscribe, "");
        assert_eq!(differences(&topics), missing());
        receive(&topics, 0, PushKind::Subscribe, "");
        receive(&topics, 0, PushKind::Message, "new");
        assert_eq!(read(&mut new), message("new"));
    }

    #[test]
    fn a_channel_whose_slot_moves_follows_it_and_resumes() {
        let topics = up();
        let (mut subscription, _) = add(&topics);
        assert_eq!(differences(&topics), missing());
        receive(&topics, 0, PushKind::SSubscribe, "");
        receive(&topics, 0, PushKind::SMessage, "old");
        receive(&topics, 0, PushKind::SUnsubscribe, "");
        assert!(topics.changed().now_or_never().is_some());
        assert_eq!(topics.differences(|_| 1), (vec![], vec![(1, b"c".into())]));
        // Whatever the old one may still say does not count.
        for kind in [PushKind::SSubscribe, PushKind::SMessage] {
            receive(&topics, 0, kind, "late");
        }
        receive_from(&topics, 0, 1, PushKind::SSubscribe, "");
        receive_from(&topics, 0, 1, PushKind::SMessage, "new");
        assert_eq!(read(&mut subscription), message("old"));
        assert_eq!(read(&mut subscription), Some(RESUMED));
        assert_eq!(read(&mut subscription), message("new"));
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
        assert_eq!(differences(&topics), nothing());
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
        let refusal = |topics: &Topics| topics.add(&config(), b"c").unwrap_err().kind();
        assert_eq!(refusal(&topics), ErrorKind::LinkDown);
        topics.open(Arc::default());
        let (_waiting, confirmation) = add(&topics);
        topics.end();
        assert_eq!(refusal(&topics), ErrorKind::LinkDown);
        assert!(matches!(confirmation.unwrap().now_or_never(), Some(Err(_))));
        topics.close();
        // A session that is only now on its way out, or in, changes nothing any more.
        topics.end();
        topics.open(Arc::default());
        assert_eq!(refusal(&topics), ErrorKind::Closed);
    }
}
