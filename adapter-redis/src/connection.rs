//! One connection to a Redis server: socket, TLS, handshake, and how to know that it is alive.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use redis::{
    AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo,
    aio::{AsyncPushSender, MultiplexedConnection},
};
use socketioxide_adapter_core::Result;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::{
    config::{Address, RedisConfig},
    error::{self, Step},
    tls::Tls,
};

/// Commands waiting in redis-rs. More than the transport lets be in flight, so that handing over a command never waits:
/// a publish that had to wait for room could be overtaken by a later one.
const COMMANDS: usize = 65_536;
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
    /// Grows with everything that is received.
    pub(crate) received: Arc<AtomicU64>,
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
        let received = Arc::new(AtomicU64::new(0));
        let stream = Listening {
            stream,
            received: received.clone(),
        };
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

/// Counts how often something was received.
struct Listening {
    stream: Box<dyn Stream>,
    received: Arc<AtomicU64>,
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.received.fetch_add(1, Ordering::Relaxed);
        }
        poll
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
