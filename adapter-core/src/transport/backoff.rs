//! How long to wait before the next attempt to connect.

use std::time::Duration;

/// Full jitter over a window that grows with the outage.
///
/// The wait is uniform in `[0, window]`, where the window is an eighth of the time since the session was lost, at least
/// [`floor`](Self::floor) and at most [`ceiling`](Self::ceiling). A short outage is therefore repaired quickly, a long
/// one costs few attempts, and a thousand nodes do not come back in the same millisecond.
/// ("Full jitter": M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// Smallest window. Default 50 ms.
    pub floor: Duration,
    /// Largest window. Default 5 s.
    pub ceiling: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            floor: Duration::from_millis(50),
            ceiling: Duration::from_secs(5),
        }
    }
}

impl Backoff {
    /// Sets the smallest and the largest window.
    pub const fn new(floor: Duration, ceiling: Duration) -> Self {
        Self { floor, ceiling }
    }

    /// The window after `outage` without a session.
    pub fn window(&self, outage: Duration) -> Duration {
        (outage / 8).max(self.floor).min(self.ceiling)
    }

    /// The wait before the next attempt; `unit` is a random number in `[0, 1)`.
    pub fn wait(&self, outage: Duration, unit: f64) -> Duration {
        self.window(outage).mul_f64(unit.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_follows_the_outage_between_floor_and_ceiling() {
        let backoff = Backoff::default();
        let ms = Duration::from_millis;
        assert_eq!(backoff.window(ms(0)), ms(50));
        assert_eq!(backoff.window(ms(4_000)), ms(500));
        assert_eq!(backoff.window(ms(3_600_000)), ms(5_000));
        assert_eq!(backoff.wait(ms(4_000), 0.5), ms(250));
    }
}
