//! What a transport declares about itself; each field is read by the core or judged by a conformance case.

/// How often a payload can reach a subscriber while nothing is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// Once or not at all: the broker keeps no copy for a subscriber that is away.
    AtMostOnce,
    /// Once or more: the broker keeps the payload until the subscriber has it, within its retention.
    AtLeastOnce,
}

/// What a subscription gets back of the time it was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replay {
    /// Nothing: what was published meanwhile is lost, and the core reports exactly how much.
    None,
    /// Everything the broker still retains, in order; what it no longer has is reported exactly.
    WithinRetention,
}

/// What a transport can do, declared by its implementation.
///
/// ```
/// use socketioxide_adapter_core::transport::{Capabilities, Delivery, Replay};
/// const CAPABILITIES: Capabilities = Capabilities::new(Delivery::AtMostOnce)
///     .with_confirms(true)
///     .with_max_payload(8 << 20);
/// assert_eq!(CAPABILITIES.replay, Replay::None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Delivery while nothing is cut off.
    pub delivery: Delivery,
    /// What comes back after a cut.
    pub replay: Replay,
    /// Whether an `Ok` of `publish` means that the broker has the payload. Default `false`.
    pub confirms: bool,
    /// Whether all subscribers see the payloads of *different* publishers on one topic in the same order. Default
    /// `false`. Order per publisher is no capability but part of the contract.
    pub total_order: bool,
    /// Largest payload in bytes that `publish` accepts. Default 1 MiB.
    pub max_payload: usize,
}

impl Capabilities {
    /// Capabilities with the given delivery and the defaults of the fields.
    pub const fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            replay: Replay::None,
            confirms: false,
            total_order: false,
            max_payload: 1 << 20,
        }
    }

    /// Sets what comes back after a cut.
    #[must_use]
    pub const fn with_replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    /// Sets whether `Ok` of `publish` means that the broker has the payload.
    #[must_use]
    pub const fn with_confirms(mut self, confirms: bool) -> Self {
        self.confirms = confirms;
        self
    }

    /// Sets whether all subscribers see all publishers in one order.
    #[must_use]
    pub const fn with_total_order(mut self, total_order: bool) -> Self {
        self.total_order = total_order;
        self
    }

    /// Sets the largest payload in bytes.
    #[must_use]
    pub const fn with_max_payload(mut self, max_payload: usize) -> Self {
        self.max_payload = max_payload;
        self
    }
}
