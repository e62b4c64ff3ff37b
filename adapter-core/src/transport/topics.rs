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
///
/// A reader on a thread of its own may be late, and still hear what the session before was told: it hands out by `push` with
/// the number of its session, and leaves everything else to the session itself, whose future ends before the next one begins.
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
        self.lock().each(names, |_, entry| {
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
        let open = |name: &str, entry: &mut Entry| entry.open(|| continuity(name));
        self.lock().each(names, open);
    }

    /// Notes that the broker has these topics: for those on whose behalf it was asked, everything arrives from this position
    /// on. Who listened in an earlier session is told how it goes on, unless that was done by [`open`](Self::open).
    pub fn confirm(&self, names: &[Name], from: u64, continuity: impl Fn(&str) -> Continuity) {
        let confirm = |name: &str, entry: &mut Entry| entry.confirm(name, from, &continuity);
        self.lock().each(names, confirm);
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
        // One of an earlier session is not known any more.
        if let Some(last) = state.fences.iter().position(|(it, _)| *it == fence) {
            let names = state.fences.drain(..=last).flat_map(|(_, names)| names);
            let names: Vec<Name> = names.collect();
            state.each(&names, |name, entry| entry.confirm(name, from, &continuity));
        }
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn each(&mut self, names: &[Name], change: impl Fn(&str, &mut Entry)) {
        for name in names {
            if let Some(entry) = self.topics.get_mut(name) {
                change(name, entry);
            }
        }
    }
}

impl Entry {
    /// Everything arrives, for those on whose behalf the broker was asked.
    fn confirm(&mut self, name: &str, from: u64, continuity: impl Fn(&str) -> Continuity) {
        self.open(|| continuity(name));
        self.standing = Standing::Subscribed;
        for listener in self.listeners.iter_mut().filter(|it| it.asked) {
            if let Some(waiting) = listener.waiting.take() {
                listener.from = from;
                let _ = waiting.send(Ok(()));
            }
        }
    }

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
mod tests;
