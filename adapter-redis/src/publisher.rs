//! Publishing to one server: in the order of first poll, pipelined, bounded, by a deadline.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redis::{Cmd, RedisResult, Value, aio::MultiplexedConnection};
use socketioxide_adapter_core::{ErrorKind, Result};
use tokio::{task::unconstrained, time::timeout};

use crate::{
    config::{Address, RedisConfig},
    error::{self, Step},
};

/// The publishing connection to one server, and what waits for an answer on it.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) address: Address,
    pub(crate) connection: MultiplexedConnection,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// How many publishes the server has answered.
    answered: u64,
    /// Bytes of each of the others, in order. Also of those that nobody waits for any more: redis-rs still holds them. The
    /// server answers in order, so one answer is for all before it too.
    unanswered: VecDeque<usize>,
    /// Sum of these.
    bytes: usize,
}

impl Publisher {
    pub(crate) fn new(address: Address, connection: MultiplexedConnection) -> Self {
        Self {
            address,
            connection,
            waiting: Mutex::default(),
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
    ) -> Result<RedisResult<Value>> {
        if bytes > config.limits.max_payload {
            let message = format!(
                "{bytes} bytes, at most {} are allowed",
                config.limits.max_payload
            );
            return Err(Step::Publish.error(ErrorKind::TooLarge, message));
        }
        let sent = self.enter(config, bytes)?;
        let mut connection = self.connection.clone();
        let call = unconstrained(connection.send_packed_command(command));
        let Ok(answer) = timeout(config.limits.timeout, call).await else {
            return Err(error::late(
                Step::Publish,
                &self.address,
                config.limits.timeout,
            ));
        };
        self.answered(sent);
        Ok(answer.and_then(Value::extract_error))
    }

    /// How many publishes have been sent.
    pub(crate) fn sent(&self) -> u64 {
        let waiting = self.lock();
        waiting.answered + waiting.unanswered.len() as u64
    }

    /// Notes that the server has answered the first so many publishes, or something that it was sent later.
    pub(crate) fn answered(&self, publishes: u64) {
        let mut waiting = self.lock();
        while waiting.answered < publishes
            && let Some(bytes) = waiting.unanswered.pop_front()
        {
            waiting.answered += 1;
            waiting.bytes -= bytes;
        }
    }

    /// Takes a place among the unanswered publishes; returns how many have been sent with this one.
    fn enter(&self, config: &RedisConfig, bytes: usize) -> Result<u64> {
        let mut waiting = self.lock();
        let (limits, count) = (config.limits.publish_buffer, waiting.unanswered.len());
        let fits = count < limits.messages && waiting.bytes + bytes <= limits.bytes;
        if count > 0 && !fits {
            let message = format!(
                "{count} publishes ({} bytes) already wait for {}",
                waiting.bytes, self.address
            );
            return Err(Step::Publish.error(ErrorKind::Full, message));
        }
        waiting.unanswered.push_back(bytes);
        waiting.bytes += bytes;
        Ok(waiting.answered + waiting.unanswered.len() as u64)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
