//! Who reads which log from where: outlives the sessions, and is where what a session reads is handed out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use socketioxide_adapter_core::{
    Error, Result,
    transport::{BufferLimits, Continuity, LossCause, Subscription, SubscriptionSender},
};
use tokio::sync::{Notify, oneshot};

use crate::{
    config::Retention,
    position::{Entry, Id, Position, Snapshot},
};

/// Where a topic is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The key of the log.
    pub(crate) key: Arc<[u8]>,
    /// The topic, if others share the log.
    pub(crate) topic: Option<Arc<[u8]>>,
    pub(crate) retention: Retention,
}

/// Tells a subscriber that its position is known, or why not.
pub(crate) type Confirmation = oneshot::Receiver<Result<()>>;

/// A full cursor whose only listener waits for room: resolves to the number of the cursor and the entry that was taken
/// then, or to nothing if the subscription is gone.
pub(crate) type Taking = BoxFuture<'static, Option<(u64, Id)>>;

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

/// All cursors of a transport.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    cursors: Vec<Cursor>,
    /// How many cursors there have been.
    made: u64,
}

/// One position in one log. Listeners that stand at the same place share a cursor; one that is full gets its own.
#[derive(Debug)]
struct Cursor {
    number: u64,
    key: Arc<[u8]>,
    retention: Retention,
    standing: Standing,
    position: Position,
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Has no position yet: the end of the log, as soon as the server has told it.
    New,
    /// Has the position of an earlier session, and listeners who want to know what became of the log.
    Stale,
    /// Has read less than there was.
    Behind,
    /// Has read everything there was.
    AtEnd,
    /// Waits for its only listener.
    Full,
}

#[derive(Debug)]
struct Listener {
    /// What it wants of a shared log.
    topic: Option<Arc<[u8]>>,
    sender: SubscriptionSender,
    /// Somebody waits for the position.
    waiting: Option<oneshot::Sender<Result<()>>>,
}

/// A cursor whose log has to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) cursor: u64,
    pub(crate) key: Arc<[u8]>,
    pub(crate) retention: Retention,
    /// `None`: only the end of the log is wanted.
    pub(crate) from: Option<Id>,
}

impl Cursors {
    /// Adds a listener who wants everything that is published from now on.
    ///
    /// # Errors
    /// The phase, if it is not [`Phase::Up`].
    pub(crate) fn add(
        &self,
        place: Place,
        limits: BufferLimits,
    ) -> Result<(Subscription, Confirmation), Phase> {
        let (sender, subscription) = Subscription::channel(limits);
        let (waiting, confirmation) = oneshot::channel();
        let mut state = self.lock();
        if state.phase != Phase::Up {
            return Err(state.phase);
        }
        let listener = Listener {
            topic: place.topic,
            sender,
            waiting: Some(waiting),
        };
        state.insert(Cursor {
            number: 0,
            key: place.key,
            retention: place.retention,
            standing: Standing::New,
            position: Position::default(),
            listeners: vec![listener],
        });
        drop(state);
        self.changed.notify_one();
        Ok((subscription, confirmation))
    }

    /// Waits until a listener was added.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Notes that the session has a position in each log and can take more.
    pub(crate) fn open(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Down {
            state.phase = Phase::Up;
        }
    }

    /// Ends the session: who waits for a position waits in vain, the others have one to come back to.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Up {
            state.phase = Phase::Down;
        }
        state
            .cursors
            .retain(|cursor| cursor.standing != Standing::New);
        for cursor in &mut state.cursors {
            cursor.standing = Standing::Stale;
        }
    }

    /// Ends all subscriptions for good.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.phase = Phase::Closed;
        for cursor in state.cursors.drain(..) {
            for listener in cursor.listeners {
                listener.sender.end();
            }
        }
    }

    /// The cursors whose logs have to be looked at. Forgets listeners that were dropped.
    pub(crate) fn due(&self) -> Vec<Due> {
        let mut state = self.lock();
        state.cursors.retain_mut(|cursor| {
            cursor
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            !cursor.listeners.is_empty()
        });
        state.ask_together();
        let due = |cursor: &Cursor| {
            let from = match cursor.standing {
                Standing::New => None,
                Standing::Stale | Standing::Behind => Some(cursor.position.id),
                Standing::AtEnd | Standing::Full => return None,
            };
            Some(Due {
                cursor: cursor.number,
                key: cursor.key.clone(),
                retention: cursor.retention,
                from,
            })
        };
        state.cursors.iter().filter_map(due).collect()
    }

    /// The logs that were read to their ends, with the place to read on from, and whether others are behind.
    pub(crate) fn at_end(&self) -> (HashMap<Arc<[u8]>, Id>, bool) {
        let state = self.lock();
        let mut ends = HashMap::new();
        let mut behind = false;
        for cursor in &state.cursors {
            match cursor.standing {
                Standing::AtEnd => {
                    let end = ends.entry(cursor.key.clone()).or_insert(cursor.position.id);
                    *end = cursor.position.id.min(*end);
                }
                Standing::Full => {}
                Standing::New | Standing::Stale | Standing::Behind => behind = true,
            }
        }
        (ends, behind)
    }

    /// Has all logs looked at anew, for what nobody tells: a log that was deleted by hand.
    pub(crate) fn doubt(&self) {
        for cursor in &mut self.lock().cursors {
            if cursor.standing == Standing::AtEnd {
                cursor.standing = Standing::Behind;
            }
        }
    }

    /// Tells those who wait for a new cursor that the server refuses its log.
    pub(crate) fn refuse(&self, number: u64, error: impl Fn() -> Error) {
        let mut state = self.lock();
        let Some(at) = state
            .cursors
            .iter()
            .position(|cursor| cursor.number == number)
        else {
            return;
        };
        for listener in state.cursors.swap_remove(at).listeners {
            if let Some(waiting) = listener.waiting {
                let _ = waiting.send(Err(error()));
            }
        }
    }

    /// Takes in what a log looks like: tells what is missing, and hands out what was read.
    pub(crate) fn look(&self, number: u64, log: &Snapshot) -> Vec<Taking> {
        let mut state = self.lock();
        let Some(cursor) = state.cursor(number) else {
            return Vec::new();
        };
        if cursor.standing == Standing::New {
            cursor.position = log.end();
            cursor.standing = Standing::AtEnd;
            for listener in &mut cursor.listeners {
                listener.waiting.take().map(|waiting| waiting.send(Ok(())));
            }
            let key = cursor.key.clone();
            state.merge(&key);
            return Vec::new();
        }
        let untrimmed = match cursor.retention {
            Retention::Length(length) => length,
            Retention::Age(_) => 0,
        };
        let (continuity, start) = log.judge(cursor.position, untrimmed);
        let stale = cursor.standing == Standing::Stale;
        for listener in &cursor.listeners {
            listener.tell(stale, continuity, log, start.id);
        }
        cursor.position = start;
        cursor.standing = if log.more {
            Standing::Behind
        } else {
            Standing::AtEnd
        };
        let key = cursor.key.clone();
        let taking = state.hand_out(number, &log.entries);
        if let Some(cursor) = state
            .cursor(number)
            .filter(|cursor| cursor.position.id == log.last)
        {
            // Where the count was lost, it is known again.
            cursor.position.count = log.added;
        }
        state.merge(&key);
        taking
    }

    /// Hands out what was read behind the ends of a log; not if something may be missing before it.
    pub(crate) fn read(&self, key: &[u8], entries: &[Entry], complete: bool) -> Vec<Taking> {
        let mut state = self.lock();
        let reading =
            |cursor: &&mut Cursor| *cursor.key == *key && cursor.standing == Standing::AtEnd;
        let mut numbers = Vec::new();
        for cursor in state.cursors.iter_mut().filter(reading) {
            if complete && matches!(cursor.retention, Retention::Length(_)) {
                numbers.push(cursor.number);
            } else {
                cursor.standing = Standing::Behind;
            }
        }
        let mut taking = Vec::new();
        for number in numbers {
            taking.extend(state.hand_out(number, entries));
        }
        state.merge(key);
        taking
    }

    /// Notes what came of a [`Taking`].
    pub(crate) fn took(&self, took: Option<(u64, Id)>) {
        let mut state = self.lock();
        if let Some((number, id)) = took
            && let Some(cursor) = state.cursor(number)
        {
            cursor.position.pass(id);
            cursor.standing = Standing::Behind;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, mut cursor: Cursor) -> u64 {
        self.made += 1;
        cursor.number = self.made;
        self.cursors.push(cursor);
        self.made
    }

    fn cursor(&mut self, number: u64) -> Option<&mut Cursor> {
        self.cursors
            .iter_mut()
            .find(|cursor| cursor.number == number)
    }

    /// Lets listeners that wait for the end of the same log share one cursor: a thousand topics that start together in one
    /// log are one question. Who comes after the question was sent needs another one, or hears what was before it.
    fn ask_together(&mut self) {
        let mut new: HashMap<Arc<[u8]>, Cursor> = HashMap::new();
        let asking = |cursor: &mut Cursor| cursor.standing == Standing::New;
        for cursor in self.cursors.extract_if(.., asking) {
            match new.get_mut(&cursor.key) {
                Some(first) => first.listeners.extend(cursor.listeners),
                None => drop(new.insert(cursor.key.clone(), cursor)),
            }
        }
        self.cursors.extend(new.into_values());
    }

    /// Hands the entries behind the cursor to its listeners. One that is full goes on alone.
    fn hand_out(&mut self, number: u64, entries: &[Entry]) -> Vec<Taking> {
        let mut leaving = Vec::new();
        let Some(cursor) = self.cursor(number) else {
            return Vec::new();
        };
        let start = cursor.position.id;
        for entry in entries.iter().filter(|entry| entry.id > start) {
            let before = cursor.position;
            cursor.position.pass(entry.id);
            let Some(payload) = &entry.payload else {
                continue;
            };
            let full = |listener: &mut Listener| listener.wants(entry) && !listener.takes(payload);
            for listener in cursor.listeners.extract_if(.., full) {
                leaving.push((before, entry.id, payload.clone(), listener));
            }
        }
        let (key, retention) = (cursor.key.clone(), cursor.retention);
        if cursor.listeners.is_empty() {
            self.cursors.retain(|cursor| cursor.number != number);
        }
        let alone = |(position, id, payload, listener): (_, _, _, Listener)| {
            let sender = listener.sender.clone();
            let number = self.insert(Cursor {
                number: 0,
                key: key.clone(),
                retention,
                standing: Standing::Full,
                position,
                listeners: vec![listener],
            });
            let taking = async move { sender.push_wait(payload).await.then_some((number, id)) };
            taking.boxed()
        };
        leaving.into_iter().map(alone).collect()
    }

    /// Lets listeners that have come to the same end of a log share one cursor again.
    fn merge(&mut self, key: &[u8]) {
        let at_end =
            |cursor: &mut Cursor| cursor.standing == Standing::AtEnd && *cursor.key == *key;
        let mut ends: Vec<Cursor> = Vec::new();
        for cursor in self.cursors.extract_if(.., at_end) {
            match ends
                .iter_mut()
                .find(|end| end.position.id == cursor.position.id)
            {
                Some(end) => end.listeners.extend(cursor.listeners),
                None => ends.push(cursor),
            }
        }
        self.cursors.append(&mut ends);
    }
}

impl Listener {
    fn wants(&self, entry: &Entry) -> bool {
        match &self.topic {
            Some(topic) => entry.topic.as_deref() == Some(topic),
            None => true,
        }
    }

    /// Hands a payload over, unless there is no room.
    fn takes(&self, payload: &Bytes) -> bool {
        self.sender
            .push_wait(payload.clone())
            .now_or_never()
            .is_some()
    }

    /// Tells what became of the log: once per session in any case, else only if something is missing.
    fn tell(&self, stale: bool, continuity: Continuity, log: &Snapshot, from: Id) {
        let alone = self.topic.is_none();
        let continuity = match continuity {
            Continuity::Lost { cause, .. } if !alone => Continuity::Lost { count: None, cause },
            Continuity::Unbroken { .. } if !alone => {
                let wanted = log.after(from).filter(|entry| self.wants(entry));
                let replayed = (wanted.count() as u64).max(log.more.into());
                Continuity::Unbroken { replayed }
            }
            continuity => continuity,
        };
        match continuity {
            continuity if stale => self.sender.resumed(continuity),
            Continuity::Lost {
                count: Some(count),
                cause: LossCause::Trimmed,
            } => self.sender.lagged(count),
            Continuity::Lost { .. } => self.sender.resumed(continuity),
            _ => {}
        }
    }
}
