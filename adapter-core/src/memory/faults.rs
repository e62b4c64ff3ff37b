//! What goes wrong between the nodes of a bus, drawn from a seed.

use std::{collections::BTreeSet, ops::Range, time::Duration};

/// How long a reordered payload is held back at most when no delay is set.
const HOLD: Duration = Duration::from_millis(10);

/// Faults on the way from the bus to its subscribers, each decided per payload *and* subscriber.
///
/// The same seed, settings and sequence of publishes give the same faults. The bus does not report them: to the nodes
/// they are silent losses of a link that looks healthy. Set them with [`MemoryBus::set_faults`](super::MemoryBus::set_faults).
///
/// ```
/// use std::time::Duration;
/// use socketioxide_adapter_core::memory::{Faults, MemoryBus};
/// let bus = MemoryBus::new();
/// let delays = Duration::from_millis(5)..Duration::from_millis(50);
/// bus.set_faults(Faults::new(42).with_drop(0.01).with_delay(delays));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// Where the randomness comes from.
    pub seed: u64,
    /// Probability that a payload is lost. Default 0.
    pub drop: f64,
    /// Probability that a payload arrives twice; the copy has a delay of its own. Default 0.
    pub duplicate: f64,
    /// Probability that a payload is held back so that later ones overtake it: for up to the longest delay, or 10 ms if
    /// that is more. Default 0.
    pub reorder: f64,
    /// Every payload arrives this much later; the order of one subscriber is kept. Default none.
    pub delay: Range<Duration>,
    /// Groups of nodes, by [`MemoryTransport::number`](super::MemoryTransport::number), that do not hear each other. The
    /// nodes that no group names form one more. Default none.
    pub partition: Vec<BTreeSet<u64>>,
}

impl Faults {
    /// No faults yet, drawn from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self {
            seed,
            drop: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            delay: Duration::ZERO..Duration::ZERO,
            partition: Vec::new(),
        }
    }

    /// Sets the probability that a payload is lost.
    #[must_use]
    pub const fn with_drop(mut self, probability: f64) -> Self {
        self.drop = probability;
        self
    }

    /// Sets the probability that a payload arrives twice.
    #[must_use]
    pub const fn with_duplicate(mut self, probability: f64) -> Self {
        self.duplicate = probability;
        self
    }

    /// Sets the probability that a payload is overtaken.
    #[must_use]
    pub const fn with_reorder(mut self, probability: f64) -> Self {
        self.reorder = probability;
        self
    }

    /// Sets how late payloads arrive.
    #[must_use]
    pub const fn with_delay(mut self, delay: Range<Duration>) -> Self {
        self.delay = delay;
        self
    }

    /// Adds a group of nodes that hears only itself.
    #[must_use]
    pub fn with_partition(mut self, numbers: impl IntoIterator<Item = u64>) -> Self {
        self.partition.push(numbers.into_iter().collect());
        self
    }

    fn group(&self, node: u64) -> Option<usize> {
        self.partition
            .iter()
            .position(|group| group.contains(&node))
    }
}

/// One arrival of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) after: Duration,
    /// Whether it must not overtake, nor be overtaken by, what else is on the way to the subscriber.
    pub(super) ordered: bool,
}

impl Arrival {
    /// As it is without faults.
    pub(super) const NOW: Self = Self {
        after: Duration::ZERO,
        ordered: true,
    };
}

/// Draws the fate of each payload.
#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    rng: fastrand::Rng,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(faults.seed),
            faults,
        }
    }

    /// Whether some payloads arrive later than they are published.
    pub(super) fn delays(&self) -> bool {
        self.faults.reorder > 0.0 || self.faults.delay.end > Duration::ZERO
    }

    /// Whether a payload of node `from` can reach node `to` at all.
    pub(super) fn connects(&self, from: u64, to: u64) -> bool {
        self.faults.group(from) == self.faults.group(to)
    }

    /// When and how often one payload arrives at one subscriber.
    pub(super) fn arrivals(&mut self) -> impl Iterator<Item = Arrival> + use<> {
        let mut arrivals = [None, None];
        if !self.happens(self.faults.drop) {
            let ordered = !self.happens(self.faults.reorder);
            let hold = if ordered {
                Duration::ZERO
            } else {
                self.between(Duration::ZERO..self.faults.delay.end.max(HOLD))
            };
            arrivals[0] = Some(Arrival {
                after: self.between(self.faults.delay.clone()) + hold,
                ordered,
            });
            if self.happens(self.faults.duplicate) {
                arrivals[1] = Some(Arrival {
                    after: self.between(self.faults.delay.clone()),
                    ordered: false,
                });
            }
        }
        arrivals.into_iter().flatten()
    }

    fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }

    fn between(&mut self, range: Range<Duration>) -> Duration {
        let width = range.end.saturating_sub(range.start);
        range.start + width.mul_f64(self.rng.f64())
    }
}
