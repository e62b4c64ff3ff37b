//! A nats-server for the conformance suite, with all faults it can have.
#![allow(dead_code)]

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use socketioxide_adapter_conformance::{Ability, Faults, Lab, LabResult};
use socketioxide_adapter_core::transport::Transport;
use socketioxide_adapter_nats::{LogConfig, NatsConfig, NatsTransport};
use socketioxide_broker_lab::Nats;
use tokio::{net::TcpStream, task::block_in_place};

pub(crate) struct NatsLab {
    nats: Nats,
    log: Option<LogConfig>,
    /// How many frames the streams keep that are made from now on.
    retained: AtomicI64,
}

impl NatsLab {
    pub(crate) fn core() -> LabResult<Self> {
        Ok(Self::on(Nats::start()?, None))
    }

    pub(crate) fn jetstream() -> LabResult<Self> {
        let nats = Nats::builder().jetstream().start()?;
        Ok(Self::on(nats, Some(LogConfig::default())))
    }

    fn on(nats: Nats, log: Option<LogConfig>) -> Self {
        Self {
            nats,
            log,
            retained: AtomicI64::new(-1),
        }
    }

    /// What an administrator would do: make the stream of the cluster before it starts, with a limit of its own.
    #[cfg(feature = "jetstream")]
    async fn limit(&self, prefix: &str) -> LabResult {
        use async_nats::jetstream;
        let max_messages = self.retained.load(Ordering::Relaxed);
        if self.log.is_none() || max_messages < 0 {
            return Ok(());
        }
        let client = async_nats::connect(self.address().to_string()).await?;
        let config = jetstream::stream::Config {
            name: prefix.to_owned(),
            subjects: vec![format!("{prefix}._ns.*")],
            max_messages,
            ..Default::default()
        };
        jetstream::new(client).get_or_create_stream(config).await?;
        Ok(())
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.nats.port()).into()
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
        config.log = self.log.clone();
        #[cfg(feature = "jetstream")]
        self.limit(prefix).await?;
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
            #[cfg(feature = "jetstream")]
            Ability::Retain,
        ]
    }

    async fn restore(&self) -> LabResult {
        self.retained.store(-1, Ordering::Relaxed);
        // Fails if the server is not running; then it is started below.
        let _ = self.nats.thaw();
        match TcpStream::connect(self.address()).await {
            Ok(_) => Ok(()),
            Err(_) => block_in_place(|| Ok(self.nats.restart()?)),
        }
    }

    async fn restart(&self) -> LabResult {
        block_in_place(|| {
            self.nats.kill()?;
            Ok(self.nats.restart()?)
        })
    }

    async fn stop(&self) -> LabResult {
        block_in_place(|| Ok(self.nats.kill()?))
    }

    async fn start(&self) -> LabResult {
        block_in_place(|| Ok(self.nats.restart()?))
    }

    async fn freeze(&self) -> LabResult {
        Ok(self.nats.freeze()?)
    }

    async fn thaw(&self) -> LabResult {
        Ok(self.nats.thaw()?)
    }

    async fn cut(&self) -> LabResult {
        block_in_place(|| Ok(self.nats.cut()?))
    }

    async fn wipe(&self) -> LabResult {
        block_in_place(|| {
            self.nats.kill()?;
            self.nats.wipe()?;
            Ok(self.nats.restart()?)
        })
    }

    async fn retain(&self, payloads: u64) -> LabResult {
        self.retained.store(payloads.try_into()?, Ordering::Relaxed);
        Ok(())
    }
}
