//! The conformance suite on a primary with a replica and three sentinels. A restart of the broker is a fail-over.

#[path = "common/gate.rs"]
mod gate;

use std::{process::ExitCode, sync::Arc, time::Duration};

use async_trait::async_trait;
use gate::{PASSWORD, Servers, UserGate};
use socketioxide_adapter_conformance::{Ability, Faults, Gate, Lab, LabResult};
use socketioxide_adapter_core::{backend::BackendUrl, transport::Transport};
use socketioxide_adapter_redis::RedisConfig;
use socketioxide_broker_lab::{Redis, RedisSentinel};
use tokio::task::block_in_place;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || {
        Ok(SentinelLab(Arc::new(RedisSentinel::start()?)))
    })
}

struct SentinelLab(Arc<RedisSentinel>);

impl Servers for RedisSentinel {
    fn servers(&self) -> Vec<&Redis> {
        self.servers().iter().collect()
    }
}

impl SentinelLab {
    fn config(&self, prefix: &str) -> LabResult<RedisConfig> {
        let mut config = RedisConfig::from_url(BackendUrl::parse(&self.0.url())?)?;
        config.endpoint = config.endpoint.with_prefix(prefix);
        Ok(config)
    }
}

#[async_trait]
impl Lab for SentinelLab {
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
        let config = self.config(prefix)?;
        Ok(Arc::new(config.connect().await?))
    }

    fn has_gates(&self) -> bool {
        true
    }

    async fn connect_gated(&self, prefix: &str) -> LabResult<(Arc<dyn Transport>, Box<dyn Gate>)> {
        let (gate, user) = UserGate::new(&self.0)?;
        let mut config = self.config(prefix)?;
        config.endpoint = config.endpoint.with_credentials(user, PASSWORD);
        let transport = config.connect().await?;
        Ok((Arc::new(transport), Box::new(gate)))
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }

    /// A fail-over takes the sentinels two seconds or more.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

#[async_trait]
impl Faults for SentinelLab {
    fn abilities(&self) -> &[Ability] {
        &[
            Ability::Restart,
            Ability::Stop,
            Ability::Freeze,
            Ability::Cut,
            Ability::Wipe,
            Ability::FailOver,
        ]
    }

    async fn restore(&self) -> LabResult {
        block_in_place(|| Ok(self.0.heal()?))
    }

    async fn restart(&self) -> LabResult {
        block_in_place(|| {
            self.0.kill_primary()?;
            Ok(self.0.heal()?)
        })
    }

    async fn stop(&self) -> LabResult {
        block_in_place(|| Ok(self.0.servers().iter().try_for_each(|it| it.kill())?))
    }

    async fn start(&self) -> LabResult {
        self.restore().await
    }

    async fn freeze(&self) -> LabResult {
        Ok(self.0.servers().iter().try_for_each(|it| it.freeze())?)
    }

    async fn thaw(&self) -> LabResult {
        Ok(self.0.servers().iter().try_for_each(|it| it.thaw())?)
    }

    async fn cut(&self) -> LabResult {
        block_in_place(|| {
            // In one command, or a quick client would be cut twice. The lab itself comes over the unix socket.
            let primary = self.0.primary()?;
            let address = format!("127.0.0.1:{}", primary.port());
            primary.command(&["CLIENT", "KILL", "LADDR", &address])?;
            Ok(())
        })
    }

    async fn wipe(&self) -> LabResult {
        self.stop().await?;
        block_in_place(|| self.0.servers().iter().try_for_each(|it| it.wipe()))?;
        self.start().await
    }

    async fn fail_over(&self) -> LabResult {
        block_in_place(|| Ok(self.0.fail_over()?))
    }
}
