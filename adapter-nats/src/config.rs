//! How to reach NATS servers and log in there.

use std::{fmt, path::PathBuf};

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{BackendUrl, Endpoint},
    transport::Connected,
};

use crate::{Nats, NatsTransport};

/// What an error of the configuration begins with.
pub(crate) const OPERATION: &str = "nats: config";
const PORT: u16 = 4222;
/// NATS itself takes at most 64 MiB in one message.
const PAYLOAD_CEILING: usize = 64 << 20;

/// How to log in. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Auth {
    /// With the user and the password of the [`Endpoint`], if it has them; otherwise not at all.
    #[default]
    Endpoint,
    /// With a token.
    Token(String),
    /// With the nkey seed in a file, which is read at each attempt to connect.
    NkeyFile(PathBuf),
    /// With the JWT and the nkey seed in a `.creds` file, which is read at each attempt to connect.
    CredsFile(PathBuf),
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint => f.write_str("user and password, if there are"),
            Self::Token(_) => f.write_str("token"),
            Self::NkeyFile(path) => write!(f, "nkey in {}", path.display()),
            Self::CredsFile(path) => write!(f, "credentials in {}", path.display()),
        }
    }
}

/// Everything [`connect`](Self::connect) needs to know.
///
/// Nothing is checked before `connect`. `Debug` shows no secret.
///
/// ```
/// use socketioxide_adapter_nats::{Address, Auth, Endpoint, NatsConfig};
///
/// let endpoint = Endpoint::new(Address::new("127.0.0.1", 4222))
///     .with_server(Address::new("127.0.0.2", 4222))
///     .with_prefix("chat.blue");
/// let config = NatsConfig::new(endpoint).with_auth(Auth::Token("secret".into()));
/// assert!(!format!("{config:?}").contains("secret"));
/// ```
#[derive(Debug, Clone)]
#[must_use]
#[non_exhaustive]
pub struct NatsConfig {
    /// The servers of one NATS cluster, which are tried in random order; those that the cluster tells of are added. Without
    /// [`tls`](Endpoint::tls), TLS is spoken only if a server demands it, trusting the authorities of the system. The prefix is
    /// made of letters, digits, `_` and `-` in parts separated by `.`, none of which begins with `_`. A payload can have at
    /// most 64 MiB; what the server allows is the limit if it is lower, and it usually is: NATS comes with 1 MiB.
    pub endpoint: Endpoint,
    /// How to log in.
    pub auth: Auth,
}

impl NatsConfig {
    /// The defaults for these servers.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            auth: Auth::default(),
        }
    }

    /// Reads a URL and its options; the [crate documentation](crate) lists them.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] that names the part or the option that cannot be used, never its value.
    pub fn from_url(mut url: BackendUrl) -> Result<Self> {
        let config = Self::take_from(&mut url)?;
        url.finish()?;
        Ok(config)
    }

    /// Takes what it needs of a URL that has options of another transport too.
    ///
    /// # Errors
    /// As [`from_url`](Self::from_url), which also refuses options that are not known.
    pub fn take_from(url: &mut BackendUrl) -> Result<Self> {
        if !matches!(url.path().as_str(), "" | "/") {
            return Err(invalid("after the host there can only be options"));
        }
        let tls = url.scheme().ends_with("+tls");
        let mut endpoint = Endpoint::take_from(url, PORT, tls)?;
        // A name alone is a token.
        let token = match endpoint.password {
            None => endpoint.username.take().map(Auth::Token),
            Some(_) => None,
        };
        let nkey = url.take("nkey").map(|path| Auth::NkeyFile(path.into()));
        let creds = url.take("creds").map(|path| Auth::CredsFile(path.into()));
        let mut given = [token, nkey, creds].into_iter().flatten();
        let auth = given.next().unwrap_or_default();
        match given.next() {
            None => Ok(Self { endpoint, auth }),
            Some(_) => Err(invalid(AMBIGUOUS)),
        }
    }

    /// Sets how to log in.
    pub fn with_auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Connects. Resolves once the first session is up; until then it tries again and again.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] and [`ErrorKind::Unauthorized`] at once, what else prevents a session after
    /// `connect_timeout`. Nothing is left running then.
    ///
    /// # Cancel safety
    /// Dropping the future ends what it started.
    pub async fn connect(self) -> Result<NatsTransport> {
        Connected::start(Nats::new("nats", self)?).await
    }

    /// Checks what the types cannot.
    pub(crate) fn validate(&self) -> Result<()> {
        let (prefix, user) = (&self.endpoint.prefix, &self.endpoint.username);
        // No part begins with '_': "a._ns.b" would be a prefix inside the subjects of the prefix "a".
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let part =
            |part: &str| !part.is_empty() && !part.starts_with('_') && part.chars().all(legal);
        if prefix.len() > 64 || !prefix.split('.').all(part) {
            return Err(invalid(
                "prefix must be 1 to 64 letters, digits, '_' or '-' in parts separated by '.', which do not begin with '_'",
            ));
        }
        if user.is_none() && self.endpoint.password.is_some() {
            return Err(invalid("a password needs a user name"));
        }
        if user.is_some() && self.auth != Auth::Endpoint {
            return Err(invalid(AMBIGUOUS));
        }
        self.endpoint.validate(OPERATION, PAYLOAD_CEILING)
    }
}

const AMBIGUOUS: &str = "more than one of user, token, \"nkey\" and \"creds\" is given";

pub(crate) fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, OPERATION, message)
}
