//! Who reads which log from where: outlives the sessions, and is where what a session reads is handed out.

use std::{
    collections::HashMap,
    future::{Future as _, poll_fn},
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{Notify, oneshot};

use super::position::{Entry, Id, Position, Snapshot};
use crate::{
    error::{Error, Result},
    transport::{BufferLimits, Continuity, LossCause, Name, Subscription, SubscriptionSender},
};

/// Where a topic is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The log.
    pub log: Name,
    /// The topic, if others share the log.
    pub topic: Option<Name>,
    /// How many of its last entries a log surely keeps, however it is trimmed. 0: not known, as where it is trimmed by age;
    /// each entry then costs a look at the log.
    pub kept: u64,
}

/// A cursor whose log has to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Due<I> {
    /// The cursor, for [`Cursors::advance`] and [`Cursors::refuse`].
    pub cursor: u64,
    /// Its log.
    pub log: Name,
    /// The last entry that was read. `None`: only the end of the log is wanted.
    pub from: Option<I>,
}

/// The logs that were read to their ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ends<I> {
    /// The last entry that was read of each.
    pub logs: HashMap<Name, I>,
    /// Whether some cursors are [due](Cursors::due): then do not wait for what comes.
    pub behind: bool,
}

/// All cursors of a transport, and their listeners; the [module documentation](super) says how a session uses them.
///
/// Whoever reads a log is told what became of it by [`Event::Resumed`](crate::transport::Event::Resumed) once in each
/// session, and by [`Lagged`](crate::transport::Event::Lagged), or another `Resumed`, when something was lost amid one.
#[derive(Debug, Default)]
pub struct Cursors<I: Id> {
    state: Mutex<State<I>>,
    added: Notify,
}

#[derive(Debug, Default)]
struct State<I> {
    closed: bool,
    cursors: Vec<Cursor<I>>,
    /// How many cursors there have been.
    made: u64,
    /// Full cursors whose only listener waits for room: each resolves to the number of the cursor and the entry that was
    /// taken then, or to nothing if the subscription is gone.
    parked: FuturesUnordered<BoxFuture<'static, Option<(u64, I)>>>,
}

/// One position in one log. Listeners that stand at the same place share a cursor; one that is full gets its own.
#[derive(Debug)]
struct Cursor<I> {
    number: u64,
    log: Name,
    kept: u64,
    standing: Standing,
    position: Position<I>,
    listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Has no position yet: the end of the log, as soon as the broker has told it.
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
    topic: Option<Name>,
    sender: SubscriptionSender,
    /// Somebody waits for the position.
    waiting: Option<oneshot::Sender<Result<()>>>,
}

impl<I: Id> Cursors<I> {
    /// Adds a listener who wants everything that is published from now on. The second value resolves as soon as that is so,
    /// to an error if the broker [refuses](Self::refuse) the log, and to none of both when the session ends.
    pub fn add(
        &self,
        place: Place,
        limits: BufferLimits,
    ) -> (Subscription, oneshot::Receiver<Result<()>>) {
        let (sender, subscription) = Subscription::channel(limits);
        let (waiting, confirmation) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            sender.end();
            return (subscription, confirmation);
        }
        let listener = Listener {
            topic: place.topic,
            sender,
            waiting: Some(waiting),
        };
        state.insert(Cursor {
            number: 0,
            log: place.log,
            kept: place.kept,
            standing: Standing::New,
            position: Position::default(),
            listeners: vec![listener],
        });
        drop(state);
        self.added.notify_one();
        (subscription, confirmation)
    }

    /// Waits until something is [due](Self::due) that was not: a listener was added, or one that was full has taken what it
    /// waited for, which it does here.
    ///
    /// # Cancel safety
    /// Cancel safe. Wait for it in the task that reads.
    pub async fn changed(&self) {
        let mut added = pin!(self.added.notified());
        poll_fn(|cx| {
            // Both, since both have to wake us.
            let took = self.lock().unpark(cx);
            let added = added.as_mut().poll(cx).is_ready();
            if took || added {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Ends the session: who waits for a position waits in vain, the others have one to come back to.
    pub fn end(&self) {
        let mut state = self.lock();
        state.parked.clear();
        state
            .cursors
            .retain(|cursor| cursor.standing != Standing::New);
        for cursor in &mut state.cursors {
            cursor.standing = Standing::Stale;
        }
    }

    /// Ends all subscriptions for good.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.parked.clear();
        for cursor in state.cursors.drain(..) {
            for listener in cursor.listeners {
                listener.sender.end();
            }
        }
    }

    /// The cursors whose logs have to be looked at. Forgets listeners that were dropped.
    pub fn due(&self) -> Vec<Due<I>> {
        let mut state = self.lock();
        state.cursors.retain_mut(|cursor| {
            cursor
                .listeners
                .retain(|listener| !listener.sender.is_closed());
            !cursor.listeners.is_empty()
        });
        state.ask_together();
        let due = |cursor: &Cursor<I>| {
            let from = match cursor.standing {
                Standing::New => None,
                Standing::Stale | Standing::Behind => Some(cursor.position.id),
                Standing::AtEnd | Standing::Full => return None,
            };
            Some(Due {
                cursor: cursor.number,
                log: cursor.log.clone(),
                from,
            })
        };
        state.cursors.iter().filter_map(due).collect()
    }

    /// The logs that were read to their ends, with the place to read on from, and whether others are behind.
    pub fn ends(&self) -> Ends<I> {
        let state = self.lock();
        let mut ends = Ends {
            logs: HashMap::new(),
            behind: false,
        };
        for cursor in &state.cursors {
            match cursor.standing {
                Standing::AtEnd => {
                    let id = cursor.position.id;
                    let end = ends.logs.entry(cursor.log.clone()).or_insert(id);
                    *end = id.min(*end);
                }
                Standing::Full => {}
                Standing::New | Standing::Stale | Standing::Behind => ends.behind = true,
            }
        }
        ends
    }

    /// Makes all logs due, for what nobody tells: a log that was deleted by hand.
    pub fn doubt(&self) {
        for cursor in &mut self.lock().cursors {
            if cursor.standing == Standing::AtEnd {
                cursor.standing = Standing::Behind;
            }
        }
    }

    /// Tells those who wait for a new cursor that the broker refuses its log.
    pub fn refuse(&self, cursor: u64, error: impl Fn() -> Error) {
        let mut state = self.lock();
        let at = state.cursors.iter().position(|it| it.number == cursor);
        let Some(at) = at else {
            return;
        };
        for listener in state.cursors.swap_remove(at).listeners {
            if let Some(waiting) = listener.waiting {
                let _ = waiting.send(Err(error()));
            }
        }
    }

    /// Takes in what the log of a cursor looks like: tells what is missing, and hands out what was read.
    pub fn advance(&self, cursor: u64, log: &Snapshot<I>) {
        let mut state = self.lock();
        let Some(it) = state.cursor(cursor) else {
            return;
        };
        let name = it.log.clone();
        if it.standing == Standing::New {
            it.position = log.end();
            it.standing = Standing::AtEnd;
            for listener in &mut it.listeners {
                listener.waiting.take().map(|waiting| waiting.send(Ok(())));
            }
        } else {
            let (continuity, start) = log.judge(it.position, it.kept);
            let stale = it.standing == Standing::Stale;
            for listener in &it.listeners {
                listener.tell(stale, continuity, log, start.id);
            }
            it.position = start;
            it.standing = if log.more {
                Standing::Behind
            } else {
                Standing::AtEnd
            };
            state.hand_out(cursor, &log.entries);
            let it = state.cursor(cursor);
            if let Some(it) = it.filter(|it| it.position.id == log.last) {
                // Where the count was lost, it is known again.
                it.position.count = log.added;
            }
        }
        state.merge(&name);
    }

    /// Hands out what was read behind the [end](Self::ends) of a log, unless something may be missing before it: then the
    /// log is due. `all`: there was nothing else, so that fewer than the log surely keeps are all that have come.
    pub fn hand_out(&self, log: &str, entries: &[Entry<I>], all: bool) {
        let mut state = self.lock();
        let mut numbers = Vec::new();
        let at_end = |it: &&mut Cursor<I>| *it.log == *log && it.standing == Standing::AtEnd;
        for cursor in state.cursors.iter_mut().filter(at_end) {
            if all && (entries.len() as u64) < cursor.kept {
                numbers.push(cursor.number);
            } else {
                cursor.standing = Standing::Behind;
            }
        }
        for number in numbers {
            state.hand_out(number, entries);
        }
        state.merge(log);
    }

    fn lock(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I: Id> State<I> {
    fn insert(&mut self, mut cursor: Cursor<I>) -> u64 {
        self.made += 1;
        cursor.number = self.made;
        self.cursors.push(cursor);
        self.made
    }

    fn cursor(&mut self, number: u64) -> Option<&mut Cursor<I>> {
        self.cursors
            .iter_mut()
            .find(|cursor| cursor.number == number)
    }

    /// Lets listeners that wait for the end of the same log share one cursor: a thousand topics that start together in one
    /// log are one question. Who comes after the question was sent needs another one, or hears what was before it.
    fn ask_together(&mut self) {
        let mut new: HashMap<Name, Cursor<I>> = HashMap::new();
        let asking = |cursor: &mut Cursor<I>| cursor.standing == Standing::New;
        for cursor in self.cursors.extract_if(.., asking) {
            match new.get_mut(&cursor.log) {
                Some(first) => first.listeners.extend(cursor.listeners),
                None => drop(new.insert(cursor.log.clone(), cursor)),
            }
        }
        self.cursors.extend(new.into_values());
    }

    /// Hands the entries behind the cursor to its listeners. One that is full goes on alone.
    fn hand_out(&mut self, number: u64, entries: &[Entry<I>]) {
        let mut leaving = Vec::new();
        let Some(cursor) = self.cursor(number) else {
            return;
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
        let (log, kept) = (cursor.log.clone(), cursor.kept);
        if cursor.listeners.is_empty() {
            self.cursors.retain(|cursor| cursor.number != number);
        }
        for (position, id, payload, listener) in leaving {
            let sender = listener.sender.clone();
            let number = self.insert(Cursor {
                number: 0,
                log: log.clone(),
                kept,
                standing: Standing::Full,
                position,
                listeners: vec![listener],
            });
            let taking = async move { sender.push_wait(payload).await.then_some((number, id)) };
            self.parked.push(taking.boxed());
        }
    }

    /// Lets those who were full take what they wait for, as far as there is room. Returns whether there was any.
    fn unpark(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(took)) = self.parked.poll_next_unpin(cx) {
            any = true;
            if let Some((number, id)) = took
                && let Some(cursor) = self.cursor(number)
            {
                cursor.position.pass(id);
                cursor.standing = Standing::Behind;
            }
        }
        any
    }

    /// Lets listeners that have come to the same end of a log share one cursor again.
    fn merge(&mut self, log: &str) {
        let at_end = |it: &mut Cursor<I>| it.standing == Standing::AtEnd && *it.log == *log;
        let mut ends: Vec<Cursor<I>> = Vec::new();
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
    fn wants<I>(&self, entry: &Entry<I>) -> bool {
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
    fn tell<I: Id>(&self, stale: bool, continuity: Continuity, log: &Snapshot<I>, from: I) {
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
