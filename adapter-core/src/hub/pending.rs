//! Requests of this node that wait for answers of others.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use socketioxide_core::{Sid, adapter::Room};

use super::{
    acks::AckTracker,
    requests::{Answers, RequestTracker},
};
use crate::{
    id::{NodeId, RequestId},
    wire::{Envelope, LaneId, Payload},
};

/// What an acknowledgement says: the value, or the emitter's error as JSON.
pub(crate) type AckResult = Result<Payload, Bytes>;

/// A waker and what it guards.
#[derive(Debug)]
struct Waiting<T> {
    inner: T,
    waker: Option<Waker>,
}

/// The shared state of one query.
#[derive(Debug)]
pub(crate) struct Query<T>(Mutex<Waiting<Option<RequestTracker<T>>>>);

impl<T> Query<T> {
    fn new(expected: Vec<NodeId>) -> Self {
        Self(Mutex::new(Waiting {
            inner: Some(RequestTracker::new(expected)),
            waker: None,
        }))
    }

    fn update(&self, change: impl FnOnce(&mut RequestTracker<T>)) {
        let mut waiting = lock(&self.0);
        let Some(tracker) = &mut waiting.inner else {
            return;
        };
        change(tracker);
        if tracker.is_done()
            && let Some(waker) = waiting.waker.take()
        {
            drop(waiting);
            waker.wake();
        }
    }

    /// Waits until every node has answered or is gone.
    pub(crate) async fn done(&self) {
        poll_fn(|cx| {
            let mut waiting = lock(&self.0);
            if waiting.inner.as_ref().is_none_or(RequestTracker::is_done) {
                return Poll::Ready(());
            }
            waiting.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn waits_for(&self, node: NodeId) -> bool {
        let waiting = lock(&self.0);
        let tracker = waiting.inner.as_ref();
        tracker.is_some_and(|tracker| tracker.waits_for(node))
    }

    /// Takes what has come so far; nodes that still owe an answer are missing.
    pub(crate) fn finish(&self) -> Option<Answers<T>> {
        lock(&self.0).inner.take().map(RequestTracker::finish)
    }
}

/// The shared state of one broadcast with acknowledgements.
#[derive(Debug)]
pub(crate) struct Acks(Mutex<Waiting<AckState>>);

#[derive(Debug)]
struct AckState {
    tracker: AckTracker,
    queue: VecDeque<(Sid, AckResult)>,
    capacity: usize,
}

impl Acks {
    fn new(expected: Vec<NodeId>, capacity: usize) -> Self {
        Self(Mutex::new(Waiting {
            inner: AckState {
                tracker: AckTracker::new(expected),
                queue: VecDeque::new(),
                capacity,
            },
            waker: None,
        }))
    }

    /// Changes the state and wakes the reader; returns what `change` returns.
    fn update<R>(&self, change: impl FnOnce(&mut AckState) -> R) -> R {
        let mut waiting = lock(&self.0);
        let result = change(&mut waiting.inner);
        let waker = waiting.waker.take();
        drop(waiting);
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// The next acknowledgement; `None` once every node is done or gone and all were taken.
    pub(crate) fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<(Sid, AckResult)>> {
        let mut waiting = lock(&self.0);
        if let Some(ack) = waiting.inner.queue.pop_front() {
            return Poll::Ready(Some(ack));
        }
        if waiting.inner.tracker.is_done() {
            return Poll::Ready(None);
        }
        waiting.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nodes that have not delivered everything.
    pub(crate) fn missing(&self) -> Vec<NodeId> {
        lock(&self.0).inner.tracker.missing()
    }

    /// Acknowledgements known to be still to come, those waiting here included.
    pub(crate) fn remaining(&self) -> u64 {
        let waiting = lock(&self.0);
        waiting.inner.tracker.remaining() + waiting.inner.queue.len() as u64
    }
}

/// A request, by the kind of its answers.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Rooms(Arc<Query<Vec<Room>>>, Question),
    Sockets(Arc<Query<Vec<Sid>>>, Question),
    Acks(Arc<Acks>),
}

/// What a query asked, to ask it again: a node that was not subscribed yet has missed it. Only reading, so that a second
/// copy does no harm.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    lane: LaneId,
    envelope: Arc<Envelope>,
}

/// All requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    last: AtomicU64,
    entries: Arc<Mutex<HashMap<RequestId, Entry>>>,
}

/// A registered request; dropping it forgets the request, so that late answers find nothing.
#[derive(Debug)]
pub(crate) struct Registered<T> {
    pub(crate) id: RequestId,
    pub(crate) state: Arc<T>,
    entries: Arc<Mutex<HashMap<RequestId, Entry>>>,
}

impl<T> Drop for Registered<T> {
    fn drop(&mut self) {
        lock(&self.entries).remove(&self.id);
    }
}

impl Pending {
    fn next_id(&self) -> RequestId {
        RequestId(self.last.fetch_add(1, Relaxed) + 1)
    }

    fn register<T>(&self, id: RequestId, state: Arc<T>, entry: Entry) -> Registered<T> {
        lock(&self.entries).insert(id, entry);
        Registered {
            id,
            state,
            entries: self.entries.clone(),
        }
    }

    /// Registers a query of `expected` nodes on `lane`; returns it with the question to publish.
    pub(crate) fn query<T>(
        &self,
        expected: Vec<NodeId>,
        lane: LaneId,
        kind: fn(Arc<Query<T>>, Question) -> Entry,
        question: impl FnOnce(RequestId) -> Envelope,
    ) -> (Registered<Query<T>>, Arc<Envelope>) {
        let id = self.next_id();
        let envelope = Arc::new(question(id));
        let question = Question {
            lane,
            envelope: envelope.clone(),
        };
        let state = Arc::new(Query::new(expected));
        let entry = kind(state.clone(), question);
        (self.register(id, state, entry), envelope)
    }

    pub(crate) fn acks(&self, expected: Vec<NodeId>, capacity: usize) -> Registered<Acks> {
        let state = Arc::new(Acks::new(expected, capacity));
        self.register(self.next_id(), state.clone(), Entry::Acks(state))
    }

    fn get(&self, request: RequestId) -> Option<Entry> {
        lock(&self.entries).get(&request).cloned()
    }

    pub(crate) fn on_rooms(&self, node: NodeId, request: RequestId, rooms: Vec<Room>) {
        if let Some(Entry::Rooms(query, _)) = self.get(request) {
            query.update(|tracker| {
                tracker.on_answer(node, rooms);
            });
        }
    }

    pub(crate) fn on_sockets(&self, node: NodeId, request: RequestId, sockets: Vec<Sid>) {
        if let Some(Entry::Sockets(query, _)) = self.get(request) {
            query.update(|tracker| {
                tracker.on_answer(node, sockets);
            });
        }
    }

    pub(crate) fn on_ack_count(&self, node: NodeId, request: RequestId, count: u32) {
        if let Some(Entry::Acks(acks)) = self.get(request) {
            acks.update(|state| state.tracker.on_count(node, count));
        }
    }

    /// Returns whether the acknowledgement was dropped for want of room.
    pub(crate) fn on_ack(
        &self,
        node: NodeId,
        request: RequestId,
        sid: Sid,
        result: AckResult,
    ) -> bool {
        let Some(Entry::Acks(acks)) = self.get(request) else {
            return false;
        };
        acks.update(|state| {
            if !state.tracker.on_ack(node, sid) {
                return false;
            }
            let full = state.queue.len() >= state.capacity;
            if !full {
                state.queue.push_back((sid, result));
            }
            full
        })
    }

    fn all(&self) -> Vec<Entry> {
        lock(&self.entries).values().cloned().collect()
    }

    /// The questions on `lane` that `node` has not answered.
    pub(crate) fn unanswered(&self, lane: LaneId, node: NodeId) -> Vec<Arc<Envelope>> {
        let questions = self.all().into_iter().filter_map(|entry| match entry {
            Entry::Rooms(query, question) => query.waits_for(node).then_some(question),
            Entry::Sockets(query, question) => query.waits_for(node).then_some(question),
            Entry::Acks(_) => None,
        });
        let here = questions.filter(|question| question.lane == lane);
        here.map(|question| question.envelope).collect()
    }

    /// A member has left some namespaces: it has nothing to answer there.
    pub(crate) fn on_left_namespace(&self, node: NodeId, left: impl Fn(LaneId) -> bool) {
        for entry in self.all() {
            match entry {
                Entry::Rooms(query, question) if left(question.lane) => {
                    query.update(|tracker| tracker.on_left_namespace(node));
                }
                Entry::Sockets(query, question) if left(question.lane) => {
                    query.update(|tracker| tracker.on_left_namespace(node));
                }
                _ => {}
            }
        }
    }

    /// A node left: nobody waits for it any more.
    pub(crate) fn on_node_gone(&self, node: NodeId) {
        for entry in self.all() {
            match entry {
                Entry::Rooms(query, _) => query.update(|tracker| tracker.on_node_gone(node)),
                Entry::Sockets(query, _) => query.update(|tracker| tracker.on_node_gone(node)),
                Entry::Acks(acks) => acks.update(|state| state.tracker.on_node_gone(node)),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_dropped_leaves_nothing_and_late_answers_find_nothing() {
        let pending = Pending::default();
        let node = NodeId::random();
        let requests: Vec<_> = (0..10_000).map(|_| pending.acks(vec![node], 1)).collect();
        let id = requests[0].id;
        drop(requests);
        assert_eq!(lock(&pending.entries).len(), 0);
        assert!(!pending.on_ack(node, id, Sid::new(), Err(Bytes::new())));
    }

    #[test]
    fn acknowledgements_nobody_reads_are_bounded() {
        let pending = Pending::default();
        let node = NodeId::random();
        let acks = pending.acks(vec![node], 2);
        let dropped: Vec<bool> = (0..4)
            .map(|_| pending.on_ack(node, acks.id, Sid::new(), Err(Bytes::new())))
            .collect();
        assert_eq!(dropped, [false, false, true, true]);
    }
}
