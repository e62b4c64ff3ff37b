//! The bus as a value: connect transports to it, and make it fail on purpose.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{MemoryTransport, courier::Courier, faults::Faults, state::State};
use crate::transport::{BufferLimits, link};

/// How long a call waits for a frozen bus by default, as the network transports do for their brokers.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What the transports of one bus share. Its lock is never held while waiting, and no user code runs under it.
#[derive(Debug)]
pub(super) struct Core {
    state: Mutex<State>,
    courier: Courier,
    pub(super) call_timeout: Duration,
}

impl Core {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the courier look after payloads that are on their way, if there are any. Returns whether somebody does.
    pub(super) fn send_off(self: &Arc<Self>) -> bool {
        !self.state().needs_courier() || self.courier.call(Arc::downgrade(self))
    }
}

/// An in-process broker. Clones are handles of the same bus.
///
/// Without faults a payload is in the buffer of every subscriber when `publish` returns, in one order for all.
#[derive(Clone)]
pub struct MemoryBus {
    core: Arc<Core>,
}

impl MemoryBus {
    /// Makes a running bus that nobody else can reach: no name is involved.
    pub fn new() -> Self {
        Self::with_call_timeout(CALL_TIMEOUT)
    }

    /// Like [`new`](Self::new), where calls wait at most `timeout` for a frozen bus. Default 5 s.
    pub fn with_call_timeout(timeout: Duration) -> Self {
        Self::from_core(Arc::new(Core {
            state: Mutex::new(State::new()),
            courier: Courier::default(),
            call_timeout: timeout,
        }))
    }

    pub(super) const fn from_core(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(super) const fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Connects one more node. If the bus is stopped, its link comes up with [`start`](Self::start).
    pub fn connect(&self) -> MemoryTransport {
        self.connect_with(BufferLimits::default())
    }

    /// Connects one more node, each of whose subscriptions holds at most `limits` for a slow reader.
    pub fn connect_with(&self, limits: BufferLimits) -> MemoryTransport {
        let (sender, watch) = link();
        let number = self.core.state().connect(sender, limits);
        MemoryTransport::new(self.core.clone(), number, watch)
    }

    /// Stops the bus like a broker that is killed: every link goes down, what is on its way is lost, and publishes fail
    /// at once with [`ErrorKind::LinkDown`](crate::ErrorKind::LinkDown).
    pub fn stop(&self) {
        self.core.state().stop();
    }

    /// Starts a stopped bus: every subscription yields `Resumed(Unknown)`, as with a broker that keeps nothing, and every
    /// link that is not cut goes up.
    pub fn start(&self) {
        self.core.state().start();
    }

    /// Freezes the bus like a broker whose process is halted: links stay up, but calls wait, until
    /// [`thaw`](Self::thaw) or their deadline.
    pub fn freeze(&self) {
        self.core.state().freeze();
    }

    /// Lets a frozen bus go on: the publishes that wait are carried out in order, given up or not.
    pub fn thaw(&self) {
        self.core.state().thaw();
        self.core.send_off();
    }

    /// Sets the faults of every way from now on; `None` ends them. What is on its way stays so.
    pub fn set_faults(&self, faults: impl Into<Option<Faults>>) {
        self.core.state().set_faults(faults.into());
    }
}

impl Default for MemoryBus {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBus").finish_non_exhaustive()
    }
}
