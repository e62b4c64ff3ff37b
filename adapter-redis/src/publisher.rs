//! Publishing: in the order of first poll, pipelined, bounded, by a deadline.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redis::{Cmd, Value, aio::MultiplexedConnection};
use socketioxide_adapter_core::{ErrorKind, Result, transport::Receipt};
use tokio::{task::unconstrained, time::timeout};

use crate::{
    config::RedisConfig,
    error::{self, Step},
};

/// The publishing connection of the present session, and what waits for an answer on it.
#[derive(Debug, Default)]
pub(crate) struct Publisher(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connection: Connection,
    /// Bytes of the publishes that the server has not answered yet, in the order of their numbers. Also of those that
    /// nobody waits for any more: redis-rs still holds them. The server answers in order, so one answer is for all before
    /// it too.
    unanswered: VecDeque<usize>,
    /// Number of the first of them.
    first: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
enum Connection {
    #[default]
    Down,
    Up(MultiplexedConnection),
    Closed,
}

impl Publisher {
    /// Publishes through this connection from now on.
    pub(crate) fn open(&self, connection: MultiplexedConnection) {
        self.set(Connection::Up(connection));
    }

    /// The connection is gone.
    pub(crate) fn end(&self) {
        self.set(Connection::Down);
    }

    /// No publishes any more.
    pub(crate) fn close(&self) {
        self.set(Connection::Closed);
    }

    /// Publishes and waits for the server's answer.
    pub(crate) async fn publish(
        &self,
        config: &RedisConfig,
        channel: &[u8],
        payload: &[u8],
    ) -> Result<Receipt> {
        let mut command = Cmd::with_capacity(3, channel.len() + payload.len() + 16);
        command.arg("PUBLISH").arg(channel).arg(payload);
        match self.send(config, &command, payload.len()).await? {
            Value::Int(receivers) => Ok(Receipt::with_receivers(receivers.try_into().unwrap_or(0))),
            _ => Err(Step::Publish.error(ErrorKind::Protocol, UNREADABLE)),
        }
    }

    /// Sends a command that carries a payload of `bytes` and waits for the server's answer.
    ///
    /// The first poll hands the command to redis-rs, whose queue has more room than `publish_buffer` allows to wait. A
    /// publish can therefore neither wait there and be overtaken, nor (unconstrained) be put off by tokio's budget.
    pub(crate) async fn send(
        &self,
        config: &RedisConfig,
        command: &Cmd,
        bytes: usize,
    ) -> Result<Value> {
        let address = &config.address;
        if bytes > config.max_payload {
            let message = format!("{bytes} bytes, at most {} are allowed", config.max_payload);
            return Err(Step::Publish.error(ErrorKind::TooLarge, message));
        }
        let (mut connection, number) = self.enter(config, bytes)?;
        let call = unconstrained(connection.send_packed_command(command));
        let Ok(answer) = timeout(config.timeout, call).await else {
            return Err(error::late(Step::Publish, address, config.timeout));
        };
        self.answered(number);
        answer
            .and_then(Value::extract_error)
            .map_err(|error| error::from_redis(Step::Publish, address, &error))
    }

    /// Number of the last publish so far.
    pub(crate) fn last(&self) -> u64 {
        let state = self.lock();
        (state.first + state.unanswered.len() as u64).saturating_sub(1)
    }

    /// Notes that the server has answered publish `number`, or something that it was sent later.
    pub(crate) fn answered(&self, number: u64) {
        let mut state = self.lock();
        while state.first <= number
            && let Some(bytes) = state.unanswered.pop_front()
        {
            state.first += 1;
            state.bytes -= bytes;
        }
    }

    /// Takes a number and a place among the unanswered publishes.
    fn enter(&self, config: &RedisConfig, bytes: usize) -> Result<(MultiplexedConnection, u64)> {
        let mut state = self.lock();
        let connection = match &state.connection {
            Connection::Up(connection) => connection.clone(),
            Connection::Down => return Err(error::down(Step::Publish, &config.address)),
            Connection::Closed => return Err(error::closed(Step::Publish)),
        };
        let (limits, waiting) = (config.publish_buffer, state.unanswered.len());
        let fits = waiting < limits.messages && state.bytes + bytes <= limits.bytes;
        if waiting > 0 && !fits {
            let message = format!(
                "{waiting} publishes ({} bytes) already wait for {}",
                state.bytes, config.address
            );
            return Err(Step::Publish.error(ErrorKind::Full, message));
        }
        state.unanswered.push_back(bytes);
        state.bytes += bytes;
        Ok((connection, state.first + waiting as u64))
    }

    /// Whatever waited on the previous connection is gone with it.
    fn set(&self, connection: Connection) {
        let mut state = self.lock();
        if !matches!(state.connection, Connection::Closed) {
            state.connection = connection;
        }
        state.first += state.unanswered.len() as u64;
        state.unanswered.clear();
        state.bytes = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const UNREADABLE: &str = "the answer is no number of receivers";
