//! Real message brokers as child processes, for tests.
//!
//! Each broker is one type over the same [process](Process) underneath: it runs on 127.0.0.1 on a free port, in a
//! temporary folder of its own, with null stdin and its output in a log file; it can be killed, stopped, frozen, wiped
//! and started again on the same port. The lab signals only processes that it started, by their pid, and none outlives
//! the test: not after a panic, and not after the test process itself is killed.
//!
//! All methods block for some milliseconds; a missing program is an error that says how to install it.
//!
//! ```no_run
//! # fn main() -> socketioxide_broker_lab::Result<()> {
//! let redis = socketioxide_broker_lab::Redis::start()?;
//! println!("{}", redis.url());
//! redis.kill()?;
//! redis.restart()?;
//! # Ok(())
//! # }
//! ```

mod broker;
mod error;
mod nats;
mod port;
mod process;
mod rabbitmq;
mod redis;
mod tls;

pub use self::{
    broker::{Broker, start},
    error::{Error, Result},
    nats::{Nats, NatsBuilder},
    process::Process,
    rabbitmq::{RabbitMq, RabbitMqBuilder},
    redis::{
        ClientKind, Redis, RedisBuilder, RedisCluster, RedisClusterBuilder, RedisSentinel,
        RedisSentinelBuilder, Reply,
    },
    tls::Certificates,
};
