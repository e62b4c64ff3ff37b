//! What every network backend is told: where the servers are, how to log in, the prefix, deadlines and buffers.

use std::{fmt, time::Duration};

use crate::{
    backend::{BackendUrl, RootCa},
    error::{Error, ErrorKind, Result},
    socket::{Address, Tls},
    transport::Limits,
};

/// Where the servers are, how to log in there, and what is the same at every broker. `Debug` does not show the password.
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_core::{backend::Endpoint, socket::Address, transport::Limits};
///
/// let endpoint = Endpoint::new(Address::new("broker-1", 5672))
///     .with_server(Address::new("broker-2", 5672))
///     .with_credentials("chat", "secret")
///     .with_prefix("chat.blue")
///     .with_limits(Limits::default().with_timeout(Duration::from_secs(1)));
/// assert!(!format!("{endpoint:?}").contains("secret"));
/// ```
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct Endpoint {
    /// The servers, to be tried in turn.
    pub servers: Vec<Address>,
    /// TLS, and whom to trust; needs the cargo feature `tls` of the backend. Default `None`: plain text.
    pub tls: Option<RootCa>,
    /// User. Default `None`: what the backend says.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// First part of every name at the broker: 1 to 64 letters, digits, `.`, `_`, `-` and `:`, unless the backend allows
    /// less. Default `socketioxide`.
    pub prefix: String,
    /// Deadlines and buffers.
    pub limits: Limits,
}

impl Endpoint {
    /// The defaults for a server.
    pub fn new(server: Address) -> Self {
        Self {
            servers: vec![server],
            tls: None,
            username: None,
            password: None,
            prefix: "socketioxide".to_owned(),
            limits: Limits::default(),
        }
    }

    /// Takes all hosts of a URL (with `port` where it gives none), user and password, and the options `prefix`,
    /// `connect_timeout`, `timeout` and, with `tls`, `ca`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn take_from(url: &mut BackendUrl, port: u16, tls: bool) -> Result<Self> {
        let hosts = url.take_hosts().into_iter();
        let servers = hosts.map(|(host, own)| Address::new(host, own.unwrap_or(port)));
        Ok(Self {
            servers: servers.collect(),
            tls: tls.then(|| RootCa::take_from(url)),
            username: url.username(),
            password: url.password(),
            prefix: url
                .take("prefix")
                .unwrap_or_else(|| "socketioxide".to_owned()),
            limits: Limits::take_from(url)?,
        })
    }

    /// Adds a server.
    pub fn with_server(mut self, server: Address) -> Self {
        self.servers.push(server);
        self
    }

    /// Speaks TLS and trusts `ca`.
    pub fn with_tls(mut self, ca: RootCa) -> Self {
        self.tls = Some(ca);
        self
    }

    /// Sets the user and the password.
    pub fn with_credentials(
        mut self,
        username: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.username = Some(username.into());
        self.password = Some(password.into());
        self
    }

    /// Sets the first part of all names.
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Sets all deadlines and buffers, also those that a URL gave.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// All servers, as an error names them.
    pub fn at(&self) -> String {
        Address::list(&self.servers)
    }

    /// The server whose turn it is, and its share of the [`connect_timeout`](Limits::connect_timeout): the next one may
    /// answer.
    pub fn turn(&self, turn: usize) -> (&Address, Duration) {
        let count = self.servers.len().max(1);
        let share = u32::try_from(count).unwrap_or(u32::MAX);
        let limit = self.limits.connect_timeout / share;
        (&self.servers[turn % count], limit)
    }

    /// What a connection needs to speak TLS, if it is wanted. Blocks while it reads files.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the authorities cannot be read, or without the cargo feature `tls`.
    pub fn tls(&self, operation: &'static str) -> Result<Option<Tls>> {
        let tls = self.tls.as_ref().map(|ca| Tls::new(ca, operation));
        tls.transpose()
    }

    /// Checks what the types cannot. `most` is the largest payload that can be allowed, in whole MiB; `operation` is what an
    /// error begins with, as `redis: config`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that says what is wrong, and never shows a secret.
    pub fn validate(&self, operation: &'static str, most: usize) -> Result<()> {
        self.limits.validate(operation, most)?;
        let invalid = |message: &'static str| {
            let error = Error::new(ErrorKind::Config, operation, message);
            Err(error)
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
        // No slash: with one, a namespace of one prefix could be a namespace of another.
        if !(1..=64).contains(&self.prefix.len()) || !self.prefix.chars().all(legal) {
            return invalid("prefix must be 1 to 64 letters, digits, '.', '_', '-' or ':'");
        }
        if self.servers.is_empty() {
            let (name, _) = operation.split_once(':').unwrap_or((operation, ""));
            let message = format!("no host, expected something like {name}://127.0.0.1");
            return Err(Error::new(ErrorKind::Config, operation, message));
        }
        if self.username.is_some() && self.password.is_none() {
            return invalid("a user name needs a password");
        }
        Ok(())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("servers", &self.servers)
            .field("tls", &self.tls)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("prefix", &self.prefix)
            .field("limits", &self.limits)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_what_is_the_same_everywhere_and_what_cannot_be_is_refused() {
        let url = "x://u:p@a,b:7?prefix=chat&timeout=1s&ca=/ca.pem";
        let mut url = BackendUrl::parse(url).unwrap();
        let endpoint = Endpoint::take_from(&mut url, 9, true).unwrap();
        url.finish().unwrap();
        assert_eq!(endpoint.at(), "a:9,b:7");
        let share = endpoint.limits.connect_timeout / 2;
        assert_eq!(endpoint.turn(3), (&Address::new("b", 7), share));
        assert_eq!(endpoint.username.as_deref(), Some("u"));
        assert_eq!(endpoint.tls, Some(RootCa::File("/ca.pem".into())));
        assert_eq!(endpoint.limits.timeout.as_secs(), 1);
        endpoint.validate("x: config", 1 << 30).unwrap();
        let table = [
            (endpoint.clone().with_prefix(""), "prefix"),
            (endpoint.clone().with_prefix("a/b"), "prefix"),
            (
                Endpoint {
                    servers: Vec::new(),
                    ..endpoint.clone()
                },
                "no host, expected something like x://",
            ),
            (
                Endpoint {
                    password: None,
                    ..endpoint.clone()
                },
                "needs a password",
            ),
        ];
        for (endpoint, part) in table {
            let error = endpoint.validate("x: config", 1 << 30).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
