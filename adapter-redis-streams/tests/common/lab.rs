//! A Redis that writes its logs to disk, for the conformance suite.
#![allow(dead_code)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use socketioxide_adapter_conformance::{Ability, Faults, Lab, LabResult};
use socketioxide_adapter_core::{backend::BackendUrl, transport::Transport};
use socketioxide_adapter_redis_streams::{Retention, StreamsConfig};
use socketioxide_broker_lab::Redis;
use tokio::task::block_in_place;

pub(crate) struct RedisLab {
    redis: Redis,
    options: &'static str,
    abilities: &'static [Ability],
    /// Entries per log; 0: as the options say.
    retained: AtomicU64,
}

const ABILITIES: [Ability; 6] = [
    Ability::Restart,
    Ability::Stop,
    Ability::Freeze,
    Ability::Cut,
    Ability::Wipe,
    Ability::Retain,
];

impl RedisLab {
    /// A log for each namespace; the rest goes by Pub/Sub.
    pub(crate) fn own_logs() -> LabResult<Self> {
        Self::start("", &ABILITIES)
    }

    /// Two logs that everything goes through. What they keep cannot be limited by topic.
    pub(crate) fn shared_logs() -> LabResult<Self> {
        let options = "?streams=2&ephemeral=log&max_age=600s";
        // All but the last.
        Self::start(options, &ABILITIES[..5])
    }

    fn start(options: &'static str, abilities: &'static [Ability]) -> LabResult<Self> {
        Ok(Self {
            // Logs are trimmed in steps of a node, which is 100 entries by default.
            redis: Redis::builder()
                .append_only()
                .config("stream-node-max-entries 20")
                .start()?,
            options,
            abilities,
            retained: AtomicU64::new(0),
        })
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.redis.port()).into()
    }
}

#[async_trait]
impl Lab for RedisLab {
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
        self.connect_via(prefix, self.address()).await
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }

    fn endpoint(&self) -> Option<SocketAddr> {
        Some(self.address())
    }

    async fn connect_via(
        &self,
        prefix: &str,
        endpoint: SocketAddr,
    ) -> LabResult<Arc<dyn Transport>> {
        let url = BackendUrl::parse(&format!("redis+streams://{endpoint}{}", self.options))?;
        let mut config = StreamsConfig::from_url(url)?;
        config.redis.endpoint.prefix = prefix.to_owned();
        match self.retained.load(Ordering::Relaxed) {
            0 => {}
            retained => config.retention = Retention::Length(retained),
        }
        Ok(Arc::new(config.connect().await?))
    }
}

#[async_trait]
impl Faults for RedisLab {
    fn abilities(&self) -> &[Ability] {
        self.abilities
    }

    async fn restore(&self) -> LabResult {
        self.retained.store(0, Ordering::Relaxed);
        block_in_place(|| {
            // Fails if the server is not running; then it is started below.
            let _ = self.redis.thaw();
            match self.redis.command(&["PING"]) {
                Ok(_) => Ok(()),
                Err(_) => Ok(self.redis.restart()?),
            }
        })
    }

    async fn restart(&self) -> LabResult {
        block_in_place(|| {
            self.redis.kill()?;
            Ok(self.redis.restart()?)
        })
    }

    async fn stop(&self) -> LabResult {
        block_in_place(|| Ok(self.redis.kill()?))
    }

    async fn start(&self) -> LabResult {
        block_in_place(|| Ok(self.redis.restart()?))
    }

    async fn freeze(&self) -> LabResult {
        Ok(self.redis.freeze()?)
    }

    async fn thaw(&self) -> LabResult {
        Ok(self.redis.thaw()?)
    }

    async fn cut(&self) -> LabResult {
        // In one command, or a quick client would be cut twice. The lab itself comes over the unix socket.
        let address = self.address().to_string();
        block_in_place(|| self.redis.command(&["CLIENT", "KILL", "LADDR", &address]))?;
        Ok(())
    }

    async fn wipe(&self) -> LabResult {
        block_in_place(|| {
            self.redis.kill()?;
            self.redis.wipe()?;
            Ok(self.redis.restart()?)
        })
    }

    async fn retain(&self, payloads: u64) -> LabResult {
        self.retained.store(payloads, Ordering::Relaxed);
        Ok(())
    }
}
