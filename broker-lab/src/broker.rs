//! What every broker of the lab can do, and how to start one by the scheme of its URL.

use crate::{
    error::{Error, Result},
    nats::{Nats, NatsBuilder},
    rabbitmq::RabbitMq,
    redis::{Redis, RedisBuilder, RedisCluster, RedisSentinel},
};

/// A running broker of any kind. Dropping it kills it.
pub trait Broker: Send {
    /// Where it listens; the same after every restart. Its scheme is the one the broker was started by.
    fn url(&self) -> String;

    /// Kills it at once (SIGKILL).
    ///
    /// # Errors
    /// If it is not running.
    fn kill(&self) -> Result<()>;

    /// Starts it again after [`kill`](Self::kill), on the same port and with its data; returns once it takes connections.
    ///
    /// # Errors
    /// If it is running, or does not start.
    fn restart(&self) -> Result<()>;

    /// Freezes it (SIGSTOP): connections stay open, nothing is answered.
    ///
    /// # Errors
    /// If it is not running.
    fn freeze(&self) -> Result<()>;

    /// Lets it run on (SIGCONT).
    ///
    /// # Errors
    /// If it is not running.
    fn thaw(&self) -> Result<()>;

    /// Lets another server take the place of the one that serves, while both are alive; returns once it has.
    ///
    /// # Errors
    /// If there is no other.
    fn fail_over(&self) -> Result<()> {
        Err(Error::new("this broker has no server in reserve"))
    }
}

type Start = fn(scheme: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>>;

/// The brokers by the schemes of their URLs; a row for each.
const BROKERS: &[(&str, Start)] = &[
    ("redis", redis),
    ("redis+streams", redis_with_disk),
    ("redis+sentinel", sentinel),
    ("redis+cluster", cluster),
    ("nats", nats),
    ("nats+jetstream", jetstream),
    ("amqp", rabbitmq),
    ("amqp+streams", rabbitmq),
];

/// Starts the broker of the URL scheme `scheme`, with `password` for its clients if there is one.
///
/// # Errors
/// If no broker has that scheme, if its program is missing, or if it does not start.
pub fn start(scheme: &str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    match BROKERS.iter().find(|(known, _)| *known == scheme) {
        Some((scheme, start)) => start(scheme, password),
        None => {
            let known: Vec<&str> = BROKERS.iter().map(|(known, _)| *known).collect();
            let known = known.join(", ");
            Err(Error::new(format!(
                "no broker has the scheme {scheme:?}, expected one of {known}"
            )))
        }
    }
}

fn redis(scheme: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    started_redis(scheme, password, Redis::builder())
}

/// A log is worth little on a server that forgets it.
fn redis_with_disk(scheme: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    started_redis(scheme, password, Redis::builder().append_only())
}

fn started_redis(
    scheme: &'static str,
    password: Option<&str>,
    mut builder: RedisBuilder,
) -> Result<Box<dyn Broker>> {
    if let Some(password) = password {
        builder = builder.password(password);
    }
    let broker = builder.start()?;
    Ok(Box::new(Named { scheme, broker }))
}

fn nats(scheme: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    started_nats(scheme, password, Nats::builder())
}

fn jetstream(scheme: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    started_nats(scheme, password, Nats::builder().jetstream())
}

fn started_nats(
    scheme: &'static str,
    password: Option<&str>,
    mut builder: NatsBuilder,
) -> Result<Box<dyn Broker>> {
    if let Some(password) = password {
        builder = builder.password("lab", password);
    }
    let broker = builder.start()?;
    Ok(Box::new(Named { scheme, broker }))
}

fn rabbitmq(scheme: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    let mut builder = RabbitMq::builder();
    if let Some(password) = password {
        builder = builder.user("lab", password);
    }
    if scheme == "amqp+streams" {
        builder = builder.streams();
    }
    let broker = builder.start()?;
    Ok(Box::new(Named { scheme, broker }))
}

/// A broker whose URL has another scheme than it gives itself.
struct Named<B> {
    scheme: &'static str,
    broker: B,
}

/// All brokers of the lab have the same methods.
macro_rules! broker {
    ($($type:ty),+) => {$(
        impl Broker for Named<$type> {
            fn url(&self) -> String {
                with_scheme(self.scheme, &self.broker.url())
            }
            fn kill(&self) -> Result<()> {
                self.broker.kill()
            }
            fn restart(&self) -> Result<()> {
                self.broker.restart()
            }
            fn freeze(&self) -> Result<()> {
                self.broker.freeze()
            }
            fn thaw(&self) -> Result<()> {
                self.broker.thaw()
            }
        }
    )+};
}

broker!(Redis, Nats, RabbitMq);

/// The URL names no password: it would be one more option of it.
fn sentinel(_: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    match password {
        Some(_) => Err(Error::new("redis+sentinel is started without a password")),
        None => Ok(Box::new(RedisSentinel::start()?)),
    }
}

/// Its primary dies; the sentinels replace it, and `restart` brings it back as the replica.
impl Broker for RedisSentinel {
    fn url(&self) -> String {
        self.url()
    }
    fn kill(&self) -> Result<()> {
        self.primary()?.kill()
    }
    fn restart(&self) -> Result<()> {
        self.heal()
    }
    fn freeze(&self) -> Result<()> {
        self.servers().iter().try_for_each(Redis::freeze)
    }
    fn thaw(&self) -> Result<()> {
        self.servers().iter().try_for_each(Redis::thaw)
    }
    fn fail_over(&self) -> Result<()> {
        self.fail_over()
    }
}

fn cluster(_: &'static str, password: Option<&str>) -> Result<Box<dyn Broker>> {
    let builder = RedisCluster::builder().replicas();
    let builder = match password {
        Some(password) => builder.password(password),
        None => builder,
    };
    Ok(Box::new(builder.start()?))
}

/// The channel of the namespace "/", whose master it is that dies or is replaced.
const CHANNEL: &str = "socketioxide:ns/";

impl Broker for RedisCluster {
    fn url(&self) -> String {
        self.url()
    }
    fn kill(&self) -> Result<()> {
        self.master(self.slot(CHANNEL)?)?.kill()
    }
    fn restart(&self) -> Result<()> {
        self.heal()
    }
    fn freeze(&self) -> Result<()> {
        self.servers().try_for_each(Redis::freeze)
    }
    fn thaw(&self) -> Result<()> {
        self.servers().try_for_each(Redis::thaw)
    }
    fn fail_over(&self) -> Result<()> {
        self.fail_over(self.slot(CHANNEL)?)
    }
}

/// `url` with another scheme.
fn with_scheme(scheme: &str, url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    format!("{scheme}://{rest}")
}
