//! The brokers of a run, and the processor time they use.

use std::fs;

use socketioxide_broker_lab::{Redis, Reply};

use crate::node::Result;

/// A Redis server of this run.
pub(crate) struct Broker {
    redis: Redis,
    pid: u64,
}

impl Broker {
    pub(crate) fn redis() -> Result<Self> {
        let redis = Redis::start().map_err(|error| error.to_string())?;
        let mut broker = Self { redis, pid: 0 };
        broker.pid = broker.info("process_id")?;
        Ok(broker)
    }

    pub(crate) fn url(&self) -> String {
        self.redis.url()
    }

    /// Deletes everything it keeps.
    pub(crate) fn empty(&self) -> Result<()> {
        let reply = self.redis.command(&["FLUSHALL", "SYNC"]);
        reply.map(drop).map_err(|error| error.to_string())
    }

    /// A number of Redis' INFO.
    pub(crate) fn info(&self, field: &str) -> Result<u64> {
        let reply = self.redis.command(&["INFO"]);
        let info = reply.map_err(|error| error.to_string())?;
        let lines = info.text().unwrap_or_default().lines();
        let mut values = lines.filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let value = values.next().and_then(|value| value.parse().ok());
        value.ok_or_else(|| format!("no {field} in INFO"))
    }

    /// Channels that somebody is subscribed to.
    pub(crate) fn channels(&self) -> usize {
        match self.redis.command(&["PUBSUB", "CHANNELS"]) {
            Ok(Reply::Array(channels)) => channels.len(),
            _ => 0,
        }
    }

    /// Processor time used so far by all threads that still run, in nanoseconds.
    pub(crate) fn cpu_nanos(&self) -> u64 {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.pid)) else {
            return 0;
        };
        let used = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            stat.split(' ').next()?.parse::<u64>().ok()
        });
        used.sum()
    }
}
