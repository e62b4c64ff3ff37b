//! Who wants which topic: outlives the sessions, and is where what a session receives is handed out.
//!
//! A topic counts as subscribed once a **fence** came back: a message of this node to itself, published after the broker
//! had taken the subscription. What comes before the fence can be the rest of an earlier subscription, with a hole behind
//! it; what comes after is complete.

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
use socketioxide_adapter_core::{
    Result,
    transport::{BufferLimits, Continuity, Subscription, SubscriptionSender},
};
use tokio::{
    sync::{Notify, oneshot, watch},
    time::timeout,
};

/// Tells a subscriber that the broker has the subscription; dropped if the session ends first.
pub(crate) type Confirmation = oneshot::Receiver<()>;

/// The wanted topics, by their tokens, and their listeners.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    state: Mutex<State>,
    changed: Notify,
    /// The last fence that came back.
    fence: watch::Sender<u64>,
}

/// Whether listeners can be added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No: there is no session, or the broker takes no fence.
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
    topics: HashMap<String, Entry>,
    /// The last fence that was set up, in all sessions.
    fence: u64,
    /// What the topics that are subscribed anew are told.
    continuity: Option<Continuity>,
}

#[derive(Debug, Default)]
struct Entry {
    standing: Standing,
    /// Whether the broker keeps what this node has not read, and it is worth having: it is for namespaces, but not for
    /// heartbeats and answers.
    replays: bool,
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    /// The broker does not have it.
    #[default]
    Missing,
    /// The broker has it, and this fence is on its way.
    Fenced(u64),
    /// Everything that arrives counts.
    Subscribed,
}

#[derive(Debug)]
struct Listener {
    sender: SubscriptionSender,
    /// Somebody waits for the first confirmation. `None`: it came, and the next one is a resumption.
    waiting: Option<oneshot::Sender<()>>,
    stalled: Arc<AtomicBool>,
}

/// A payload for a reader that had no room for it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Full {
    payload: Bytes,
    sender: SubscriptionSender,
    /// Its reader let a deadline pass, and is not waited for until there is room again.
    stalled: Arc<AtomicBool>,
}

impl Full {
    /// Hands the payload over once there is room, or drops and counts it after `limit`.
    pub(crate) async fn wait(self, limit: Duration) {
        if timeout(limit, self.sender.push_wait(self.payload))
            .await
            .is_err()
        {
            self.sender.lagged(1);
            self.stalled.store(true, Ordering::Relaxed);
        }
    }
}

impl Topics {
    /// Adds a listener. The confirmation is `None` if the broker has the topic already.
    ///
    /// # Errors
    /// The phase, if it is not [`Phase::Up`].
    pub(crate) fn add(
        &self,
        token: &str,
        replays: bool,
        limits: BufferLimits,
    ) -> Result<(Subscription, Option<Confirmation>), Phase> {
        let (sender, subscription) = Subscription::channel(limits);
        let mut state = self.lock();
        if state.phase != Phase::Up {
            return Err(state.phase);
        }
        let entry = match state.topics.get_mut(token) {
            Some(entry) => entry,
            None => state.topics.entry(token.to_owned()).or_default(),
        };
        entry.replays = replays;
        let (waiting, confirmation) = if entry.standing == Standing::Subscribed {
            (None, None)
        } else {
            let (tx, rx) = oneshot::channel();
            (Some(tx), Some(rx))
        };
        entry.listeners.push(Listener {
            sender,
            waiting,
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

    /// Lets listeners be added, or not.
    pub(crate) fn open(&self, open: bool) {
        let mut state = self.lock();
        if state.phase != Phase::Closed {
            state.phase = if open { Phase::Up } else { Phase::Down };
        }
    }

    /// Ends the present session. What the broker has of it lives on if it `keeps` our subscriptions.
    pub(crate) fn end(&self, keeps: bool) {
        self.open(false);
        for entry in self.lock().topics.values_mut() {
            if !keeps || entry.standing != Standing::Subscribed {
                entry.standing = Standing::Missing;
            }
            // Who waits for a confirmation waits in vain.
            entry
                .listeners
                .retain(|listener| listener.waiting.is_none());
        }
    }

    /// Ends all subscriptions for good.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        for (_, entry) in state.topics.drain() {
            for listener in entry.listeners {
                listener.sender.end();
            }
        }
    }

    /// The broker kept the subscriptions, and this is what became of them meanwhile.
    pub(crate) fn resume(&self, continuity: Continuity) {
        for entry in self.lock().topics.values() {
            let continuity = match continuity {
                Continuity::Unbroken { replayed: 0 } => continuity,
                _ if entry.replays => continuity,
                _ => Continuity::Unknown,
            };
            if entry.standing == Standing::Subscribed {
                entry.resume(continuity);
            }
        }
    }

    /// The broker kept nothing: what is subscribed anew is told so.
    pub(crate) fn forget(&self, continuity: Continuity) {
        let mut state = self.lock();
        state.continuity = Some(continuity);
        for entry in state.topics.values_mut() {
            entry.standing = Standing::Missing;
        }
    }

    /// Forgets listeners that were dropped. Returns the topics that the broker has, but nobody wants any more, and those
    /// that are wanted, but the broker does not have.
    pub(crate) fn differences(&self) -> (Vec<String>, Vec<String>) {
        let (mut unwanted, mut missing) = (Vec::new(), Vec::new());
        self.lock().topics.retain(|token, entry| {
            entry
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            let wanted = !entry.listeners.is_empty();
            match (wanted, entry.standing) {
                (true, Standing::Missing) => missing.push(token.clone()),
                (false, Standing::Fenced(_) | Standing::Subscribed) => unwanted.push(token.clone()),
                _ => {}
            }
            wanted
        });
        (unwanted, missing)
    }

    /// Notes that the broker has these topics. Returns the number of the fence to publish.
    pub(crate) fn fence(&self, tokens: &[String]) -> u64 {
        let mut state = self.lock();
        state.fence += 1;
        let fence = state.fence;
        for token in tokens {
            if let Some(entry) = state.topics.get_mut(token) {
                entry.standing = Standing::Fenced(fence);
            }
        }
        fence
    }

    /// Notes that a fence came back: what was set up before it is subscribed.
    pub(crate) fn came_back(&self, fence: u64) {
        let mut state = self.lock();
        let continuity = state.continuity.unwrap_or(Continuity::Unknown);
        for entry in state.topics.values_mut() {
            if !matches!(entry.standing, Standing::Fenced(number) if number <= fence) {
                continue;
            }
            entry.standing = Standing::Subscribed;
            entry.resume(match entry.replays {
                true => continuity,
                false => Continuity::Unknown,
            });
            for listener in &mut entry.listeners {
                if let Some(waiting) = listener.waiting.take() {
                    let _ = waiting.send(());
                }
            }
        }
        drop(state);
        self.fence.send_if_modified(|last| {
            let newer = *last < fence;
            *last = fence.max(*last);
            newer
        });
    }

    /// Waits until a fence has come back.
    pub(crate) async fn wait_for(&self, fence: u64) {
        let mut fences = self.fence.subscribe();
        // The sender lives as long as we do.
        let _ = fences.wait_for(|last| *last >= fence).await;
    }

    /// Whether everything that is published to a topic must come back to us.
    pub(crate) fn is_subscribed(&self, token: &str) -> bool {
        let state = self.lock();
        let entry = state.topics.get(token);
        entry.is_some_and(|entry| {
            entry.standing == Standing::Subscribed && !entry.listeners.is_empty()
        })
    }

    /// Hands out a payload. `replayed`: it was published while we were away. Returns those who have to be waited for before
    /// the next payload: the broker keeps it for them.
    pub(crate) fn receive(&self, token: &str, payload: Vec<u8>, replayed: bool) -> Vec<Full> {
        let state = self.lock();
        let entry = state.topics.get(token);
        let wanted =
            |entry: &&Entry| entry.standing == Standing::Subscribed && (!replayed || entry.replays);
        let Some(entry) = entry.filter(wanted) else {
            return Vec::new();
        };
        let payload = Bytes::from(payload);
        let full = |listener: &Listener| listener.receive(payload.clone(), entry.replays);
        entry.listeners.iter().filter_map(full).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    fn receive(&self, payload: Bytes, patient: bool) -> Option<Full> {
        if !patient || self.stalled.load(Ordering::Relaxed) {
            let stalled = !self.sender.push(payload);
            self.stalled.store(stalled, Ordering::Relaxed);
            return None;
        }
        let taken = self.sender.push_wait(payload.clone()).now_or_never();
        taken.is_none().then(|| Full {
            payload,
            sender: self.sender.clone(),
            stalled: self.stalled.clone(),
        })
    }
}

impl Entry {
    fn resume(&self, continuity: Continuity) {
        for listener in &self.listeners {
            if listener.waiting.is_none() {
                listener.sender.resumed(continuity);
            }
        }
    }
}
