//! The conformance suite on a real Redis.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use async_trait::async_trait;
use socketioxide_adapter_conformance::{Ability, Faults, Lab, LabResult};
use socketioxide_adapter_core::{backend::BackendUrl, transport::Transport};
use socketioxide_adapter_redis::RedisConfig;
use socketioxide_broker_lab::Redis;
use tokio::task::block_in_place;

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || Ok(RedisLab(Redis::start()?)))
}

struct RedisLab(Redis);

impl RedisLab {
    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0.port()).into()
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
        let url = BackendUrl::parse(&format!("redis://{endpoint}"))?;
        let mut config = RedisConfig::from_url(url)?;
        config.endpoint = config.endpoint.with_prefix(prefix);
        Ok(Arc::new(config.connect().await?))
    }
}

#[async_trait]
impl Faults for RedisLab {
    fn abilities(&self) -> &[Ability] {
        &[
            Ability::Restart,
            Ability::Stop,
            Ability::Freeze,
            Ability::Cut,
            Ability::Wipe,
        ]
    }

    async fn restore(&self) -> LabResult {
        block_in_place(|| {
            // Fails if the server is not running; then it is started below.
            let _ = self.0.thaw();
            match self.0.command(&["PING"]) {
                Ok(_) => Ok(()),
                Err(_) => Ok(self.0.restart()?),
            }
        })
    }

    async fn restart(&self) -> LabResult {
        block_in_place(|| {
            self.0.kill()?;
            Ok(self.0.restart()?)
        })
    }

    async fn stop(&self) -> LabResult {
        block_in_place(|| Ok(self.0.kill()?))
    }

    async fn start(&self) -> LabResult {
        block_in_place(|| Ok(self.0.restart()?))
    }

    async fn freeze(&self) -> LabResult {
        Ok(self.0.freeze()?)
    }

    async fn thaw(&self) -> LabResult {
        Ok(self.0.thaw()?)
    }

    async fn cut(&self) -> LabResult {
        // In one command, or a quick client would be cut twice. The lab itself comes over the unix socket.
        let address = self.address().to_string();
        block_in_place(|| self.0.command(&["CLIENT", "KILL", "LADDR", &address]))?;
        Ok(())
    }

    async fn wipe(&self) -> LabResult {
        block_in_place(|| {
            self.0.kill()?;
            self.0.wipe()?;
            Ok(self.0.restart()?)
        })
    }
}
