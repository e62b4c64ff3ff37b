//! Who wants which subject: outlives the sessions, and is where what a session receives is handed out.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use smallvec::SmallVec;
use socketioxide_adapter_core::{
    Error, Result,
    transport::{BufferLimits, Continuity, Subscription, SubscriptionSender},
};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

/// Tells a subscriber that the server has the subscription, or why not.
pub(crate) type Confirmation = oneshot::Receiver<Result<()>>;

/// The wanted subjects and their listeners.
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

/// What the present session has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Differences {
    /// Subjects that it has, but nobody wants any more.
    pub(crate) unwanted: Vec<String>,
    /// Subjects that somebody waits for.
    pub(crate) missing: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// Number of the present session. A reader of an earlier one may still be busy on another thread; what it hands out
    /// then is not from this session and is ignored.
    session: u64,
    entries: HashMap<String, Entry>,
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
    /// The server is being asked on behalf of it.
    asked: bool,
    /// The position in the log from which on it listens; 0 without a log.
    from: u64,
    stalled: Arc<AtomicBool>,
}

/// One to hand a frame of the log to.
#[derive(Debug)]
pub(crate) struct Recipient {
    sender: SubscriptionSender,
    /// Its reader let a deadline pass, and is not waited for until there is room again.
    stalled: Arc<AtomicBool>,
}

impl Recipient {
    /// Hands over a payload, waiting up to `limit` for room; beyond it, it is dropped and counted.
    pub(crate) async fn receive(&self, payload: &Bytes, limit: Duration) {
        if self.stalled.load(Ordering::Relaxed) {
            let stalled = !self.sender.push(payload.clone());
            self.stalled.store(stalled, Ordering::Relaxed);
        } else if timeout(limit, self.sender.push_wait(payload.clone()))
            .await
            .is_err()
        {
            self.sender.lagged(1);
            self.stalled.store(true, Ordering::Relaxed);
        }
    }
}

impl Topics {
    /// Adds a listener. The confirmation is `None` if the server has the subject already; with a log there is always one,
    /// since the listener has to learn its position.
    ///
    /// # Errors
    /// The phase, if it is not [`Phase::Up`].
    pub(crate) fn add(
        &self,
        subject: String,
        logged: bool,
        limits: BufferLimits,
    ) -> Result<(Subscription, Option<Confirmation>), Phase> {
        let (sender, subscription) = Subscription::channel(limits);
        let mut state = self.lock();
        if state.phase != Phase::Up {
            return Err(state.phase);
        }
        let entry = state.entries.entry(subject).or_default();
        let (waiting, confirmation) = if entry.confirmed && !logged {
            (None, None)
        } else {
            let (tx, rx) = oneshot::channel();
            (Some(tx), Some(rx))
        };
        entry.listeners.push(Listener {
            sender,
            waiting,
            asked: false,
            from: 0,
            stalled: Arc::default(),
        });
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

    /// Notes that the session has all wanted subjects and can take more.
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
        for entry in state.entries.values_mut() {
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
        for (_, entry) in state.entries.drain() {
            for listener in entry.listeners {
                listener.sender.end();
            }
        }
    }

    /// Forgets listeners that were dropped, and tells what is left to do.
    pub(crate) fn differences(&self) -> Differences {
        let mut differences = Differences::default();
        self.lock().entries.retain(|subject, entry| {
            entry
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            let wanted = !entry.listeners.is_empty();
            let waits = |listener: &Listener| listener.waiting.is_some();
            if wanted && (!entry.confirmed || entry.listeners.iter().any(waits)) {
                differences.missing.push(subject.clone());
            } else if !wanted && entry.confirmed {
                differences.unwanted.push(subject.clone());
            }
            wanted
        });
        differences
    }

    /// Notes that the server is about to be asked for `subject`. Those who had it in an earlier session are told how it
    /// goes on, if that was not done already, before anything of this session can arrive.
    pub(crate) fn ask(&self, subject: &str, continuity: Option<Continuity>) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(subject) else {
            return;
        };
        for listener in &mut entry.listeners {
            listener.asked = true;
            if let Some(continuity) = continuity
                && listener.waiting.is_none()
                && !entry.confirmed
            {
                listener.sender.resumed(continuity);
            }
        }
    }

    /// Notes that the server has `subject`, for those on whose behalf it was asked; they listen from this position on.
    pub(crate) fn confirm(&self, subject: &str, from: u64) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(subject) else {
            return;
        };
        entry.confirmed = true;
        for listener in entry.listeners.iter_mut().filter(|it| it.asked) {
            if let Some(waiting) = listener.waiting.take() {
                listener.from = from;
                let _ = waiting.send(Ok(()));
            }
        }
    }

    /// Tells those who wait for `subject` that the server refuses it.
    ///
    /// # Errors
    /// The same error, if somebody had the subject before: then the session is of no use.
    pub(crate) fn refuse(&self, subject: &str, error: impl Fn() -> Error) -> Result<()> {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(subject) else {
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

    /// Hands out what `session` received. Called by its readers, in the order of arrival; never blocks.
    pub(crate) fn receive(&self, session: u64, subject: &str, payload: &Bytes) {
        let state = self.lock();
        if state.session != session {
            return;
        }
        let entry = state.entries.get(subject);
        for listener in entry.iter().flat_map(|entry| &entry.listeners) {
            listener.sender.push(payload.clone());
        }
    }

    /// Those who listen to `subject` at this position of the log.
    pub(crate) fn recipients(&self, subject: &str, position: u64) -> SmallVec<[Recipient; 1]> {
        let state = self.lock();
        let entry = state.entries.get(subject);
        let listeners = entry.iter().flat_map(|entry| &entry.listeners);
        let listening = listeners.filter(|it| it.waiting.is_none() && it.from <= position);
        let recipient = |listener: &Listener| Recipient {
            sender: listener.sender.clone(),
            stalled: listener.stalled.clone(),
        };
        listening.map(recipient).collect()
    }

    /// Tells those who listen at this position of the log how it goes on there.
    pub(crate) fn tell(&self, position: u64, of: impl Fn(&str) -> Option<Continuity>) {
        for (subject, entry) in &self.lock().entries {
            let Some(continuity) = of(subject) else {
                continue;
            };
            let listens = |it: &&Listener| it.waiting.is_none() && it.from <= position;
            for listener in entry.listeners.iter().filter(listens) {
                listener.sender.resumed(continuity);
            }
        }
    }

    /// Lets everybody listen from the beginning of a new log.
    pub(crate) fn rewind(&self) {
        for entry in self.lock().entries.values_mut() {
            for listener in &mut entry.listeners {
                listener.from = 0;
            }
        }
    }

    /// Counts a payload that the client dropped because nobody had read the ones before it.
    pub(crate) fn lagged(&self, subject: &str) {
        let state = self.lock();
        let entry = state.entries.get(subject);
        for listener in entry.iter().flat_map(|entry| &entry.listeners) {
            listener.sender.lagged(1);
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

    const UNKNOWN: Option<Continuity> = Some(Continuity::Unknown);

    fn up() -> Topics {
        let topics = Topics::default();
        topics.open();
        topics
    }

    fn add(topics: &Topics, logged: bool) -> (Subscription, Option<Confirmation>) {
        let limits = BufferLimits::default();
        topics.add("s".into(), logged, limits).unwrap()
    }

    fn subscribe(topics: &Topics, from: u64) {
        topics.ask("s", UNKNOWN);
        topics.confirm("s", from);
    }

    fn missing() -> Differences {
        Differences {
            missing: vec!["s".into()],
            unwanted: vec![],
        }
    }

    fn read(subscription: &mut Subscription) -> Option<Event> {
        subscription.recv().now_or_never().flatten()
    }

    fn message(payload: &'static str) -> Option<Event> {
        Some(Event::Message(payload.into()))
    }

    fn is_confirmed(confirmation: Option<Confirmation>) -> bool {
        let answer = confirmation.and_then(|it| it.now_or_never());
        matches!(answer, Some(Ok(Ok(()))))
    }

    #[test]
    fn a_session_resumes_before_anything_of_it_arrives() {
        let topics = up();
        let (mut subscription, confirmation) = add(&topics, false);
        assert_eq!(topics.differences(), missing());
        subscribe(&topics, 0);
        assert!(is_confirmed(confirmation));
        topics.receive(0, "s", &"first".into());
        topics.end();
        assert_eq!(topics.differences(), missing());
        topics.ask("s", UNKNOWN);
        topics.receive(1, "s", &"second".into());
        topics.confirm("s", 0);
        // A reader of the session before is not heard any more.
        topics.receive(0, "s", &"late".into());
        assert_eq!(read(&mut subscription), message("first"));
        assert_eq!(
            read(&mut subscription),
            Some(Event::Resumed(Continuity::Unknown))
        );
        assert_eq!(read(&mut subscription), message("second"));
        assert_eq!(read(&mut subscription), None);
        assert_eq!(topics.differences(), Differences::default());
        drop(subscription);
        assert_eq!(topics.differences().unwanted, ["s"]);
    }

    #[test]
    fn only_those_are_confirmed_on_whose_behalf_the_server_was_asked() {
        let topics = up();
        let (_first, first) = add(&topics, true);
        topics.ask("s", None);
        let (_second, second) = add(&topics, true);
        topics.confirm("s", 5);
        assert!(is_confirmed(first));
        assert_eq!(topics.differences(), missing());
        assert!(!is_confirmed(second));
    }

    #[test]
    fn a_listener_of_the_log_hears_what_comes_after_its_position() {
        let topics = up();
        let (_one, _) = add(&topics, true);
        assert!(topics.recipients("s", 9).is_empty());
        subscribe(&topics, 10);
        let (_two, _) = add(&topics, true);
        subscribe(&topics, 20);
        let heard = [9, 10, 19, 20].map(|position| topics.recipients("s", position).len());
        assert_eq!(heard, [0, 1, 1, 2]);
        topics.rewind();
        assert_eq!(topics.recipients("s", 1).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_waited_for_once() {
        let topics = up();
        let limits = BufferLimits::new(1, 100);
        let (mut slow, _) = topics.add("s".into(), true, limits).unwrap();
        subscribe(&topics, 0);
        let start = tokio::time::Instant::now();
        for payload in ["kept", "dropped", "dropped too"] {
            for recipient in topics.recipients("s", 1) {
                recipient
                    .receive(&payload.into(), Duration::from_secs(5))
                    .await;
            }
        }
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert_eq!(read(&mut slow), message("kept"));
        for recipient in topics.recipients("s", 2) {
            recipient.receive(&"back".into(), Duration::ZERO).await;
        }
        assert_eq!(read(&mut slow), Some(Event::Lagged(2)));
        assert_eq!(read(&mut slow), message("back"));
    }

    #[test]
    fn a_refusal_ends_those_who_wait_and_the_session_of_those_who_had_it() {
        let topics = up();
        let refused = || Error::new(ErrorKind::Unauthorized, "test", "no");
        let (subscription, confirmation) = add(&topics, false);
        assert!(topics.refuse("s", refused).is_ok());
        let answer = confirmation.unwrap().now_or_never().unwrap().unwrap();
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unauthorized);
        drop(subscription);
        let (_had_it, _) = add(&topics, false);
        subscribe(&topics, 0);
        topics.end();
        assert!(topics.refuse("s", refused).is_err());
    }

    #[test]
    fn nobody_is_added_without_a_session() {
        let topics = Topics::default();
        let limits = BufferLimits::default();
        let phase = |topics: &Topics| topics.add("s".into(), false, limits).unwrap_err();
        assert_eq!(phase(&topics), Phase::Down);
        topics.open();
        let (_waiting, confirmation) = add(&topics, false);
        topics.end();
        assert_eq!(phase(&topics), Phase::Down);
        assert!(matches!(confirmation.unwrap().now_or_never(), Some(Err(_))));
        topics.close();
        topics.end();
        assert_eq!(phase(&topics), Phase::Closed);
    }
}
