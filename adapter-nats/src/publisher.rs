//! Publishing: in the order of first poll, pipelined, bounded, and known to have arrived.
//!
//! The client takes a message and says nothing more about it. So an **echo** follows: a message to ourselves on the same
//! connection. The server reads in order, and when the echo is back it has read all that went before.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures_util::FutureExt as _;
use socketioxide_adapter_core::{Error, ErrorKind, Result};
use tokio::{sync::oneshot, task::unconstrained, time::timeout};

use crate::{
    config::NatsConfig,
    error::{self, Step},
};

/// How many echoes it takes to believe that the server does not refuse a subject.
const FRESH: u8 = 4;
/// Most subjects of which it is remembered whether we may publish to them; of others each publish finds out anew.
const SUBJECTS: usize = 10_000;

/// The connection of the present session, and what waits for an answer on it.
#[derive(Debug, Default)]
pub(crate) struct Publisher(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    link: Link,
    /// What is not answered yet, in the order of their numbers; what was answered out of order has no `done` any more.
    waiting: VecDeque<Waiting>,
    /// Number of the first of them.
    first: u64,
    bytes: usize,
    /// An echo is on its way.
    asking: bool,
    /// How many have come back, in all sessions.
    echoed: u64,
    /// Subjects that the server allows us, and those that it forbids.
    allowed: HashSet<String>,
    denied: HashSet<String>,
}

#[derive(Debug, Default)]
enum Link {
    #[default]
    Down,
    Up {
        client: Client,
        inbox: String,
    },
    Closed,
}

#[derive(Debug)]
struct Waiting {
    subject: String,
    bytes: usize,
    /// How many echoes are the answer; 0 if only an acknowledgement of its own is.
    ///
    /// A refusal comes before the echo, but by way of another task of the client. So where one is possible, more echoes
    /// give it the time of some round trips.
    echoes: u8,
    done: Option<oneshot::Sender<Result<()>>>,
}

/// What to publish.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
    /// With headers it is for the log, which acknowledges each.
    pub(crate) headers: Option<HeaderMap>,
}

impl Publisher {
    /// Publishes over this connection from now on. `inbox` is the beginning of the subjects on which answers arrive.
    pub(crate) fn open(&self, client: Client, inbox: String) {
        self.set(Link::Up { client, inbox });
    }

    /// The connection is gone.
    pub(crate) fn end(&self) {
        self.set(Link::Down);
    }

    /// No publishes any more.
    pub(crate) fn close(&self) {
        self.set(Link::Closed);
    }

    /// Publishes and waits for the answer. The first poll hands the message to the client.
    pub(crate) async fn publish(&self, config: &NatsConfig, message: Outgoing) -> Result<()> {
        let answer = self.submit(config, message)?;
        self.answer(config, answer, Step::Publish).await
    }

    /// Waits until the server has read all that this client has sent so far.
    pub(crate) async fn flush(&self, config: &NatsConfig) -> Result<()> {
        let answer = {
            let mut state = self.lock();
            let answer = state.push(String::new(), 0, FRESH);
            state.ask();
            answer
        };
        self.answer(config, answer, Step::Link).await
    }

    /// Sends an echo unless one is on its way: something must come back, or the link is dead.
    pub(crate) fn ask(&self) {
        self.lock().ask();
    }

    /// How many echoes have come back.
    pub(crate) fn echoes(&self) -> u64 {
        self.lock().echoed
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
        let index = number.checked_sub(state.first);
        if let Some(index) = index.and_then(|index| usize::try_from(index).ok()) {
            state.resolve(index, result);
            state.tidy();
        }
    }

    /// The server forbids us to publish to `subject`: neither what is on its way there arrives, nor what would follow.
    pub(crate) fn refuse(&self, subject: &str, error: impl Fn() -> Error) {
        let mut state = self.lock();
        if state.denied.len() < SUBJECTS {
            state.denied.insert(subject.to_owned());
        }
        for index in 0..state.waiting.len() {
            if state.waiting[index].subject == subject {
                state.resolve(index, Err(error()));
            }
        }
        state.tidy();
    }

    async fn answer(
        &self,
        config: &NatsConfig,
        answer: oneshot::Receiver<Result<()>>,
        step: Step,
    ) -> Result<()> {
        match timeout(config.limits.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(error::interrupted(step)),
            Err(_) => Err(error::late(step, config.limits.timeout)),
        }
    }

    /// Takes a place among what waits and hands the message to the client, in one step, so that numbers and messages have
    /// the same order. The client's queue has more room than `publish_buffer` allows to wait.
    fn submit(
        &self,
        config: &NatsConfig,
        message: Outgoing,
    ) -> Result<oneshot::Receiver<Result<()>>> {
        let Outgoing {
            subject,
            payload,
            headers,
        } = message;
        let mut state = self.lock();
        let (client, inbox) = match &state.link {
            Link::Up { client, inbox } => (client.clone(), inbox),
            Link::Down => return Err(error::down(Step::Publish)),
            Link::Closed => return Err(error::closed(Step::Publish)),
        };
        if state.denied.contains(&subject) {
            return Err(error::denied(Step::Publish, &subject));
        }
        let (limits, waiting, bytes) = (
            config.limits.publish_buffer,
            state.waiting.len(),
            payload.len(),
        );
        let fits = waiting < limits.messages && state.bytes + bytes <= limits.bytes;
        if waiting > 0 && !fits {
            let message = format!(
                "{waiting} publishes ({} bytes) already wait for the server",
                state.bytes
            );
            return Err(Step::Publish.error(ErrorKind::Full, message));
        }
        let echoes = match headers {
            Some(_) => 0,
            None if state.allowed.contains(&subject) => 1,
            None => FRESH,
        };
        let sent = match headers {
            None => unconstrained(client.publish(subject.clone(), payload)).now_or_never(),
            Some(headers) => {
                let reply = format!("{inbox}.{}", state.first + waiting as u64);
                let subject = subject.clone();
                let call = client.publish_with_reply_and_headers(subject, reply, headers, payload);
                unconstrained(call).now_or_never()
            }
        };
        match sent {
            Some(Ok(())) => {}
            // The client is gone, and the session is about to notice.
            Some(Err(_)) | None => return Err(error::down(Step::Publish)),
        }
        let answer = state.push(subject, bytes, echoes);
        if echoes > 0 {
            state.ask();
        }
        Ok(answer)
    }

    /// Whatever waited on the previous connection is gone with it.
    fn set(&self, link: Link) {
        let mut state = self.lock();
        if !matches!(state.link, Link::Closed) {
            state.link = link;
        }
        state.first += state.waiting.len() as u64;
        state.waiting.clear();
        state.allowed.clear();
        state.denied.clear();
        state.bytes = 0;
        state.asking = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, subject: String, bytes: usize, echoes: u8) -> oneshot::Receiver<Result<()>> {
        let (done, answer) = oneshot::channel();
        self.bytes += bytes;
        self.waiting.push_back(Waiting {
            subject,
            bytes,
            echoes,
            done: Some(done),
        });
        answer
    }

    fn resolve(&mut self, index: usize, result: Result<()>) {
        let Some(waiting) = self.waiting.get_mut(index) else {
            return;
        };
        self.bytes -= std::mem::take(&mut waiting.bytes);
        if let Some(done) = waiting.done.take() {
            if result.is_ok() && self.allowed.len() < SUBJECTS {
                self.allowed.insert(std::mem::take(&mut waiting.subject));
            }
            let _ = done.send(result);
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
        let Link::Up { client, inbox } = &self.link else {
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
