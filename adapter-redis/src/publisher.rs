//! Publishing: in the order of first poll, pipelined, bounded, by a deadline.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
    messages: usize,
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
    ///
    /// The first poll hands the command to redis-rs, whose queue has more room than `publish_buffer` allows to wait. A
    /// publish can therefore neither wait there and be overtaken, nor (unconstrained) be put off by tokio's budget.
    pub(crate) async fn publish(
        &self,
        config: &RedisConfig,
        channel: &[u8],
        payload: &[u8],
    ) -> Result<Receipt> {
        let address = &config.address;
        if payload.len() > config.max_payload {
            let message = format!(
                "{} bytes, at most {} are allowed",
                payload.len(),
                config.max_payload
            );
            return Err(Step::Publish.error(ErrorKind::TooLarge, message));
        }
        let (mut connection, _place) = self.enter(config, payload.len())?;
        let mut command = Cmd::with_capacity(3, channel.len() + payload.len() + 16);
        command.arg("PUBLISH").arg(channel).arg(payload);
        let call = unconstrained(connection.send_packed_command(&command));
        match timeout(config.timeout, call).await {
            Ok(Ok(Value::Int(receivers))) => {
                Ok(Receipt::with_receivers(receivers.try_into().unwrap_or(0)))
            }
            Ok(answer) => {
                let refused = answer.and_then(Value::extract_error);
                Err(match refused {
                    Err(error) => error::from_redis(Step::Publish, address, &error),
                    Ok(_) => Step::Publish.error(ErrorKind::Protocol, UNREADABLE),
                })
            }
            Err(_) => Err(error::late(Step::Publish, address, config.timeout)),
        }
    }

    /// Takes a place among the waiting publishes.
    fn enter(
        &self,
        config: &RedisConfig,
        bytes: usize,
    ) -> Result<(MultiplexedConnection, Place<'_>)> {
        let mut state = self.lock();
        let connection = match &state.connection {
            Connection::Up(connection) => connection.clone(),
            Connection::Down => return Err(error::down(Step::Publish, &config.address)),
            Connection::Closed => return Err(error::closed(Step::Publish)),
        };
        let limits = config.publish_buffer;
        let full = state.messages >= limits.messages || state.bytes + bytes > limits.bytes;
        if full && state.messages > 0 {
            let message = format!(
                "{} publishes ({} bytes) already wait for {}",
                state.messages, state.bytes, config.address
            );
            return Err(Step::Publish.error(ErrorKind::Full, message));
        }
        state.messages += 1;
        state.bytes += bytes;
        let place = Place {
            publisher: self,
            bytes,
        };
        Ok((connection, place))
    }

    fn set(&self, connection: Connection) {
        self.lock().connection = connection;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const UNREADABLE: &str = "the answer is no number of receivers";

/// A place among the waiting publishes, free again when dropped.
struct Place<'a> {
    publisher: &'a Publisher,
    bytes: usize,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.publisher.lock();
        state.messages -= 1;
        state.bytes -= self.bytes;
    }
}
