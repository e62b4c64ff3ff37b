//! One connection to a Redis server: socket, TLS, handshake, and how to know that it is alive.

use std::{
    collections::HashMap,
    fmt::Display,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::BoxFuture;
use redis::{
    AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, ServerErrorKind, Value,
    aio::{AsyncPushSender, MultiplexedConnection},
};
use socketioxide_adapter_core::{
    Result,
    socket::{self, Stream, Tls},
    transport::Limits,
};
use tokio::net::UnixStream;
use tokio_util::io::InspectReader;

use crate::{
    config::Address,
    error::{self, Step},
};

/// Commands waiting in redis-rs. More than publishes may wait, so that handing one over never waits: redis-rs gives
/// room in its queue to whoever asks next, also past those who are waiting for it.
const COMMANDS: usize = 2 * Limits::PUBLISHES;
/// Written to the socket in one go.
const WRITE_CHUNK: usize = 64 << 10;

/// How to connect and log in: what does not change from one attempt, or one server, to the next.
#[derive(Debug)]
pub(crate) struct Client {
    tls: Option<Tls>,
    login: RedisConnectionInfo,
}

/// An open connection.
pub(crate) struct Connection {
    /// Sends commands; fails once the driver is gone.
    pub(crate) commands: MultiplexedConnection,
    /// Reads and writes; must be polled, and ends when the connection does.
    pub(crate) driver: BoxFuture<'static, ()>,
    /// Bytes received so far.
    pub(crate) received: Arc<AtomicUsize>,
}

impl Client {
    pub(crate) fn new(
        tls: Option<Tls>,
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
        Self { tls, login }
    }

    /// Connects and logs in. Has no deadline of its own: the reconnect loop has.
    pub(crate) async fn connect(
        &self,
        address: &Address,
        push: Option<Arc<dyn AsyncPushSender>>,
    ) -> Result<Connection> {
        let stream = self.stream(address).await;
        let stream = stream.map_err(|error| error::from_io(address, &error))?;
        let received = Arc::new(AtomicUsize::new(0));
        let counter = received.clone();
        let stream = InspectReader::new(stream, move |bytes: &[u8]| {
            counter.fetch_add(bytes.len(), Ordering::Relaxed);
        });
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

    async fn stream(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        match address {
            Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => socket::connect(host, *port, None).await,
            Address::Tls { host, port, .. } => {
                socket::connect(host, *port, self.tls.as_ref()).await
            }
        }
    }
}

/// Asks the server whether it is a primary; its answer is a sign of life as well, also if it is an error.
///
/// A replica takes publishes, but only its own subscribers get them. In a Redis Cluster (unless they are `sharded`) all
/// nodes pass them on.
pub(crate) async fn require_primary(
    step: Step,
    at: impl Display,
    commands: &mut MultiplexedConnection,
    sharded: bool,
) -> Result<()> {
    // HELLO tells the role, needs no more rights than the login did, and without arguments changes nothing.
    let hello = redis::cmd("HELLO").query_async(commands).await;
    let hello: HashMap<String, Value> = hello.unwrap_or_default();
    let says =
        |field, text: &[u8]| matches!(hello.get(field), Some(Value::BulkString(it)) if it == text);
    if says("role", b"replica") && (sharded || !says("mode", b"cluster")) {
        let replica = (ServerErrorKind::ReadOnly.into(), "replica").into();
        return Err(error::from_redis(step, at, &replica));
    }
    Ok(())
}
