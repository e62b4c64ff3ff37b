//! One connection to a Redis server: handshake, publishing, and how to know that it is alive.

use std::{
    collections::HashMap,
    convert::Infallible,
    mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use redis::{
    AsyncConnectionConfig, Cmd, ProtocolVersion, RedisConnectionInfo as Login, RedisError,
    RedisResult, ServerErrorKind, Value,
    aio::{AsyncPushSender, MultiplexedConnection},
    from_redis_value,
};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    socket::{self, Address, Received, Tls},
    transport::{
        Limits, Permit, Step,
        pulse::{self, SILENT_TICKS, ticks},
    },
};
use tokio::{task::unconstrained, time::timeout};

use crate::{error, transport::lock};

/// Commands waiting in redis-rs. More than publishes may wait, so that handing one over never waits: redis-rs gives
/// room in its queue to whoever asks next, also past those who are waiting for it.
const COMMANDS: usize = 2 * Limits::PUBLISHES;
/// Written to the socket in one go.
const WRITE_CHUNK: usize = 64 << 10;
/// How long a server may take to tell what it knows about others, or about itself.
const ANSWER: Duration = Duration::from_secs(1);

/// How to connect and log in: what does not change from one attempt, or one server, to the next.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) tls: Option<Tls>,
    pub(crate) login: Login,
    /// Who is asked next: one that answers, but wrongly, is not asked for ever.
    pub(crate) turn: Arc<AtomicUsize>,
}

/// How to log in.
pub(crate) fn login(username: Option<&str>, password: Option<&str>, database: u32) -> Login {
    // Without CLIENT SETINFO: a server that refuses the connection answers the first command and closes, and redis-rs
    // would report the close instead of the answer.
    let mut login = Login::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name()
        .set_db(database.into());
    if let Some(username) = username {
        login = login.set_username(username);
    }
    if let Some(password) = password {
        login = login.set_password(password);
    }
    login
}

impl Client {
    /// Connects and logs in. Has no deadline of its own: the reconnect loop has. The second value reads and writes; it must
    /// be polled, and ends when the connection does.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        push: Option<Arc<dyn AsyncPushSender>>,
    ) -> Result<(Connection, BoxFuture<'static, ()>)> {
        let stream = socket::connect(address, self.tls.as_ref()).await;
        let stream = stream.map_err(|error| error::from_io(address, &error))?;
        let received = stream.received();
        // The deadlines are ours: redis-rs would let calls fail after 500 ms.
        let mut config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_pipeline_buffer_size(COMMANDS)
            .set_write_backpressure_boundary(WRITE_CHUNK);
        if let Some(push) = push {
            config = config.set_push_sender(push);
        }
        let login = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (commands, driver) =
            login.map_err(|error| error::from_redis(Step::Connect, address, &error))?;
        let connection = Connection {
            address: address.clone(),
            commands,
            received,
            given_up: Mutex::default(),
        };
        Ok((connection, Box::pin(driver)))
    }

    /// Asks these servers in turn, each on a connection of its own and for up to a second. Returns the first answer to be
    /// had, and whose it is.
    ///
    /// # Errors
    /// What the last one said.
    pub async fn ask(&self, servers: &[Address], command: &Cmd) -> Result<(Address, Value)> {
        const STEP: Step = Step::Connect;
        // Asking one alone, as who follows sentinels does in between, does not change whose turn it is among them.
        let turn = usize::from(servers.len() > 1);
        let turn = self.turn.fetch_add(turn, Ordering::Relaxed) % servers.len().max(1);
        let (later, first) = servers.split_at(turn);
        let mut last = error::connect(ErrorKind::Unavailable, "redis", "no address");
        for address in first.iter().chain(later) {
            let asking = async {
                let (mut connection, driver) = self.connect(address, None).await?;
                tokio::select! {
                    answer = command.query_async(&mut connection.commands) => {
                        answer.map_err(|error| connection.error(STEP, &error))
                    }
                    () = driver => Err(STEP.interrupted("redis", address)),
                }
            };
            let late = |_| Err(STEP.late("redis", address, ANSWER));
            match timeout(ANSWER, asking).await.unwrap_or_else(late) {
                Ok(answer) => return Ok((address.clone(), answer)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) address: Address,
    /// Sends commands; fails once what reads and writes is gone.
    pub(crate) commands: MultiplexedConnection,
    received: Received,
    /// Of publishes that nobody waits for any more, although the server may not have answered: redis-rs still holds them.
    given_up: Mutex<Vec<Permit>>,
}

/// Keeps the place of a publish also if its future is dropped.
struct Unanswered<'a>(&'a Connection, Option<Permit>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.1.take() {
            lock(&self.0.given_up).push(permit);
        }
    }
}

impl Connection {
    /// Sends a command and waits for the answer.
    ///
    /// The first poll hands the command to redis-rs, whose queue has more room than `publish_buffer` allows to wait. A
    /// publish can therefore neither wait there and be overtaken, nor (unconstrained) be put off by tokio's budget.
    pub(crate) async fn publish(&self, permit: Permit, command: &Cmd) -> RedisResult<Value> {
        let mut unanswered = Unanswered(self, Some(permit));
        let mut commands = self.commands.clone();
        let answer = unconstrained(commands.send_packed_command(command)).await;
        unanswered.1 = None;
        answer.and_then(Value::extract_error)
    }

    /// Asks whether the server is a primary; its answer is a sign of life as well, also if it is an error.
    pub(crate) async fn require_primary(&self, step: Step, sharded: bool) -> Result<()> {
        // HELLO tells the role, needs no more rights than the login did, and without arguments changes nothing.
        let hello = redis::cmd("HELLO");
        let answer = hello.query_async(&mut self.commands.clone()).await;
        if answer.is_ok_and(|hello| is_replica(hello, sharded)) {
            let replica = (ServerErrorKind::ReadOnly.into(), "replica").into();
            return Err(self.error(step, &replica));
        }
        Ok(())
    }

    /// Asks for a sign of life at each tick, and whether the server is still a primary: one that is demoted goes on to
    /// serve. Returns once it is none or silent. The answer is also the last word on all publishes before the question.
    pub(crate) async fn watch(&self, sharded: bool) -> Error {
        let asking = async {
            let mut ticks = ticks();
            loop {
                ticks.tick().await;
                let answered = mem::take(&mut *lock(&self.given_up));
                // No deadline: `silence` has one, and everything that is received before the answer counts there.
                self.require_primary(Step::Link, sharded).await?;
                drop(answered);
            }
        };
        tokio::select! {
            Err::<Infallible, _>(error) = asking => error,
            error = self.silence() => error,
        }
    }

    /// Returns when nothing was received for too long.
    pub(crate) async fn silence(&self) -> Error {
        pulse::silence(SILENT_TICKS, || Some(self.received.bytes())).await;
        let message = format!("{}: no sign of life", self.address);
        Step::Link.error("redis", ErrorKind::Interrupted, message)
    }

    pub(crate) fn error(&self, step: Step, error: &RedisError) -> Error {
        error::from_redis(step, &self.address, error)
    }
}

/// Whether the answer comes from a replica. It takes publishes, but only its own subscribers get them. In a Redis Cluster
/// (unless they are `sharded`) all nodes pass them on.
pub(crate) fn is_replica(hello: Value, sharded: bool) -> bool {
    let hello: HashMap<String, Value> = from_redis_value(hello).unwrap_or_default();
    let says =
        |field, text: &[u8]| matches!(hello.get(field), Some(Value::BulkString(it)) if it == text);
    says("role", b"replica") && (sharded || !says("mode", b"cluster"))
}
