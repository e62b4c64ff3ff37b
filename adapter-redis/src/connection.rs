//! One connection to a Redis server: socket, TLS, handshake, and how to know that it is alive.

use std::{
    collections::HashMap,
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
use socketioxide_adapter_core::Result;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_util::io::InspectReader;

use crate::{
    config::{Address, PUBLISHES, RedisConfig},
    error::{self, Step},
    tls::Tls,
};

/// Commands waiting in redis-rs. More than publishes may wait, so that handing one over never waits: redis-rs gives
/// room in its queue to whoever asks next, also past those who are waiting for it.
const COMMANDS: usize = 2 * PUBLISHES;
/// Written to the socket in one go.
const WRITE_CHUNK: usize = 64 << 10;

/// A byte stream to the server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server to connect to, with everything read and checked that does not change from one attempt to the next.
#[derive(Debug)]
pub(crate) struct Server {
    address: Address,
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

impl Server {
    pub(crate) fn new(config: &RedisConfig) -> Result<Self> {
        let address = config.address.clone();
        let tls = match &address {
            Address::Tls { host, ca, .. } => Some(Tls::new(host, ca)?),
            Address::Tcp { .. } | Address::Unix(_) => None,
        };
        // Without CLIENT SETINFO: a server that refuses the connection answers the first command and closes, and
        // redis-rs would report the close instead of the answer.
        let mut login = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(config.database.into());
        if let Some(username) = &config.username {
            login = login.set_username(username);
        }
        if let Some(password) = &config.password {
            login = login.set_password(password);
        }
        Ok(Self {
            address,
            tls,
            login,
        })
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Connects and logs in. Has no deadline of its own: the reconnect loop has.
    pub(crate) async fn connect(
        &self,
        push: Option<Arc<dyn AsyncPushSender>>,
    ) -> Result<Connection> {
        let stream = self
            .stream()
            .await
            .map_err(|error| error::from_io(&self.address, &error))?;
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
                .map_err(|error| error::from_redis(Step::Connect, &self.address, &error))?;
        Ok(Connection {
            commands,
            driver: Box::pin(driver),
            received,
        })
    }

    /// Asks the server whether it is a primary; its answer is a sign of life as well, also if it is an error.
    ///
    /// A replica takes publishes, but only its own subscribers get them. In a Redis Cluster all nodes pass them on.
    pub(crate) async fn require_primary(&self, commands: &mut MultiplexedConnection) -> Result<()> {
        // HELLO tells the role, needs no more rights than the login did, and without arguments changes nothing.
        let hello = redis::cmd("HELLO").query_async(commands).await;
        let hello: HashMap<String, Value> = hello.unwrap_or_default();
        let says = |field, text: &[u8]| matches!(hello.get(field), Some(Value::BulkString(it)) if it == text);
        if says("role", b"replica") && !says("mode", b"cluster") {
            let replica = (ServerErrorKind::ReadOnly.into(), "replica").into();
            return Err(error::from_redis(Step::Connect, &self.address, &replica));
        }
        Ok(())
    }

    async fn stream(&self) -> io::Result<Box<dyn Stream>> {
        let (host, port) = match &self.address {
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } | Address::Tls { host, port, .. } => (host, *port),
        };
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        // No keepalive: the session asks for a sign of life each second, which finds more and sooner.
        tcp.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => tls.wrap(tcp).await,
            None => Ok(Box::new(tcp)),
        }
    }
}
