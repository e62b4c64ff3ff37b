//! A RabbitMQ for the conformance suite, also for that of RabbitMQ streams.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use socketioxide_adapter_amqp::{Address, Config, Endpoint, Limits, Source};
use socketioxide_adapter_conformance::{Ability, Faults, Lab, LabResult};
use socketioxide_adapter_core::transport::Transport;
use socketioxide_broker_lab::RabbitMq;
use tokio::task::block_in_place;

/// Runs the suite for nodes that read from `source`, which `retain` makes so small that it holds about so many small
/// payloads.
pub(crate) fn main<S: Source>(
    server: fn() -> socketioxide_broker_lab::Result<RabbitMq>,
    source: S,
    retain: fn(&mut S, u64),
) -> ExitCode {
    let lab = async || {
        Ok(RabbitLab {
            server: server()?,
            source,
            retain,
            retained: AtomicU64::new(0),
        })
    };
    socketioxide_adapter_conformance::main(lab)
}

struct RabbitLab<S> {
    server: RabbitMq,
    source: S,
    retain: fn(&mut S, u64),
    /// How many small payloads the queues and streams of the next clusters hold at least; 0 for the defaults.
    retained: AtomicU64,
}

impl<S: Source> RabbitLab<S> {
    fn source(&self) -> S {
        let retained = self.retained.load(Ordering::Relaxed);
        let mut source = self.source.clone();
        if retained > 0 {
            (self.retain)(&mut source, retained);
        }
        source
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.server.port()).into()
    }
}

#[async_trait]
impl<S: Source> Lab for RabbitLab<S> {
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
        self.connect_via(prefix, self.address()).await
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }

    /// After its start RabbitMQ is busy for a while.
    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn endpoint(&self) -> Option<SocketAddr> {
        Some(self.address())
    }

    async fn connect_via(
        &self,
        prefix: &str,
        endpoint: SocketAddr,
    ) -> LabResult<Arc<dyn Transport>> {
        let address = Address::new(endpoint.ip().to_string(), endpoint.port());
        let endpoint = Endpoint::new(address)
            .with_prefix(prefix)
            // Below the deadline of calls that the suite knows. Each binding of a durable queue is a transaction on the
            // broker's disk, and a case asks for hundreds at once.
            .with_limits(Limits::default().with_timeout(Duration::from_secs(5)));
        let config = Config::new(endpoint).with_source(self.source());
        Ok(Arc::new(config.connect().await?))
    }
}

#[async_trait]
impl<S: Source> Faults for RabbitLab<S> {
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
        self.retained.store(0, Ordering::Relaxed);
        block_in_place(|| {
            if self.server.is_running() {
                return Ok(self.server.thaw()?);
            }
            Ok(self.server.restart()?)
        })
    }

    async fn restart(&self) -> LabResult {
        block_in_place(|| {
            self.server.kill()?;
            Ok(self.server.restart()?)
        })
    }

    async fn stop(&self) -> LabResult {
        block_in_place(|| Ok(self.server.kill()?))
    }

    async fn start(&self) -> LabResult {
        block_in_place(|| Ok(self.server.restart()?))
    }

    async fn freeze(&self) -> LabResult {
        Ok(self.server.freeze()?)
    }

    async fn thaw(&self) -> LabResult {
        Ok(self.server.thaw()?)
    }

    async fn cut(&self) -> LabResult {
        block_in_place(|| Ok(self.server.close_connections()?))
    }

    async fn wipe(&self) -> LabResult {
        block_in_place(|| {
            self.server.kill()?;
            self.server.wipe()?;
            Ok(self.server.restart()?)
        })
    }

    async fn retain(&self, payloads: u64) -> LabResult {
        self.retained.store(payloads, Ordering::Relaxed);
        Ok(())
    }
}
