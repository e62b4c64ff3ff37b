//! A primary, its replica, and three sentinels that make the one take the place of the other.

use tempfile::TempDir;

use super::{Redis, RedisBuilder, Reply, agree, shared_certificates};
use crate::{
    error::{Error, Result},
    tls::Certificates,
};

/// The name by which the sentinels know the primary.
const NAME: &str = "lab";
const SENTINELS: usize = 3;
/// Makes a sentinel look at the servers and talk to the others much more often.
const HASTE: [&str; 10] = [
    "SENTINEL",
    "DEBUG",
    "info-period",
    "200",
    "publish-period",
    "200",
    "ping-period",
    "200",
    "tilt-period",
    "500",
];

/// How a set is set up. By default: no passwords, no TLS.
#[derive(Debug, Default, Clone)]
pub struct RedisSentinelBuilder {
    password: Option<String>,
    sentinel_password: Option<String>,
    tls: bool,
}

impl RedisSentinelBuilder {
    /// Requires `password` of the default user of the servers.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// Requires `password` of the default user of the sentinels.
    #[must_use]
    pub fn sentinel_password(mut self, password: &str) -> Self {
        self.sentinel_password = Some(password.to_owned());
        self
    }

    /// Servers and sentinels speak TLS, and only TLS.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Starts everything and waits until a fail-over could happen.
    ///
    /// # Errors
    /// If a program is missing or does not start, or the sentinels do not find each other.
    pub fn start(self) -> Result<RedisSentinel> {
        let tls = self.tls.then(shared_certificates).transpose()?;
        let certificates = tls.as_ref().map(|(_, certificates)| certificates);
        let with_password = |builder: RedisBuilder, password: &Option<String>| match password {
            Some(password) => builder.password(password),
            None => builder,
        };
        let server = || {
            let mut server = with_password(Redis::builder(), &self.password);
            if let Some(password) = &self.password {
                server = server.config(format!("masterauth {password:?}"));
            }
            server
                .config("repl-diskless-sync-delay 0")
                .shared_tls(certificates)
                .start()
        };
        let servers = [server()?, server()?];
        let sentinel = || {
            let mut sentinel = with_password(Redis::builder().sentinel(), &self.sentinel_password);
            if let Some(password) = &self.sentinel_password {
                sentinel = sentinel.config(format!("sentinel sentinel-pass {password}"));
            }
            sentinel = sentinel.config(format!(
                "sentinel monitor {NAME} 127.0.0.1 {} 2",
                servers[0].port()
            ));
            if let Some(password) = &self.password {
                sentinel = sentinel.config(format!("sentinel auth-pass {NAME} {password}"));
            }
            sentinel
                .config(format!("sentinel down-after-milliseconds {NAME} 1000"))
                .config(format!("sentinel failover-timeout {NAME} 3000"))
                .shared_tls(certificates)
                .start()
        };
        let sentinels = (0..SENTINELS).map(|_| sentinel());
        let set = RedisSentinel {
            sentinels: sentinels.collect::<Result<_>>()?,
            servers,
            setup: self,
            tls,
        };
        set.heal()?;
        Ok(set)
    }
}

/// Two Redis servers and three sentinels on 127.0.0.1, which take a primary for dead after 1 s. Dropping it kills all.
#[derive(Debug)]
pub struct RedisSentinel {
    servers: [Redis; 2],
    sentinels: Vec<Redis>,
    setup: RedisSentinelBuilder,
    tls: Option<(TempDir, Certificates)>,
}

impl RedisSentinel {
    /// Starts a set with the defaults of [`RedisSentinelBuilder`].
    ///
    /// # Errors
    /// As [`RedisSentinelBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Sets up a set.
    pub fn builder() -> RedisSentinelBuilder {
        RedisSentinelBuilder::default()
    }

    /// `redis+sentinel://lab@` and the three sentinels, without passwords.
    pub fn url(&self) -> String {
        let scheme = if self.setup.tls { "rediss" } else { "redis" };
        let address = |sentinel: &Redis| format!("127.0.0.1:{}", sentinel.port());
        let sentinels: Vec<String> = self.sentinels.iter().map(address).collect();
        format!("{scheme}+sentinel://{NAME}@{}", sentinels.join(","))
    }

    /// Both servers; which of them is the primary changes.
    pub fn servers(&self) -> &[Redis; 2] {
        &self.servers
    }

    /// The three sentinels.
    pub fn sentinels(&self) -> &[Redis] {
        &self.sentinels
    }

    /// The certificates of a set with TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.tls.as_ref().map(|(_, certificates)| certificates)
    }

    /// The server that most sentinels take for the primary.
    ///
    /// # Errors
    /// If there is none.
    pub fn primary(&self) -> Result<&Redis> {
        let votes = |server: &Redis| {
            let port = server.port().to_string();
            let named = |sentinel: &&Redis| named(sentinel).as_deref() == Some(&port);
            self.sentinels.iter().filter(named).count()
        };
        let mut servers = self.servers.iter();
        servers
            .find(|server| votes(server) * 2 > SENTINELS)
            .ok_or_else(|| Error::new("the sentinels do not agree on a primary"))
    }

    /// Waits until the replica has everything that the primary has now.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn replicate(&self) -> Result<()> {
        let primary = self.primary()?;
        let replica = self.replica_of(primary)?;
        let written = written(primary);
        agree("a replica that has everything", || {
            written.is_some() && received(replica) >= written
        })
    }

    /// The server that is not the primary.
    ///
    /// # Errors
    /// If there is no primary.
    pub fn replica(&self) -> Result<&Redis> {
        self.replica_of(self.primary()?)
    }

    fn replica_of(&self, primary: &Redis) -> Result<&Redis> {
        let mut servers = self.servers.iter();
        servers
            .find(|server| server.port() != primary.port())
            .ok_or_else(|| Error::new("there is no replica"))
    }

    /// Makes the replica the primary while both are alive, and waits until all sentinels know. What the replica has not
    /// yet received is lost, see [`replicate`](Self::replicate); the old primary is not asked, see [`settle`](Self::settle).
    ///
    /// # Errors
    /// If that does not happen.
    pub fn fail_over(&self) -> Result<()> {
        let before = self.primary()?.port();
        let ask = || self.sentinels[0].command(&["SENTINEL", "FAILOVER", NAME]);
        ask()?;
        let old = (before.to_string(), "master".to_owned());
        self.switched_from(before, |views| {
            // A sentinel gives a fail-over up that does not go well, and nobody but us would start another one.
            if views.iter().all(|view| *view == old) {
                let _ = ask();
            }
        })
    }

    /// Waits until the old primary, too, knows of the [`fail_over`](Self::fail_over). Until then it takes what is published,
    /// and loses it.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn settle(&self) -> Result<()> {
        let old = self.replica()?;
        agree("an old primary that knows", || role(old, &["slave"]))
    }

    /// Kills the primary (SIGKILL) and waits until all sentinels know the other one. [`heal`](Self::heal) brings it back.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn kill_primary(&self) -> Result<()> {
        let primary = self.primary()?;
        primary.kill()?;
        self.switched_from(primary.port(), |_| {})
    }

    /// Starts what was killed, thaws what was frozen, and waits until there is one primary and one replica that could take
    /// its place.
    ///
    /// # Errors
    /// If that does not happen.
    pub fn heal(&self) -> Result<()> {
        for server in self.servers.iter().chain(&self.sentinels) {
            if server.is_running() {
                server.thaw()?;
            } else {
                server.restart()?;
            }
        }
        for sentinel in &self.sentinels {
            // Redis 7: with the periods as they are, one fault after the other would take ten seconds each. An older one
            // is only slower.
            let _ = sentinel.command(&HASTE);
        }
        agree("a primary and a replica", || self.is_healthy())
    }

    fn is_healthy(&self) -> bool {
        let Ok(primary) = self.primary() else {
            return false;
        };
        let Ok(replica) = self.replica_of(primary) else {
            return false;
        };
        let port = primary.port().to_string();
        if !role(primary, &["master"]) {
            // Both were restarted, and the sentinels have not yet noticed.
            return false;
        }
        if !role(replica, &["slave", "127.0.0.1", &port]) {
            // The sentinels would do the same, but only after ten seconds.
            let _ = replica.command(&["REPLICAOF", "127.0.0.1", &port]);
            return false;
        }
        // One that has just connected receives nothing for a second, although both sides call it connected.
        let written = written(primary);
        role(replica, &["slave", "127.0.0.1", &port, "connected"])
            && received(replica) >= written
            && self.sentinels.iter().all(could_fail_over)
    }

    /// `look` is shown what the sentinels see, the port and the flags of the primary, until they agree.
    fn switched_from(&self, port: u16, look: impl Fn(&[(String, String)])) -> Result<()> {
        let view = |sentinel: &Redis| {
            let primary = sentinel.command(&["SENTINEL", "MASTER", NAME]);
            let primary = primary.unwrap_or(Reply::Nil);
            let field = |name| primary.field(name).unwrap_or_default().to_owned();
            (field("port"), field("flags"))
        };
        let views = || self.sentinels.iter().map(view).collect::<Vec<_>>();
        let agreed = agree("a new primary", || {
            look(&views());
            let new = self.primary().ok().filter(|new| new.port() != port);
            // The one that leads the fail-over names the new primary before it has ended, and can name the old one again.
            new.is_some_and(|new| {
                let settled = (new.port().to_string(), "master".to_owned());
                role(new, &["master"]) && views().iter().all(|view| *view == settled)
            })
        });
        agreed.map_err(|late| Error::new(format!("{late}; the sentinels see {:?}", views())))
    }
}

/// The port of the primary, according to a sentinel.
fn named(sentinel: &Redis) -> Option<String> {
    let answer = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
    Some(answer.ok()?.items()?.get(1)?.text()?.to_owned())
}

/// How many bytes a primary has given to its replicas.
fn written(primary: &Redis) -> Option<i64> {
    primary.command(&["ROLE"]).ok()?.items()?.get(1)?.int()
}

/// How many bytes of its primary's a replica has.
fn received(replica: &Redis) -> Option<i64> {
    replica.command(&["ROLE"]).ok()?.items()?.get(4)?.int()
}

/// Whether the answer to `ROLE` begins so; a number between the texts does not count.
fn role(server: &Redis, expected: &[&str]) -> bool {
    let Ok(answer) = server.command(&["ROLE"]) else {
        return false;
    };
    let text = |item: &Reply| match item {
        Reply::Int(number) => number.to_string(),
        other => other.text().unwrap_or_default().to_owned(),
    };
    let items = answer.items().unwrap_or_default();
    items.len() >= expected.len()
        && items
            .iter()
            .zip(expected)
            .all(|(item, text_of)| text(item) == *text_of)
}

/// Whether a sentinel sees the primary, the replica and the other sentinels well.
fn could_fail_over(sentinel: &Redis) -> bool {
    let ask = |what: &str| sentinel.command(&["SENTINEL", what, NAME]).ok();
    let primary = ask("MASTER").unwrap_or(Reply::Nil);
    let others = (SENTINELS - 1).to_string();
    let Some(Reply::Array(replicas)) = ask("REPLICAS") else {
        return false;
    };
    primary.field("flags") == Some("master")
        && primary.field("num-other-sentinels") == Some(&others)
        && matches!(replicas.as_slice(), [replica]
            if replica.field("flags") == Some("slave")
                && replica.field("master-link-status") == Some("ok"))
        && sentinel.command(&["SENTINEL", "CKQUORUM", NAME]).is_ok()
}
