//! Publishing: in the order of first poll, pipelined, bounded, confirmed by a deadline.

use std::{
    future::ready,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lapin::{Channel, Confirmation, options::BasicPublishOptions, types::ShortString};
use socketioxide_adapter_core::{Error, ErrorKind, Result, transport::Receipt};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use crate::{config::AmqpConfig, error::Step, keys};

const STEP: Step = Step::Publish;
/// Fences that may be on their way besides the payloads. The session takes each up before it sends the next.
const FENCES: usize = 16;

/// The publishing channel of the present session, and how much waits to be confirmed on it.
#[derive(Debug)]
pub(crate) struct Publisher {
    state: Mutex<State>,
    exchange: ShortString,
    /// Beginning of all message ids, so that they are unique.
    origin: u64,
    messages: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    line: Option<Line>,
    waiting: usize,
    bytes: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Down,
    Up,
    Closed,
}

#[derive(Debug, Clone)]
struct Line {
    channel: Channel,
    calls: mpsc::Sender<Call>,
}

/// A publish that was handed to lapin, until the broker has confirmed it. The session drives it to its end even if nobody
/// waits for it any more: lapin keeps what it holds of it until then.
pub(crate) struct Call {
    confirmed: Confirmed,
    ticket: Ticket,
}

/// Whom to tell what became of a call.
#[derive(Debug)]
pub(crate) struct Ticket {
    bytes: usize,
    outcome: oneshot::Sender<Result<Receipt>>,
}

type Confirmed = BoxFuture<'static, lapin::Result<Confirmation>>;

impl Call {
    /// Waits for the broker's confirmation.
    pub(crate) async fn confirmed(self) -> (Ticket, lapin::Result<Confirmation>) {
        (self.ticket, self.confirmed.await)
    }
}

impl Publisher {
    pub(crate) fn new(exchange: ShortString) -> Self {
        Self {
            state: Mutex::default(),
            exchange,
            origin: fastrand::u64(..),
            messages: AtomicU64::new(0),
        }
    }

    /// Publishes and waits for the broker's confirmation. `mandatory`: some queue must take it.
    pub(crate) async fn publish(
        &self,
        config: &AmqpConfig,
        token: &str,
        mandatory: bool,
        payload: Bytes,
    ) -> Result<Receipt> {
        let (bytes, most) = (payload.len(), config.limits.max_payload);
        if bytes > most {
            let message = format!("{bytes} bytes, at most {most} are allowed");
            return Err(STEP.error(ErrorKind::TooLarge, message));
        }
        let outcome = {
            let mut state = self.lock();
            let line = match (state.phase, state.line.clone()) {
                (Phase::Closed, _) => return Err(STEP.closed()),
                (Phase::Up, Some(line)) => line,
                _ => return Err(STEP.down()),
            };
            let (limits, waiting) = (config.limits.publish_buffer, state.waiting);
            let fits = waiting < limits.messages && state.bytes + bytes <= limits.bytes;
            if waiting > 0 && !fits {
                return Err(full(&state));
            }
            let key = keys::routing_key(token);
            self.start(&mut state, &line, key, token, mandatory, payload)?
        };
        match timeout(config.limits.timeout, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(STEP.interrupted()),
            Err(_) => Err(STEP.late(config.limits.timeout)),
        }
    }

    /// Publishes a fence, whatever the phase; nobody waits for its confirmation. Without a session, or room, there is none,
    /// and who waits for it to come back waits until his deadline.
    pub(crate) fn fence(&self, key: &str, number: u64) {
        let mut state = self.lock();
        if let Some(line) = state.line.clone() {
            let payload = Bytes::from(number.to_string());
            let _ = self.start(&mut state, &line, key.into(), key, false, payload);
        }
    }

    /// Hands a message to lapin, if there is room for its outcome. The state is locked, so that lapin numbers messages in the order in which it sends them.
    fn start(
        &self,
        state: &mut State,
        Line { channel, calls }: &Line,
        key: ShortString,
        token: &str,
        mandatory: bool,
        payload: Bytes,
    ) -> Result<oneshot::Receiver<Result<Receipt>>> {
        let room = calls.try_reserve().map_err(|error| match error {
            TrySendError::Full(()) => full(state),
            TrySendError::Closed(()) => STEP.down(),
        })?;
        let bytes = payload.len();
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        let properties = keys::properties(token, format!("{:016x}-{number:x}", self.origin));
        let (channel, exchange) = (channel.clone(), self.exchange.clone());
        let mut confirmed: Confirmed = Box::pin(async move {
            let options = BasicPublishOptions {
                mandatory,
                immediate: false,
            };
            let sent = channel.basic_publish(exchange, key, options, &payload, properties);
            sent.await?.await
        });
        // The first poll queues the frames. It can be the last one: lapin writes on a thread of its own.
        let polled = confirmed
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(confirmation) = polled {
            confirmed = Box::pin(ready(confirmation));
        }
        let (outcome, receiver) = oneshot::channel();
        state.waiting += 1;
        state.bytes += bytes;
        let ticket = Ticket { bytes, outcome };
        room.send(Call { confirmed, ticket });
        Ok(receiver)
    }

    /// Notes that a call has come to its end, and tells who waits for it.
    pub(crate) fn ended(&self, ticket: Ticket, outcome: Result<Receipt>) {
        let mut state = self.lock();
        state.waiting = state.waiting.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(ticket.bytes);
        drop(state);
        let _ = ticket.outcome.send(outcome);
    }

    /// Takes the channel of a new session. Only fences are published until [`open`](Self::open).
    pub(crate) fn attach(&self, config: &AmqpConfig, channel: Channel) -> mpsc::Receiver<Call> {
        let room = config.limits.publish_buffer.messages.saturating_add(FENCES);
        let (calls, receiver) = mpsc::channel(room);
        self.lock().line = Some(Line { channel, calls });
        receiver
    }

    /// Lets payloads be published, or not.
    pub(crate) fn open(&self, open: bool) {
        let mut state = self.lock();
        if state.phase != Phase::Closed {
            state.phase = if open { Phase::Up } else { Phase::Down };
        }
    }

    /// The channel is gone, and with it what waited on it.
    pub(crate) fn end(&self) {
        self.open(false);
        let mut state = self.lock();
        state.line = None;
        (state.waiting, state.bytes) = (0, 0);
    }

    /// No publishes any more.
    pub(crate) fn close(&self) {
        self.end();
        self.lock().phase = Phase::Closed;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn full(State { waiting, bytes, .. }: &State) -> Error {
    let message = format!("{waiting} publishes ({bytes} bytes) already wait to be confirmed");
    STEP.error(ErrorKind::Full, message)
}
