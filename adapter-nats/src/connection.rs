//! One connection to a NATS server: how it is made, and that it is not made again behind our back.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, rustls::ClientConfig};
use socketioxide_adapter_core::{
    Error, ErrorKind, Result, backend::RootCa, socket::client_config, transport::Limits,
};

use crate::{
    config::{Auth, NatsConfig, OPERATION},
    error, subjects,
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
pub(crate) struct Connector {
    tls: ClientConfig,
    /// The servers, for people.
    servers: String,
    /// What the cluster told about further servers.
    discovered: Mutex<Vec<String>>,
}

impl Connector {
    pub(crate) fn new(config: &NatsConfig) -> Result<Self> {
        let servers: Vec<String> = config.servers.iter().map(ToString::to_string).collect();
        Ok(Self {
            tls: client_config(config.tls.as_ref().unwrap_or(&RootCa::System), OPERATION)?,
            servers: servers.join(","),
            discovered: Mutex::default(),
        })
    }

    /// The configured servers, for people.
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    /// Whether there is another server to go to.
    pub(crate) fn has_choice(&self, config: &NatsConfig) -> bool {
        self.addresses(config).len() > 1
    }

    /// Connects and logs in. Has no deadline of its own: the reconnect loop has.
    ///
    /// The client would make up for a lost connection by itself: send again what it still has, out of turn and with nobody
    /// waiting for it any more, and keep quiet about what was lost. So it lives as long as its connection.
    pub(crate) async fn connect(
        &self,
        config: &NatsConfig,
        events: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Client> {
        let addresses = self.addresses(config);
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let options = ConnectOptions::new()
            .name("socketioxide-adapter")
            .custom_inbox_prefix(subjects::inboxes(&config.prefix))
            .tls_client_config(self.tls.clone())
            .require_tls(config.tls.is_some())
            // Each attempt counts, also those of the first connection.
            .max_reconnects(addresses.len())
            .reconnect_delay_callback(|_| Duration::ZERO)
            .ignore_discovered_servers()
            .connection_timeout(config.limits.connect_timeout / count)
            .request_timeout(Some(config.limits.timeout))
            .ping_interval(PING)
            .subscription_capacity(UNREAD)
            .client_capacity(COMMANDS)
            .event_callback(move |event| {
                events(event);
                std::future::ready(())
            });
        let options = log_in(options, &config.auth)?;
        let failed = |error| error::from_connect(&self.servers, &config.auth, &error);
        let client = options.connect(addresses).await.map_err(failed)?;
        let lost = |_| error::interrupted(error::Step::Connect);
        client.set_server_pool(NOWHERE).await.map_err(lost)?;
        let mut urls = client.server_info().connect_urls;
        urls.truncate(KNOWN);
        *self.lock() = urls;
        Ok(client)
    }

    fn addresses(&self, config: &NatsConfig) -> Vec<ServerAddr> {
        let configured = config.servers.iter().map(ToString::to_string);
        let mut addresses: Vec<ServerAddr> = Vec::new();
        for text in configured.chain(self.lock().iter().cloned()) {
            match text.parse() {
                Ok(address) if !addresses.contains(&address) => addresses.push(address),
                _ => {}
            }
        }
        addresses
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.discovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({})", self.servers)
    }
}

fn log_in(options: ConnectOptions, auth: &Auth) -> Result<ConnectOptions> {
    Ok(match auth {
        Auth::None => options,
        Auth::Password { user, password } => {
            options.user_and_password(user.clone(), password.clone())
        }
        Auth::Token(token) => options.token(token.clone()),
        Auth::NkeyFile(path) => options.nkey(read(path, "nkey")?.trim().to_owned()),
        Auth::CredsFile(path) => options
            .credentials(&read(path, "creds")?)
            .map_err(|_| unusable("creds", path, &"no JWT with an nkey seed"))?,
    })
}

fn read(path: &std::path::Path, option: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|error| unusable(option, path, &error))
}

fn unusable(option: &str, path: &std::path::Path, why: &dyn std::fmt::Display) -> Error {
    let message = format!("option {option:?}: {}: {why}", path.display());
    Error::new(ErrorKind::Config, "nats: config", message)
}
