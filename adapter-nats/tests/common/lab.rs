//! A nats-server for the conformance suite, with all faults it can have.
#![allow(dead_code)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use socketioxide_adapter_conformance::{Ability, Faults, Lab, LabResult};
use socketioxide_adapter_core::transport::Transport;
use socketioxide_adapter_nats::{LogConfig, NatsConfig, NatsTransport};
use socketioxide_broker_lab::Nats;
use tokio::{net::TcpStream, task::block_in_place};

pub(crate) struct NatsLab(Nats, Option<LogConfig>);

impl NatsLab {
    pub(crate) fn core() -> LabResult<Self> {
        Ok(Self(Nats::start()?, None))
    }

    pub(crate) fn jetstream() -> LabResult<Self> {
        let nats = Nats::builder().jetstream().start()?;
        Ok(Self(nats, Some(LogConfig::default())))
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.0.port()).into()
    }
}

#[async_trait]
impl Lab for NatsLab {
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
        let mut config = NatsConfig::new(endpoint.ip().to_string(), endpoint.port());
        config.log = self.1.clone();
        let transport = NatsTransport::connect(config.with_prefix(prefix)).await?;
        Ok(Arc::new(transport))
    }
}

#[async_trait]
impl Faults for NatsLab {
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
        // Fails if the server is not running; then it is started below.
        let _ = self.0.thaw();
        match TcpStream::connect(self.address()).await {
            Ok(_) => Ok(()),
            Err(_) => block_in_place(|| Ok(self.0.restart()?)),
        }
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
        block_in_place(|| Ok(self.0.cut()?))
    }

    async fn wipe(&self) -> LabResult {
        block_in_place(|| {
            self.0.kill()?;
            self.0.wipe()?;
            Ok(self.0.restart()?)
        })
    }
}
