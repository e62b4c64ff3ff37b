//! A nats-server for the conformance suite, with all faults it can have.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use socketioxide_adapter_conformance::{Ability, Faults, Lab, LabResult};
use socketioxide_adapter_core::{
    backend::{Backend, BackendUrl},
    transport::Transport,
};
use socketioxide_broker_lab::Nats;
use tokio::{net::TcpStream, task::block_in_place};

pub(crate) struct NatsLab {
    nats: Nats,
    backend: Backend,
    /// How many frames the streams keep that are made from now on.
    retained: AtomicI64,
}

impl NatsLab {
    pub(crate) fn new(nats: Nats, backend: Backend) -> Self {
        Self {
            nats,
            backend,
            retained: AtomicI64::new(-1),
        }
    }

    /// What an administrator would do: make the stream of the cluster before it starts, with a limit of its own. One that
    /// exists stays as it is.
    async fn limit(&self, prefix: &str) -> LabResult {
        let most = self.retained.load(Ordering::Relaxed);
        if self.backend.name != "jetstream" || most < 0 {
            return Ok(());
        }
        let client = async_nats::connect(self.address().to_string()).await?;
        let config =
            format!(r#"{{"name":"{prefix}","subjects":["{prefix}._ns.*"],"max_msgs":{most}}}"#);
        let create = format!("$JS.API.STREAM.CREATE.{prefix}");
        client.request(create, config.into()).await?;
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
        self.limit(prefix).await?;
        let scheme = self.backend.schemes[0];
        let prefix: String = prefix.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let url = format!("{scheme}://{endpoint}?prefix={prefix}");
        Ok((self.backend.connect)(BackendUrl::parse(&url)?).await?)
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
