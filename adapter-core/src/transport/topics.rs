//! Who wants which topic: outlives the sessions, and is where what a session receives is handed out.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use smallvec::SmallVec;
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::{BufferLimits, Continuity, Subscription, SubscriptionSender};
use crate::error::{Error, Result};

/// What a topic is called at the broker.
pub type Name = Arc<str>;

/// The wanted topics by their names at the broker, what the broker has of them, and their listeners.
///
/// A session keeps the two the same: it waits for [`changed`](Self::changed) and for the next [tick](super::pulse::ticks),
/// looks for [`differences`](Self::differences), notes what it [asks](Self::ask) the broker for, and what the broker
/// [confirms](Self::confirm) or [refuses](Self::refuse). What it receives it hands out by [`push`](Self::push) or
/// [`pass`](Self::pass).
#[derive(Debug, Default)]
pub struct Topics {
    state: Mutex<State>,
    changed: Notify,
}

/// What a session has to do.
#[derive(Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Differences {
    /// Topics that the broker has, but nobody wants any more.
    pub unwanted: Vec<Name>,
    /// Topics that somebody waits for.
    pub missing: Vec<Name>,
}

#[derive(Debug, Default)]
struct State {
    /// How many sessions have ended. The reader of an earlier one may still be busy on another thread; what it hands out
    /// then is ignored.
    session: u64,
    closed: bool,
    topics: HashMap<Name, Entry>,
    /// What is confirmed once the fence of this number came back.
    fences: Vec<(u64, Vec<Name>)>,
}

#[derive(Debug, Default)]
struct Entry {
    standing: Standing,
    /// The broker keeps what nobody has read yet.
    kept: bool,
    listeners: SmallVec<[Listener; 1]>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    /// The broker does not have it.
    #[default]
    Missing,
    /// The broker is being asked for it.
    Asked,
    /// What arrives counts, but whether it is everything is not known yet.
    Open,
    /// Everything arrives.
    Subscribed,
}

#[derive(Debug)]
struct Listener {
    sender: SubscriptionSender,
    /// Somebody waits for the first confirmation. `None`: it came, and the next one is a resumption.
    waiting: Option<oneshot::Sender<Result<()>>>,
    /// The broker is being asked on behalf of it.
    asked: bool,
    /// The position from which on it listens.
    from: u64,
    /// Its reader let a deadline pass, and is not waited for until there is room again.
    stalled: Arc<AtomicBool>,
}

impl Topics {
    /// Adds a listener. `kept`: the broker keeps what this node has not read, so that a reader without room is waited for.
    /// The second value is `None` if everything that is published from now on arrives, else it resolves when that is so.
    pub(super) fn add(
        &self,
        name: &str,
        kept: bool,
        limits: BufferLimits,
    ) -> (Subscription, Option<oneshot::Receiver<Result<()>>>) {
        let (sender, subscription) = Subscription::channel(limits);
        let mut state = self.lock();
        if state.closed {
            sender.end();
            return (subscription, None);
        }
        if !state.topics.contains_key(name) {
            state.topics.insert(name.into(), Entry::default());
        }
        let Some(entry) = state.topics.get_mut(name) else {
            return (subscription, None);
        };
        entry.kept = kept;
        // Where the broker keeps things, older ones may still be on their way: the listener has to learn where it begins.
        let (waiting, confirmation) = if entry.standing == Standing::Subscribed && !kept {
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
        (subscription, confirmation)
    }

    /// Waits until there may be [`differences`](Self::differences). Who drops a subscription does not say so: look at each
    /// [tick](super::pulse::ticks) as well.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The number of the session that begins now, for [`push`](Self::push).
    pub fn session(&self) -> u64 {
        self.lock().session
    }

    /// Ends the present session: who waits for a confirmation waits in vain. `kept`: the broker goes on with the topics that
    /// it keeps, and what arrives of them in the next session belongs to the same subscription; otherwise, and of all other
    /// topics, it has nothing any more.
    pub fn end(&self, kept: bool) {
        let mut state = self.lock();
        state.session += 1;
        state.fences.clear();
        for entry in state.topics.values_mut() {
            if !(kept && entry.kept && entry.standing == Standing::Subscribed) {
                entry.standing = Standing::Missing;
            }
            entry
                .listeners
                .retain(|listener| listener.waiting.is_none());
        }
    }

    /// Ends all subscriptions for good.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for (_, entry) in state.topics.drain() {
            for listener in entry.listeners {
                listener.sender.end();
            }
        }
    }

    /// Forgets listeners that were dropped, and tells what is left to do.
    pub fn differences(&self) -> Differences {
        let mut differences = Differences::default();
        self.lock().topics.retain(|name, entry| {
            entry
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            let wanted = !entry.listeners.is_empty();
            let waits = |listener: &Listener| listener.waiting.is_some() && !listener.asked;
            let missing = entry.standing == Standing::Missing || entry.listeners.iter().any(waits);
            if wanted && missing {
                differences.missing.push(name.clone());
            } else if !wanted && entry.standing != Standing::Missing {
                differences.unwanted.push(name.clone());
            }
            wanted
        });
        differences
    }

    /// Notes that the broker is about to be asked for these topics: they are missing no more.
    pub fn ask(&self, names: &[Name]) {
        self.each(names, |_, entry| {
            if entry.standing == Standing::Missing {
                entry.standing = Standing::Asked;
            }
            for listener in &mut entry.listeners {
                listener.asked = true;
            }
        });
    }

    /// Notes that what arrives of these topics counts from now on, although the broker has confirmed nothing yet: for those
    /// that send before they confirm. Who listened in an earlier session is told how it goes on.
    pub fn open(&self, names: &[Name], continuity: impl Fn(&str) -> Continuity) {
        self.each(names, |name, entry| entry.open(|| continuity(name)));
    }

    /// Notes that the broker has these topics: for those on whose behalf it was asked, everything arrives from this position
    /// on. Who listened in an earlier session is told how it goes on, unless that was done by [`open`](Self::open).
    pub fn confirm(&self, names: &[Name], from: u64, continuity: impl Fn(&str) -> Continuity) {
        self.each(names, |name, entry| {
            entry.open(|| continuity(name));
            entry.standing = Standing::Subscribed;
            for listener in entry.listeners.iter_mut().filter(|it| it.asked) {
                if let Some(waiting) = listener.waiting.take() {
                    listener.from = from;
                    let _ = waiting.send(Ok(()));
                }
            }
        });
    }

    /// Notes that the broker was [asked](Self::ask) for these topics, and returns the number of their **fence**: a message of
    /// this node to itself, to be published once the broker has taken the subscriptions. What arrives before it can be the
    /// rest of an earlier subscription, with a hole behind it; what comes after it is complete.
    pub fn fence(&self, names: Vec<Name>) -> u64 {
        self.ask(&names);
        let number = fastrand::u64(..);
        self.lock().fences.push((number, names));
        number
    }

    /// Notes that a fence of this session came back: what has been asked for by then is [confirmed](Self::confirm).
    pub fn came_back(&self, fence: u64, from: u64, continuity: impl Fn(&str) -> Continuity) {
        let mut state = self.lock();
        let mut names = Vec::new();
        if let Some(last) = state.fences.iter().position(|(it, _)| *it == fence) {
            names.extend(state.fences.drain(..=last).flat_map(|(_, names)| names));
        }
        drop(state);
        self.confirm(&names, from, continuity);
    }

    /// Notes that the broker has a topic no more, for example because it has moved to another server: it is missing again.
    pub fn lost(&self, name: &str) {
        if let Some(entry) = self.lock().topics.get_mut(name) {
            entry.standing = Standing::Missing;
        }
        self.changed.notify_one();
    }

    /// Tells those who wait for a topic that the broker refuses it.
    ///
    /// # Errors
    /// The same error, if somebody had the topic before: then the session is of no use.
    pub fn refuse(&self, name: &str, error: impl Fn() -> Error) -> Result<()> {
        let mut state = self.lock();
        let Some(entry) = state.topics.get_mut(name) else {
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
            entry.standing = Standing::Missing;
            Ok(())
        } else {
            Err(error())
        }
    }

    /// Whether everything that is published to a topic must come back to us.
    pub fn is_subscribed(&self, name: &str) -> bool {
        let state = self.lock();
        let entry = state.topics.get(name);
        entry.is_some_and(|it| it.standing == Standing::Subscribed && !it.listeners.is_empty())
    }

    /// Hands out what `session` received. Never blocks: a full buffer drops and counts.
    pub fn push(&self, session: u64, name: &str, payload: Bytes) {
        let state = self.lock();
        if state.session != session {
            return;
        }
        let Some(entry) = state.topics.get(name).filter(|entry| entry.is_open()) else {
            return;
        };
        if let Some((last, others)) = entry.listeners.split_last() {
            for listener in others {
                listener.sender.push(payload.clone());
            }
            last.sender.push(payload);
        }
    }

    /// Hands out what stands at this position at the broker, which keeps it. A reader without room is waited for, up to
    /// `patience`; then it is dropped and counted, and that reader is not waited for until it has room again. For topics that
    /// the broker does not keep it is the same as [`push`](Self::push).
    ///
    /// # Cancel safety
    /// Dropping the future drops the payload for those who have no room yet.
    pub async fn pass(&self, name: &str, position: u64, payload: Bytes, patience: Duration) {
        for (sender, stalled) in self.without_room(name, position, &payload) {
            let taken = timeout(patience, sender.push_wait(payload.clone())).await;
            if taken.is_err() {
                sender.lagged(1);
                stalled.store(true, Ordering::Relaxed);
            }
        }
    }

    fn without_room(
        &self,
        name: &str,
        position: u64,
        payload: &Bytes,
    ) -> SmallVec<[(SubscriptionSender, Arc<AtomicBool>); 1]> {
        let state = self.lock();
        let mut full = SmallVec::new();
        let Some(entry) = state.topics.get(name).filter(|entry| entry.is_open()) else {
            return full;
        };
        for listener in entry.listening(position) {
            let Listener {
                sender, stalled, ..
            } = listener;
            if !entry.kept || stalled.load(Ordering::Relaxed) {
                stalled.store(!sender.push(payload.clone()), Ordering::Relaxed);
            } else if sender.push_wait(payload.clone()).now_or_never().is_none() {
                full.push((sender.clone(), stalled.clone()));
            }
        }
        full
    }

    /// Tells those who listen at this position how it goes on there: for brokers that keep subscriptions.
    pub fn tell(&self, position: u64, continuity: impl Fn(&str) -> Option<Continuity>) {
        for (name, entry) in &self.lock().topics {
            if entry.standing == Standing::Subscribed
                && let Some(continuity) = continuity(name)
            {
                for listener in entry.listening(position) {
                    listener.sender.resumed(continuity);
                }
            }
        }
    }

    /// Lets everybody listen from the beginning, since positions mean something else from now on.
    pub fn rewind(&self) {
        for entry in self.lock().topics.values_mut() {
            for listener in &mut entry.listeners {
                listener.from = 0;
            }
        }
    }

    /// Counts payloads that were dropped before they got here, for example by the client library.
    pub fn lagged(&self, name: &str, count: u64) {
        if let Some(entry) = self.lock().topics.get(name) {
            for listener in &entry.listeners {
                listener.sender.lagged(count);
            }
        }
    }

    fn each(&self, names: &[Name], change: impl Fn(&str, &mut Entry)) {
        let mut state = self.lock();
        for name in names {
            if let Some(entry) = state.topics.get_mut(name) {
                change(name, entry);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Whether what arrives counts.
    fn is_open(&self) -> bool {
        matches!(self.standing, Standing::Open | Standing::Subscribed)
    }

    /// Lets what arrives count, and tells those who listened before how it goes on.
    fn open(&mut self, continuity: impl FnOnce() -> Continuity) {
        if self.is_open() {
            return;
        }
        self.standing = Standing::Open;
        let continuity = continuity();
        for listener in &self.listeners {
            if listener.waiting.is_none() {
                listener.sender.resumed(continuity);
            }
        }
    }

    /// Those who listen at this position.
    fn listening(&self, position: u64) -> impl Iterator<Item = &Listener> {
        let listens = move |it: &&Listener| it.waiting.is_none() && it.from <= position;
        self.listeners.iter().filter(listens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::ErrorKind, transport::Event};

    type Confirmation = Option<oneshot::Receiver<Result<()>>>;

    fn add(topics: &Topics, kept: bool) -> (Subscription, Confirmation) {
        topics.add("t", kept, BufferLimits::default())
    }

    fn names() -> Vec<Name> {
        vec!["t".into()]
    }

    fn unknown(_: &str) -> Continuity {
        Continuity::Unknown
    }

    fn subscribe(topics: &Topics, from: u64) {
        assert_eq!(topics.differences().missing, names());
        topics.ask(&names());
        assert_eq!(topics.differences(), Differences::default());
        topics.confirm(&names(), from, unknown);
    }

    fn read(subscription: &mut Subscription) -> Option<Event> {
        subscription.recv().now_or_never().flatten()
    }

    fn message(payload: &'static str) -> Option<Event> {
        Some(Event::Message(payload.into()))
    }

    fn is_confirmed(confirmation: Confirmation) -> bool {
        let answer = confirmation.and_then(|it| it.now_or_never());
        matches!(answer, Some(Ok(Ok(()))))
    }

    async fn pass(topics: &Topics, position: u64, payload: &'static str) {
        let patience = Duration::from_secs(5);
        topics.pass("t", position, payload.into(), patience).await;
    }

    #[test]
    fn a_session_resumes_before_anything_of_it_arrives() {
        let topics = Topics::default();
        let (mut subscription, confirmation) = add(&topics, false);
        assert!(topics.changed().now_or_never().is_some());
        subscribe(&topics, 0);
        assert!(is_confirmed(confirmation));
        topics.push(0, "t", "first".into());
        topics.end(false);
        // A reader of the session before is not heard any more, and what comes before the confirmation may have holes.
        topics.push(0, "t", "late".into());
        topics.push(1, "t", "early".into());
        assert!(!topics.is_subscribed("t"));
        subscribe(&topics, 0);
        assert!(topics.is_subscribed("t"));
        topics.push(topics.session(), "t", "second".into());
        assert_eq!(read(&mut subscription), message("first"));
        let resumed = Event::Resumed(Continuity::Unknown);
        assert_eq!(read(&mut subscription), Some(resumed));
        assert_eq!(read(&mut subscription), message("second"));
        assert_eq!(read(&mut subscription), None);
        drop(subscription);
        assert_eq!(topics.differences().unwanted, names());
    }

    #[test]
    fn what_is_opened_counts_but_is_confirmed_later_and_resumed_once() {
        let topics = Topics::default();
        let (mut had_it, _) = add(&topics, false);
        subscribe(&topics, 0);
        topics.end(false);
        let (_new, confirmation) = add(&topics, false);
        topics.ask(&names());
        topics.open(&names(), unknown);
        topics.push(1, "t", "between".into());
        topics.confirm(&names(), 0, unknown);
        assert!(is_confirmed(confirmation));
        let resumed = Event::Resumed(Continuity::Unknown);
        assert_eq!(read(&mut had_it), Some(resumed));
        assert_eq!(read(&mut had_it), message("between"));
        assert_eq!(read(&mut had_it), None);
    }

    #[test]
    fn a_fence_that_comes_back_confirms_what_was_asked_for_before_it_in_its_session() {
        let topics = Topics::default();
        let ends = topics.fence(names());
        topics.end(false);
        let (_one, one) = add(&topics, false);
        let lost = topics.fence(names());
        let (_two, two) = topics.add("u", false, BufferLimits::default());
        let back = topics.fence(vec!["u".into()]);
        let (_three, three) = topics.add("v", false, BufferLimits::default());
        let later = topics.fence(vec!["v".into()]);
        topics.came_back(ends, 0, unknown);
        assert!(!topics.is_subscribed("t"));
        topics.came_back(back, 0, unknown);
        assert!(is_confirmed(one) && is_confirmed(two));
        topics.came_back(lost, 0, unknown);
        assert!(!topics.is_subscribed("v"));
        topics.came_back(later, 0, unknown);
        assert!(is_confirmed(three));
    }

    #[test]
    fn a_topic_that_is_lost_is_missing_again_and_resumes() {
        let topics = Topics::default();
        let (mut subscription, _) = add(&topics, false);
        subscribe(&topics, 0);
        topics.lost("t");
        topics.push(0, "t", "rest".into());
        subscribe(&topics, 0);
        topics.push(0, "t", "new".into());
        let resumed = Event::Resumed(Continuity::Unknown);
        assert_eq!(read(&mut subscription), Some(resumed));
        assert_eq!(read(&mut subscription), message("new"));
    }

    #[test]
    fn only_those_are_confirmed_on_whose_behalf_the_broker_was_asked() {
        let topics = Topics::default();
        let (_first, first) = add(&topics, true);
        topics.ask(&names());
        let (_second, second) = add(&topics, true);
        topics.confirm(&names(), 5, unknown);
        assert!(is_confirmed(first));
        assert_eq!(topics.differences().missing, names());
        assert!(!is_confirmed(second));
        // What the broker does not keep cannot come from before.
        topics.end(false);
        let (_third, third) = add(&topics, false);
        subscribe(&topics, 0);
        assert!(is_confirmed(third));
        assert!(add(&topics, false).1.is_none());
    }

    #[tokio::test]
    async fn a_listener_hears_what_comes_after_its_position() {
        let topics = Topics::default();
        let (mut one, _) = add(&topics, true);
        subscribe(&topics, 10);
        let (mut two, _) = add(&topics, true);
        subscribe(&topics, 20);
        for (position, payload) in [(9, "a"), (10, "b"), (19, "c"), (20, "d")] {
            pass(&topics, position, payload).await;
        }
        let heard = ["b", "c", "d"].map(message);
        assert_eq!([read(&mut one), read(&mut one), read(&mut one)], heard);
        assert_eq!(read(&mut two), message("d"));
        let lost = |_: &str| Some(Continuity::Unknown);
        topics.tell(15, lost);
        assert!(read(&mut one).is_some() && read(&mut two).is_none());
        topics.rewind();
        pass(&topics, 1, "e").await;
        assert_eq!(read(&mut two), message("e"));
    }

    #[test]
    fn what_the_broker_keeps_stays_subscribed_and_is_told_how_it_goes_on() {
        let topics = Topics::default();
        let (mut subscription, _) = add(&topics, true);
        subscribe(&topics, 0);
        let _heartbeats = topics.add("cluster", false, BufferLimits::default());
        let others: Vec<Name> = vec!["cluster".into()];
        topics.ask(&others);
        topics.confirm(&others, 0, unknown);
        topics.end(true);
        assert_eq!(topics.differences().missing, others);
        let replayed = Continuity::Unbroken { replayed: 3 };
        topics.tell(u64::MAX, |_| Some(replayed));
        assert_eq!(read(&mut subscription), Some(Event::Resumed(replayed)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_is_waited_for_once() {
        let topics = Topics::default();
        let (mut slow, _) = topics.add("t", true, BufferLimits::new(1, 100));
        subscribe(&topics, 0);
        let start = tokio::time::Instant::now();
        for payload in ["kept", "dropped", "dropped too"] {
            pass(&topics, 1, payload).await;
        }
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert_eq!(read(&mut slow), message("kept"));
        pass(&topics, 2, "back").await;
        assert_eq!(read(&mut slow), Some(Event::Lagged(2)));
        assert_eq!(read(&mut slow), message("back"));
        pass(&topics, 3, "fits").await;
        let waited = async { pass(&topics, 4, "waited for").await };
        let reading = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            (read(&mut slow), slow.recv().await)
        };
        let ((), heard) = tokio::join!(waited, reading);
        assert_eq!(heard, (message("fits"), message("waited for")));
    }

    #[test]
    fn a_refusal_ends_those_who_wait_and_the_session_of_those_who_had_it() {
        let topics = Topics::default();
        let refused = || Error::new(ErrorKind::Unauthorized, "test", "no");
        let (subscription, confirmation) = add(&topics, false);
        topics.ask(&names());
        assert!(topics.refuse("t", refused).is_ok());
        let answer = confirmation.unwrap().now_or_never().unwrap().unwrap();
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unauthorized);
        drop(subscription);
        assert_eq!(topics.differences(), Differences::default());
        let (_had_it, _) = add(&topics, false);
        subscribe(&topics, 0);
        topics.end(false);
        assert!(topics.refuse("t", refused).is_err());
    }

    #[test]
    fn who_waits_when_the_session_ends_waits_in_vain_and_the_end_ends_all() {
        let topics = Topics::default();
        let (_waiting, confirmation) = add(&topics, false);
        topics.end(false);
        assert!(matches!(confirmation.unwrap().now_or_never(), Some(Err(_))));
        let (mut subscription, _) = add(&topics, false);
        topics.close();
        assert_eq!(subscription.recv().now_or_never(), Some(None));
        let (mut late, confirmation) = add(&topics, false);
        assert!(confirmation.is_none());
        assert_eq!(late.recv().now_or_never(), Some(None));
    }
}
