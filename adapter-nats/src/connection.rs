//! One connection to a NATS server: how it is made, and that it is not made again behind our back.

use std::{
    fmt::Display,
    fs,
    future::ready,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, rustls::ClientConfig};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::RootCa,
    socket::{Address, client_config},
    transport::{Limits, Step},
};

use crate::{
    Nats,
    config::{Auth, NatsConfig, OPERATION, invalid},
    subjects,
};

/// How often the client asks an idle server for a sign of life. The session asks more often; this is for a connection
/// that was given up with something left to write: the client holds on to it for up to three of these.
const PING: Duration = Duration::from_secs(2);
/// Messages of one subscription that the client holds while its reader does not get to run.
const UNREAD: usize = 65_536;
/// Commands waiting in the client. More than publishes may wait, so that handing one over never waits.
const COMMANDS: usize = 2 * Limits::PUBLISHES;
/// Most servers remembered from what the cluster told.
const KNOWN: usize = 64;
/// Nobody is there. A client whose connection is lost tries this, in vain, and ends.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// How to connect, with everything read and checked that does not change from one attempt to the next.
#[derive(Debug)]
pub(crate) struct Connector {
    tls: ClientConfig,
    servers: Vec<ServerAddr>,
    /// What the cluster told about further servers.
    discovered: Mutex<Vec<ServerAddr>>,
}

impl Connector {
    pub(crate) fn new(config: &NatsConfig) -> Result<Self> {
        let ca = config.endpoint.tls.as_ref().unwrap_or(&RootCa::System);
        // A unix socket has no port.
        let address = |server: &Address| match server.port() {
            0 => None,
            _ => server.to_string().parse().ok(),
        };
        let servers: Option<_> = config.endpoint.servers.iter().map(address).collect();
        Ok(Self {
            tls: client_config(ca, OPERATION)?,
            servers: servers.ok_or_else(|| invalid("not the address of a server"))?,
            discovered: Mutex::default(),
        })
    }

    /// Whether there is another server to go to.
    pub(crate) fn has_choice(&self) -> bool {
        self.addresses().len() > 1
    }

    fn addresses(&self) -> Vec<ServerAddr> {
        let mut addresses: Vec<ServerAddr> = Vec::new();
        for address in self.servers.iter().chain(&*self.lock()) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    fn lock(&self) -> MutexGuard<'_, Vec<ServerAddr>> {
        self.discovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Nats {
    /// Connects and logs in. Has no deadline of its own: the reconnect loop has.
    ///
    /// The client would make up for a lost connection by itself: send again what it still has, out of turn and with nobody
    /// waiting for it any more, and keep quiet about what was lost. So it lives as long as its connection.
    pub(crate) async fn connect(
        &self,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Client> {
        let (origin, config, connector) = (&self.origin, &self.config, &self.connector);
        let limits = &config.endpoint.limits;
        let addresses = connector.addresses();
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let options = ConnectOptions::new()
            .name("socketioxide-adapter")
            .custom_inbox_prefix(subjects::inboxes(&config.endpoint.prefix))
            .tls_client_config(connector.tls.clone())
            .require_tls(config.endpoint.tls.is_some())
            // Each attempt counts, also those of the first connection.
            .max_reconnects(addresses.len())
            .reconnect_delay_callback(|_| Duration::ZERO)
            .ignore_discovered_servers()
            .connection_timeout(limits.connect_timeout / count.max(1))
            .request_timeout(Some(limits.timeout))
            .ping_interval(PING)
            .subscription_capacity(UNREAD)
            .client_capacity(COMMANDS)
            .event_callback(move |event| {
                events(event);
                ready(())
            });
        let failed = |error| origin.refused(config, &error);
        let client = log_in(options, config)?.connect(addresses).await;
        let client = client.map_err(failed)?;
        let lost = |_| Step::Connect.interrupted(origin.name, &origin.at);
        client.set_server_pool(NOWHERE).await.map_err(lost)?;
        let told = client.server_info().connect_urls;
        let told = told.iter().take(KNOWN).filter_map(|it| it.parse().ok());
        *connector.lock() = told.collect();
        Ok(client)
    }
}

fn log_in(options: ConnectOptions, config: &NatsConfig) -> Result<ConnectOptions> {
    let endpoint = &config.endpoint;
    Ok(match &config.auth {
        Auth::Endpoint => match (&endpoint.username, &endpoint.password) {
            (Some(user), Some(password)) => {
                options.user_and_password(user.clone(), password.clone())
            }
            _ => options,
        },
        Auth::Token(token) => options.token(token.clone()),
        Auth::NkeyFile(path) => options.nkey(read(path, "nkey")?.trim().to_owned()),
        Auth::CredsFile(path) => options
            .credentials(&read(path, "creds")?)
            .map_err(|_| unusable("creds", path, "no JWT with an nkey seed"))?,
    })
}

fn read(path: &Path, option: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| unusable(option, path, error))
}

fn unusable(option: &str, path: &Path, why: impl Display) -> Error {
    let message = format!("option {option:?}: {}: {why}", path.display());
    Error::new(ErrorKind::Config, OPERATION, message)
}
