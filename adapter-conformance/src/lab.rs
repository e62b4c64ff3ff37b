//! What a transport author provides: a broker, transports connected to it, and faults.

use std::{error::Error, fmt, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use socketioxide_adapter_core::transport::Transport;

use crate::proxy::Proxy;

/// [`Lab::patience`] by default.
pub(crate) const USUAL_PATIENCE: Duration = Duration::from_secs(10);

/// Why a lab could not do what it was asked to.
pub type LabError = Box<dyn Error + Send + Sync>;

/// Result of the methods of a lab.
pub type LabResult<T = ()> = Result<T, LabError>;

/// One running broker and the way to connect to it. Dropping it must stop what it started.
#[async_trait]
pub trait Lab: Send + Sync + 'static {
    /// Connects a new node; resolves once its link is up. Transports with the same `prefix` are one cluster, others must
    /// not notice each other.
    ///
    /// The tasks of the transport must run on the runtime that calls.
    async fn connect(&self, prefix: &str) -> LabResult<Arc<dyn Transport>>;

    /// The faults that the lab can cause; `None` if none.
    fn faults(&self) -> Option<&dyn Faults> {
        None
    }

    /// The longest that any call of the transport may take, whatever the broker does. Default 6 s: the backends' 5 s and
    /// some slack for a busy machine.
    fn call_deadline(&self) -> Duration {
        Duration::from_secs(6)
    }

    /// How long the suite waits for something that ought to come at once, such as a payload on a healthy link or the first
    /// session after a fault. Default 10 s: enough for a busy machine. A lab whose broker takes seconds to start needs more; it
    /// is given fewer faults of each kind in return, except in a soak.
    fn patience(&self) -> Duration {
        USUAL_PATIENCE
    }

    /// Where the broker listens, if clients reach it over one TCP address, so that the suite can put a proxy in between.
    fn endpoint(&self) -> Option<SocketAddr> {
        None
    }

    /// Like [`connect`](Self::connect), but to the broker at `endpoint`, which is a proxy in front of
    /// [`endpoint()`](Self::endpoint). Asked for only where that is `Some`.
    async fn connect_via(
        &self,
        prefix: &str,
        endpoint: SocketAddr,
    ) -> LabResult<Arc<dyn Transport>> {
        let _ = (prefix, endpoint);
        Err("this lab cannot connect through a proxy".into())
    }

    /// Whether [`connect_gated`](Self::connect_gated) works. Default: where there is an [`endpoint`](Self::endpoint).
    fn has_gates(&self) -> bool {
        self.endpoint().is_some()
    }

    /// Like [`connect`](Self::connect), with a gate in the way of this node alone. Default: a [`Proxy`] in front of
    /// [`endpoint`](Self::endpoint).
    async fn connect_gated(&self, prefix: &str) -> LabResult<(Arc<dyn Transport>, Box<dyn Gate>)> {
        let broker = self.endpoint().ok_or("this lab has no gates")?;
        let proxy = Proxy::start(broker, 0).await?;
        let transport = self.connect_via(prefix, proxy.address()).await?;
        Ok((transport, Box::new(proxy)))
    }
}

/// A gate in the way of one node to the broker.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Breaks the connections of the node and lets it make no new ones.
    async fn shut(&self) -> LabResult;

    /// Lets the node connect again.
    async fn open(&self) -> LabResult;
}

#[async_trait]
impl Gate for Proxy {
    async fn shut(&self) -> LabResult {
        Self::shut(self);
        Ok(())
    }

    async fn open(&self) -> LabResult {
        Self::open(self);
        Ok(())
    }
}

/// One kind of fault that a lab may be able to cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// [`Faults::restart`].
    Restart,
    /// [`Faults::stop`] and [`Faults::start`].
    Stop,
    /// [`Faults::freeze`] and [`Faults::thaw`].
    Freeze,
    /// [`Faults::cut`].
    Cut,
    /// [`Faults::wipe`].
    Wipe,
    /// [`Faults::retain`].
    Retain,
    /// [`Faults::fail_over`].
    FailOver,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "restart the broker",
            Self::Stop => "stop and start the broker",
            Self::Freeze => "freeze the broker",
            Self::Cut => "cut the connections at the broker",
            Self::Wipe => "wipe the broker's data",
            Self::Retain => "limit what the broker retains",
            Self::FailOver => "make another server take over",
        })
    }
}

/// Makes the broker fail. Each method resolves once the fault has happened; a broker that is back accepts connections.
///
/// Implement the methods that [`abilities`](Self::abilities) names; only those are called. Cases that use faults have the
/// broker for themselves.
#[async_trait]
pub trait Faults: Send + Sync {
    /// What this lab can do.
    fn abilities(&self) -> &[Ability];

    /// Brings the broker back to normal from any state: running, thawed, accepting connections. Called after every case
    /// that uses faults, whether it passed or not.
    async fn restore(&self) -> LabResult;

    /// Kills the broker as hard as possible (`kill -9`) and starts it again at the same address with its data.
    async fn restart(&self) -> LabResult {
        unsupported(Ability::Restart)
    }

    /// Ends the broker, so that connections break and new ones are refused.
    async fn stop(&self) -> LabResult {
        unsupported(Ability::Stop)
    }

    /// Starts the broker again at the same address with its data.
    async fn start(&self) -> LabResult {
        unsupported(Ability::Stop)
    }

    /// Halts the broker's processes (`SIGSTOP`): connections stay, nothing answers.
    async fn freeze(&self) -> LabResult {
        unsupported(Ability::Freeze)
    }

    /// Lets a frozen broker go on (`SIGCONT`).
    async fn thaw(&self) -> LabResult {
        unsupported(Ability::Freeze)
    }

    /// Closes every client connection at the broker, which keeps running; clients may come back at once.
    async fn cut(&self) -> LabResult {
        unsupported(Ability::Cut)
    }

    /// Restarts the broker without its data.
    async fn wipe(&self) -> LabResult {
        unsupported(Ability::Wipe)
    }

    /// Limits what the broker retains of each topic, in clusters whose first node connects from now on and until
    /// [`restore`](Self::restore): at least so many small payloads, and less than ten times as many.
    async fn retain(&self, payloads: u64) -> LabResult {
        let _ = payloads;
        unsupported(Ability::Retain)
    }

    /// Makes another server of the broker take over from the one that clients are connected to.
    async fn fail_over(&self) -> LabResult {
        unsupported(Ability::FailOver)
    }
}

fn unsupported(ability: Ability) -> LabResult {
    Err(format!("this lab cannot {ability}").into())
}
