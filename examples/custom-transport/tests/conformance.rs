//! The conformance suite, on a hub that is killed, frozen and cut.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use socketioxide_adapter_conformance::{Ability, Faults, Lab, LabResult};
use socketioxide_adapter_core::{backend::Endpoint, socket::Address, transport::Transport};

fn main() -> ExitCode {
    socketioxide_adapter_conformance::main(async || HubLab::start())
}

/// A hub in a process of its own.
struct HubLab {
    address: SocketAddr,
    hub: Mutex<Child>,
}

impl HubLab {
    fn start() -> LabResult<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Ok(Self {
            address: free,
            hub: Mutex::new(spawn(free)?),
        })
    }

    /// Sends a signal to the hub.
    fn signal(&self, signal: &str) -> LabResult {
        let hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = Command::new("kill")
            .args([signal, &hub.id().to_string()])
            .stderr(Stdio::null())
            .status()?;
        sent.success()
            .then_some(())
            .ok_or_else(|| "the hub is not running".into())
    }

    fn kill(&self) -> LabResult {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        hub.kill()?;
        hub.wait()?;
        Ok(())
    }

    fn start_again(&self) -> LabResult {
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        *hub = spawn(self.address)?;
        Ok(())
    }
}

/// Starts a hub and waits until it accepts connections.
fn spawn(address: SocketAddr) -> LabResult<Child> {
    let mut hub = Command::new(env!("CARGO_BIN_EXE_hub"))
        .arg(address.to_string())
        .spawn()?;
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if let Some(status) = hub.try_wait()? {
            return Err(format!("the hub ended: {status}").into());
        }
        if start.elapsed() > Duration::from_secs(10) {
            hub.kill()?;
            return Err("the hub does not accept connections".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(hub)
}

impl Drop for HubLab {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

#[async_trait]
impl Lab for HubLab {
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>> {
        self.connect_via(prefix, self.address).await
    }

    fn endpoint(&self) -> Option<SocketAddr> {
        Some(self.address)
    }

    async fn connect_via(
        &self,
        prefix: &str,
        endpoint: SocketAddr,
    ) -> LabResult<Arc<dyn Transport>> {
        let address = Address::new(endpoint.ip().to_string(), endpoint.port());
        let endpoint = Endpoint::new(address).with_prefix(prefix);
        Ok(Arc::new(custom_transport::connect(endpoint).await?))
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for HubLab {
    fn abilities(&self) -> &[Ability] {
        &[
            Ability::Restart,
            Ability::Stop,
            Ability::Freeze,
            Ability::Cut,
        ]
    }

    async fn restore(&self) -> LabResult {
        // Fails if it is not running.
        if self.signal("-CONT").is_err() {
            self.start_again()?;
        }
        Ok(())
    }

    async fn restart(&self) -> LabResult {
        self.kill()?;
        self.start_again()
    }

    async fn stop(&self) -> LabResult {
        self.kill()
    }

    async fn start(&self) -> LabResult {
        self.start_again()
    }

    async fn freeze(&self) -> LabResult {
        self.signal("-STOP")
    }

    async fn thaw(&self) -> LabResult {
        self.signal("-CONT")
    }

    async fn cut(&self) -> LabResult {
        self.signal("-HUP")
    }
}
