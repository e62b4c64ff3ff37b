//! Publishing: in the order of first poll, pipelined, bounded, and known to have arrived.
//!
//! The client takes a message and says nothing more about it. So an **echo** follows: a message to ourselves on the same
//! connection. The server reads in order, and when the echo is back it has read all that went before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::FutureExt as _;
use socketioxide_adapter_core::{
    Error, Result,
    transport::{Budget, BufferLimits, Permit, Step},
};
use tokio::{sync::oneshot, task::unconstrained};

use crate::Nats;

/// How many echoes it takes to believe that the server does not refuse a subject.
const FRESH: u8 = 4;
/// Most subjects of which it is remembered whether we may publish to them; of others each publish finds out anew.
const SUBJECTS: usize = 10_000;

/// Told to who waits for the server.
pub(crate) type Answer = oneshot::Receiver<Result<()>>;

/// The connection of the present session, and what waits for an answer on it.
#[derive(Debug)]
pub(crate) struct Publisher {
    budget: Budget,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The client, and the beginning of the subjects on which answers arrive.
    link: Option<(Client, String)>,
    /// What is not answered yet, in the order of their numbers; what was answered out of order has no `done` any more.
    waiting: VecDeque<Waiting>,
    /// Number of the first of them.
    first: u64,
    /// An echo is on its way.
    asking: bool,
    /// How many have come back, in all sessions.
    echoed: u64,
    /// Subjects that the server allows us, or forbids.
    allowed: HashMap<String, bool>,
}

#[derive(Debug)]
struct Waiting {
    subject: String,
    /// How many echoes are the answer; 0 if only an acknowledgement of its own is.
    ///
    /// A refusal comes before the echo, but by way of another task of the client. So where one is possible, more echoes
    /// give it the time of some round trips.
    echoes: u8,
    done: Option<oneshot::Sender<Result<()>>>,
    /// Of what is published. Also what was answered out of order keeps it, so that the queue has a bound.
    _permit: Option<Permit>,
}

impl Nats {
    /// Publishes in one order with all others, and waits for the server: until it has read the message, or, with headers, for
    /// its answer to just this one, which [`Companion::acknowledgement`](crate::companion::Companion::acknowledgement) reads.
    /// Hands the message to the client library at the first poll, and has no deadline of its own.
    ///
    /// # Errors
    /// Those of the answer, and as [`Transport::publish`](socketioxide_adapter_core::transport::Transport::publish).
    pub async fn send(
        &self,
        subject: String,
        payload: Bytes,
        headers: Option<HeaderMap>,
    ) -> Result<()> {
        let (origin, publisher) = (&self.origin, &self.publisher);
        // A place among what waits and a place in the client's queue are taken in one step, so that numbers and messages have
        // the same order. The queue has more room than `publish_buffer` allows to wait.
        let answer = {
            let down = || Step::Publish.down(origin.name, &origin.at);
            let mut state = publisher.lock();
            let Some((client, inbox)) = &state.link else {
                return Err(down());
            };
            let echoes = match state.allowed.get(&subject) {
                Some(false) => return Err(origin.denied(Step::Publish, &subject)),
                _ if headers.is_some() => 0,
                Some(true) => 1,
                None => FRESH,
            };
            let permit = publisher.budget.take(origin.name, payload.len())?;
            let number = state.first + state.waiting.len() as u64;
            let to = subject.clone();
            let sending = async {
                let Some(headers) = headers else {
                    return client.publish(to, payload).await;
                };
                let reply = format!("{inbox}.{number}");
                let sent = client.publish_with_reply_and_headers(to, reply, headers, payload);
                sent.await
            };
            let Some(Ok(())) = unconstrained(sending).now_or_never() else {
                // The client is gone, and the session is about to notice.
                return Err(down());
            };
            let answer = state.push(subject, echoes, Some(permit));
            if echoes > 0 {
                state.ask();
            }
            answer
        };
        let lost = |_| Err(Step::Publish.interrupted(origin.name, &origin.at));
        answer.await.unwrap_or_else(lost)
    }
}

impl Publisher {
    pub(crate) fn new(limits: BufferLimits) -> Self {
        Self {
            budget: Budget::new(limits),
            state: Mutex::default(),
        }
    }

    /// Publishes over this connection from now on; whatever waited on the previous one is gone with it.
    pub(crate) fn set(&self, link: Option<(Client, String)>) {
        let mut state = self.lock();
        *state = State {
            link,
            first: state.first + state.waiting.len() as u64,
            echoed: state.echoed,
            ..State::default()
        };
    }

    /// Resolves when the server has read all that this client has sent so far.
    pub(crate) fn flush(&self) -> Answer {
        let mut state = self.lock();
        let answer = state.push(String::new(), FRESH, None);
        state.ask();
        answer
    }

    /// Sends an echo unless one is on its way: something must come back, or the link is dead. Returns how many have.
    pub(crate) fn ask(&self) -> u64 {
        let mut state = self.lock();
        state.ask();
        state.echoed
    }

    /// An echo is back: the server has read everything up to `number`.
    pub(crate) fn echoed(&self, number: u64) {
        let mut state = self.lock();
        state.asking = false;
        state.echoed += 1;
        let read = usize::try_from((number + 1).saturating_sub(state.first)).unwrap_or(0);
        let read = read.min(state.waiting.len());
        for index in 0..read {
            let waiting = &mut state.waiting[index];
            // One that nobody waits for any more will not be missed by its acknowledgement either.
            let given_up = waiting.done.as_ref().is_none_or(oneshot::Sender::is_closed);
            match waiting.echoes {
                1 => state.resolve(index, Ok(())),
                0 if given_up => state.resolve(index, Ok(())),
                0 => {}
                _ => waiting.echoes -= 1,
            }
        }
        state.tidy();
        if state.waiting.iter().any(|waiting| waiting.echoes > 0) {
            state.ask();
        }
    }

    /// The acknowledgement of one publish is there.
    pub(crate) fn acknowledged(&self, number: u64, result: Result<()>) {
        let mut state = self.lock();
        let index = usize::try_from(number.wrapping_sub(state.first));
        state.resolve(index.unwrap_or(usize::MAX), result);
        state.tidy();
    }

    /// The server forbids us to publish to `subject`: neither what is on its way there arrives, nor what would follow.
    pub(crate) fn refuse(&self, subject: &str, error: impl Fn() -> Error) {
        let mut state = self.lock();
        state.know(subject.to_owned(), false);
        for index in 0..state.waiting.len() {
            if state.waiting[index].subject == subject {
                state.resolve(index, Err(error()));
            }
        }
        state.tidy();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, subject: String, echoes: u8, permit: Option<Permit>) -> Answer {
        let (done, answer) = oneshot::channel();
        self.waiting.push_back(Waiting {
            subject,
            echoes,
            done: Some(done),
            _permit: permit,
        });
        answer
    }

    fn resolve(&mut self, index: usize, result: Result<()>) {
        let Some(waiting) = self.waiting.get_mut(index) else {
            return;
        };
        if let Some(done) = waiting.done.take() {
            if result.is_ok() {
                let subject = std::mem::take(&mut waiting.subject);
                self.know(subject, true);
            }
            let _ = done.send(result);
        }
    }

    fn know(&mut self, subject: String, is_allowed: bool) {
        if self.allowed.len() < SUBJECTS || self.allowed.contains_key(&subject) {
            self.allowed.insert(subject, is_allowed);
        }
    }

    /// Forgets what is answered, from the front.
    fn tidy(&mut self) {
        while self.waiting.front().is_some_and(|it| it.done.is_none()) {
            self.waiting.pop_front();
            self.first += 1;
        }
    }

    /// Sends an echo for all that was sent so far.
    fn ask(&mut self) {
        let Some((client, inbox)) = &self.link else {
            return;
        };
        if self.asking {
            return;
        }
        let last = (self.first + self.waiting.len() as u64).saturating_sub(1);
        let echo = client.publish(format!("{inbox}.echo"), last.to_string().into());
        self.asking = matches!(unconstrained(echo).now_or_never(), Some(Ok(())));
    }
}
