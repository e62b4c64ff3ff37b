//! One connection to a Redis server: handshake, and who is asked before there is a session.

use std::{
    collections::HashMap,
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use redis::{
    AsyncConnectionConfig, Cmd, ProtocolVersion, RedisConnectionInfo, ServerErrorKind, Value,
    aio::{AsyncPushSender, MultiplexedConnection},
};
use socketioxide_adapter_core::{
    ErrorKind, Result,
    socket::{self, Address, Received, Tls},
    transport::{Limits, Step},
};
use tokio::time::timeout;

use crate::error;

/// Commands waiting in redis-rs. More than publishes may wait, so that handing one over never waits: redis-rs gives
/// room in its queue to whoever asks next, also past those who are waiting for it.
const COMMANDS: usize = 2 * Limits::PUBLISHES;
/// Written to the socket in one go.
const WRITE_CHUNK: usize = 64 << 10;
/// How long a server may take to tell what it knows about others, or about itself.
const ANSWER: Duration = Duration::from_secs(1);

/// How to connect and log in: what does not change from one attempt, or one server, to the next.
#[derive(Debug)]
pub struct Client {
    tls: Option<Tls>,
    login: RedisConnectionInfo,
    /// Who is asked next: one that answers, but wrongly, is not asked for ever.
    turn: Arc<AtomicUsize>,
}

/// An open connection.
pub(crate) struct Connection {
    /// Sends commands; fails once the driver is gone.
    pub(crate) commands: MultiplexedConnection,
    /// Reads and writes; must be polled, and ends when the connection does.
    pub(crate) driver: BoxFuture<'static, ()>,
    pub(crate) received: Received,
}

impl Client {
    pub(crate) fn new(tls: Option<Tls>) -> Self {
        Self {
            tls,
            login: RedisConnectionInfo::default(),
            turn: Arc::default(),
        }
    }

    /// For servers where we log in otherwise.
    pub(crate) fn with_login(
        &self,
        username: Option<&str>,
        password: Option<&str>,
        database: u32,
    ) -> Self {
        // Without CLIENT SETINFO: a server that refuses the connection answers the first command and closes, and
        // redis-rs would report the close instead of the answer.
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(database.into());
        if let Some(username) = username {
            login = login.set_username(username);
        }
        if let Some(password) = password {
            login = login.set_password(password);
        }
        Self {
            tls: self.tls.clone(),
            login,
            turn: self.turn.clone(),
        }
    }

    /// Connects and logs in. Has no deadline of its own: the reconnect loop has.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        push: Option<Arc<dyn AsyncPushSender>>,
    ) -> Result<Connection> {
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
        let (commands, driver) =
            MultiplexedConnection::new_with_config(&self.login, stream, config)
                .await
                .map_err(|error| error::from_redis(Step::Connect, address, &error))?;
        Ok(Connection {
            commands,
            driver: Box::pin(driver),
            received,
        })
    }

    /// Asks these servers in turn, each on a connection of its own and for up to a second. Returns the first answer to be
    /// had, and whose it is.
    ///
    /// # Errors
    /// What the last one said.
    pub async fn ask(&self, servers: &[Address], command: &Cmd) -> Result<(Address, Value)> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len().max(1);
        let (later, first) = servers.split_at(turn);
        let mut last = error::connect(ErrorKind::Unavailable, "redis", "no address");
        for address in first.iter().chain(later) {
            let answer = self.once(address, async |mut commands| {
                let answer = command.query_async(&mut commands).await;
                answer.map_err(|error| error::from_redis(Step::Connect, address, &error))
            });
            match answer.await {
                Ok(answer) => return Ok((address.clone(), answer)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Whether this server says that it is a primary.
    pub(crate) async fn is_primary(&self, address: &Address) -> bool {
        let ask = async |commands| require_primary(Step::Link, address, commands, false).await;
        self.once(address, ask).await.is_ok()
    }

    async fn once<T>(
        &self,
        address: &Address,
        ask: impl AsyncFnOnce(MultiplexedConnection) -> Result<T>,
    ) -> Result<T> {
        const STEP: Step = Step::Connect;
        let asking = async {
            let connection = self.connect(address, None).await?;
            tokio::select! {
                answer = ask(connection.commands) => answer,
                () = connection.driver => Err(STEP.interrupted("redis", address)),
            }
        };
        let late = |_| Err(STEP.late("redis", address, ANSWER));
        timeout(ANSWER, asking).await.unwrap_or_else(late)
    }
}

/// Asks the server whether it is a primary; its answer is a sign of life as well, also if it is an error.
///
/// A replica takes publishes, but only its own subscribers get them. In a Redis Cluster (unless they are `sharded`) all
/// nodes pass them on.
pub(crate) async fn require_primary(
    step: Step,
    at: impl Display,
    mut commands: MultiplexedConnection,
    sharded: bool,
) -> Result<()> {
    // HELLO tells the role, needs no more rights than the login did, and without arguments changes nothing.
    let hello = redis::cmd("HELLO").query_async(&mut commands).await;
    let hello: HashMap<String, Value> = hello.unwrap_or_default();
    let says =
        |field, text: &[u8]| matches!(hello.get(field), Some(Value::BulkString(it)) if it == text);
    if says("role", b"replica") && (sharded || !says("mode", b"cluster")) {
        let replica = (ServerErrorKind::ReadOnly.into(), "replica").into();
        return Err(error::from_redis(step, at, &replica));
    }
    Ok(())
}
