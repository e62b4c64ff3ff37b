//! One connection to a broker: socket, TLS, handshake, how to know that it is alive, and how to end it for sure.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use async_rs::Runtime;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use lapin::{
    AsyncTcpStream, Channel, ConnectionProperties, Event,
    options::QueueDeleteOptions,
    types::ShortString,
    uri::{AMQPAuthority, AMQPQueryString, AMQPUri, AMQPUserInfo},
};
use socketioxide_adapter_core::{
    Result,
    socket::{self, Address, Stream, Tls},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
    time::timeout,
};
use tokio_util::{
    compat::{Compat, TokioAsyncReadCompatExt as _},
    sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

use crate::{
    config::{AmqpConfig, OPERATION},
    error::{self, Step},
    runtime::Kit,
};

/// How long a goodbye to the broker may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// The servers to connect to, with everything read and checked that does not change from one attempt to the next.
#[derive(Debug)]
pub(crate) struct Servers {
    servers: Vec<Address>,
    pub(crate) tls: Option<Tls>,
    /// Which one is next.
    turn: AtomicUsize,
}

impl Servers {
    pub(crate) fn new(config: &AmqpConfig) -> Result<Self> {
        let tls = config.tls.as_ref().map(|ca| Tls::new(ca, OPERATION));
        Ok(Self {
            servers: config.servers.clone(),
            tls: tls.transpose()?,
            turn: AtomicUsize::new(0),
        })
    }

    /// The server whose turn it is; the next call names the next one.
    pub(crate) fn next(&self) -> &Address {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        &self.servers[turn % self.servers.len()]
    }
}

/// An open connection. Dropping it says goodbye in the background, for half a second at most, and cuts it off.
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    /// Bytes received so far.
    pub(crate) received: Arc<AtomicUsize>,
    /// A queue to delete at the end, if this token says by then that the end is for good.
    pub(crate) delete: Option<(ShortString, CancellationToken)>,
    lapin: Option<(lapin::Connection, DropGuard)>,
    tasks: TaskTracker,
    runtime: Handle,
}

impl Connection {
    /// Connects and logs in. Has no deadline of its own: the reconnect loop has.
    pub(crate) async fn open(
        config: &AmqpConfig,
        address: &Address,
        tls: Option<&Tls>,
        purpose: &str,
        tasks: &TaskTracker,
    ) -> Result<Self> {
        let stream = socket::connect(&address.host, address.port, tls)
            .await
            .map_err(|error| error::from_io(address, &error))?;
        let received = Arc::new(AtomicUsize::new(0));
        let cut = CancellationToken::new();
        let wire = Wire {
            stream,
            received: received.clone(),
            cut: Box::pin(cut.clone().cancelled_owned()),
            is_cut: cut.clone(),
        };
        let cut = cut.drop_guard();
        let wire = Mutex::new(Some(wire.compat()));
        // Called once: lapin's own reconnecting is off.
        let connect = async move |_, _| {
            let wire = wire.lock().unwrap_or_else(PoisonError::into_inner).take();
            wire.map(AsyncTcpStream::Plain)
                .ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted).into())
        };
        let name = format!("{} {purpose}", config.prefix);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = Runtime::new(Kit::new(tasks.clone()));
        let lapin =
            lapin::Connection::connector(uri(config, address), runtime, connect, properties);
        let failed = |error| error::from_lapin(Step::Connect, address, &error);
        let lapin = lapin.await.map_err(failed)?;
        let channel = lapin.create_channel().await.map_err(failed)?;
        Ok(Self {
            channel,
            received,
            delete: None,
            lapin: Some((lapin, cut)),
            tasks: tasks.clone(),
            runtime: Handle::current(),
        })
    }

    /// One more channel.
    pub(crate) async fn channel(&self) -> lapin::Result<Channel> {
        match &self.lapin {
            Some((lapin, _)) => lapin.create_channel().await,
            None => Err(io::Error::from(io::ErrorKind::NotConnected).into()),
        }
    }

    /// What happens to the connection from now on.
    pub(crate) fn events(&self) -> BoxStream<'static, Event> {
        match &self.lapin {
            Some((lapin, _)) => lapin.events_listener().boxed(),
            None => stream::empty().boxed(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some((lapin, cut)) = self.lapin.take() else {
            return;
        };
        let (channel, delete) = (self.channel.clone(), self.delete.take());
        let goodbye = async move {
            if let Some((queue, for_good)) = delete
                && for_good.is_cancelled()
            {
                let options = QueueDeleteOptions::default();
                let _ = channel.queue_delete(queue, options).await;
            }
            let _ = lapin.close(200, "OK".into()).await;
        };
        let goodbye = async move {
            let _ = timeout(GOODBYE, goodbye).await;
            drop(cut);
        };
        self.tasks.spawn_on(goodbye, &self.runtime);
    }
}

fn uri(config: &AmqpConfig, address: &Address) -> AMQPUri {
    let heartbeat = config.heartbeat.as_secs();
    AMQPUri {
        // TLS is ours, so that lapin sees an ordinary stream.
        scheme: lapin::uri::AMQPScheme::AMQP,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: config.username.clone(),
                password: config.password.clone(),
            },
            host: address.host.clone(),
            port: address.port,
        },
        vhost: config.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(heartbeat.try_into().unwrap_or(u16::MAX)),
            ..AMQPQueryString::default()
        },
    }
}

/// The stream that lapin's thread reads and writes: counts what is received, and fails at once when it is cut, whatever
/// the broker does.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    received: Arc<AtomicUsize>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: CancellationToken,
}

/// The stream as lapin takes it.
pub(crate) type LapinStream = Compat<Wire>;

impl Wire {
    fn check(&self) -> io::Result<()> {
        if self.is_cut.is_cancelled() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Also wakes the reader when the stream is cut later.
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(self.check());
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let bytes = buf.filled().len() - before;
        self.received.fetch_add(bytes, Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
