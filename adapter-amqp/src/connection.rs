//! One connection to a broker: socket, TLS, login, the runtime for all that, and how to end it for sure.

use std::{
    future::{Future, ready},
    io::{self, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_rs::{
    Runtime, Tokio,
    traits::{Executor, Reactor, RuntimeKit},
    util::Task,
};
use futures_util::{AsyncRead, AsyncWrite, Stream};
use lapin::{
    AsyncTcpStream, Channel, ConnectionProperties,
    uri::{AMQPUri, AMQPUserInfo},
};
use socketioxide_adapter_core::{
    Result,
    socket::{self, Address, Received, Wire},
    transport::Step,
};
use tokio::time::timeout;
use tokio_util::{
    compat::{Compat, TokioAsyncReadCompatExt as _},
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{Amqp, Config, Source, error, transport::lock};

/// How long a goodbye to the broker may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// An open connection. Dropping it says goodbye in the background, for half a second at most, and cuts it off.
#[derive(Debug)]
pub struct Connection {
    /// Its first channel.
    pub(crate) channel: Channel,
    pub(crate) received: Received,
    /// For more channels, and for what happens to the connection.
    pub lapin: Arc<lapin::Connection>,
    _end: DropGuard,
}

impl Connection {
    /// Connects and logs in. Has no deadline of its own: the reconnect loop has.
    pub(crate) async fn open<S: Source>(
        node: &Amqp<S>,
        server: &Address,
        purpose: &str,
        tasks: &TaskTracker,
    ) -> Result<Self> {
        let wire = socket::connect(server, node.tls.as_ref()).await;
        let mut wire = wire.map_err(|error| {
            let (kind, what) = socket::explain(&error, "RabbitMQ", "a plain amqp:// port");
            Step::Connect.error(S::NAME, kind, format!("{server}: {what}"))
        })?;
        let (received, cut) = (wire.received(), wire.cut_on_drop());
        let wire = Mutex::new(Some(wire.compat()));
        // Called once: lapin's own reconnecting is off.
        let connect = async move |_, _| match lock(&wire).take() {
            Some(wire) => Ok(AsyncTcpStream::Plain(wire)),
            None => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
        };
        let name = format!("{} {purpose}", node.config.endpoint.prefix);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = Runtime::new(Kit(Tokio::current(), tasks.clone()));
        let lapin = lapin::Connection::connector(uri(&node.config), runtime, connect, properties);
        let failed = error::explain(S::NAME, Step::Connect, server);
        let lapin = Arc::new(lapin.await.map_err(&failed)?);
        let channel = lapin.create_channel().await.map_err(failed)?;
        let end = CancellationToken::new();
        let connection = Self {
            channel: channel.clone(),
            received,
            lapin: lapin.clone(),
            _end: end.clone().drop_guard(),
        };
        let (for_good, queue) = (node.shutdown.clone(), node.own_name.as_str().into());
        let goodbye = async move {
            // There is none if the node does not read from one that outlasts connections.
            if for_good.is_cancelled() {
                let _ = channel.queue_delete(queue, Default::default()).await;
            }
            let _ = lapin.close(200, "OK".into()).await;
        };
        tasks.spawn(async move {
            end.cancelled().await;
            let _ = timeout(GOODBYE, goodbye).await;
            drop(cut);
        });
        Ok(connection)
    }
}

/// What lapin has to know: it connects and encrypts nothing itself.
fn uri<S>(config: &Config<S>) -> AMQPUri {
    let login = |given: &Option<String>| given.as_deref().unwrap_or("guest").to_owned();
    let mut uri = AMQPUri::default();
    uri.authority.userinfo = AMQPUserInfo {
        username: login(&config.endpoint.username),
        password: login(&config.endpoint.password),
    };
    uri.vhost.clone_from(&config.vhost);
    uri.query.heartbeat = config.heartbeat.as_secs().try_into().ok();
    uri
}

/// The runtime that lapin gets: tokio, with our stream in place of a socket, and with every task of lapin tracked.
#[derive(Debug, Clone)]
struct Kit(Tokio, TaskTracker);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn(self.1.track_future(future))
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        call: F,
    ) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(call)
    }
}

impl Reactor for Kit {
    type TcpStream = Compat<Wire>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    /// Connections are made before lapin gets them.
    fn tcp_connect_addr(
        &self,
        _address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }
}
