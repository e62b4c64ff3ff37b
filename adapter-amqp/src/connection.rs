//! One connection to a broker: socket, TLS, login, how to know that it is alive, and how to end it for sure.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use async_rs::{Runtime, Tokio};
use lapin::{
    AsyncTcpStream, Channel, ConnectionProperties,
    types::ShortString,
    uri::{AMQPUri, AMQPUserInfo},
};
use socketioxide_adapter_core::{
    Result,
    socket::{self, Address, Received},
    transport::Step,
};
use tokio::time::timeout;
use tokio_util::{
    compat::TokioAsyncReadCompatExt as _,
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{Amqp, Config, Source, error, runtime::Kit, transport::lock};

/// How long a goodbye to the broker may take.
const GOODBYE: Duration = Duration::from_millis(500);

/// An open connection. Dropping it says goodbye in the background, for half a second at most, and cuts it off.
#[derive(Debug)]
pub struct Connection {
    /// Its first channel.
    pub(crate) channel: Channel,
    pub(crate) received: Received,
    pub(crate) lapin: Arc<lapin::Connection>,
    /// A queue to delete at the end, if that is the end of the node.
    pub(crate) delete: Arc<OnceLock<ShortString>>,
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
        let runtime = Runtime::new(Kit {
            tokio: Tokio::current(),
            tasks: tasks.clone(),
        });
        let lapin = lapin::Connection::connector(uri(&node.config), runtime, connect, properties);
        let failed = error::explain(S::NAME, Step::Connect, server);
        let lapin = Arc::new(lapin.await.map_err(&failed)?);
        let channel = lapin.create_channel().await.map_err(failed)?;
        let (end, delete) = (CancellationToken::new(), Arc::new(OnceLock::new()));
        let connection = Self {
            channel: channel.clone(),
            received,
            lapin: lapin.clone(),
            delete: delete.clone(),
            _end: end.clone().drop_guard(),
        };
        let for_good = node.shutdown.clone();
        let goodbye = async move {
            if let Some(queue) = delete.get().filter(|_| for_good.is_cancelled()) {
                let _ = channel
                    .queue_delete(queue.clone(), Default::default())
                    .await;
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

    /// One more channel.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn open_channel(&self) -> lapin::Result<Channel> {
        self.lapin.create_channel().await
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
