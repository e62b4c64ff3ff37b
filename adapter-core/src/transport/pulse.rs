//! How a session notices that a connection is dead although nobody has closed it.

use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a session looks for signs of life, and for dropped subscriptions.
pub const TICK: Duration = Duration::from_millis(500);
/// A connection is dead after so many ticks in a row without a sign of life: 2 to 2.5 s.
pub const SILENT_TICKS: u32 = 4;

/// Ticks every [`TICK`]. A tick that comes late puts off those after it.
pub fn ticks() -> Interval {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Returns when `received` has told the same number `limit` [`ticks`] in a row, or nothing new since the beginning. `None`
/// excuses a silence.
///
/// Ticks are counted, not time: if this process itself stood still, that is one tick, and no proof against the broker.
///
/// # Cancel safety
/// Cancel safe; begins anew when called again.
pub async fn silence(limit: u32, mut received: impl FnMut() -> Option<u64>) {
    let mut ticks = ticks();
    let (mut seen, mut silent) = (0, 0);
    while silent < limit {
        ticks.tick().await;
        silent = match received() {
            Some(now) if now == seen => silent + 1,
            now => {
                seen = now.unwrap_or(seen);
                0
            }
        };
    }
}

/// Asks for a sign of life at each [tick](ticks). Returns the first error of asking, or `None` after a [`silence`] of
/// [`SILENT_TICKS`]. An excused tick is not asked at.
///
/// # Cancel safety
/// Cancel safe if asking is; begins anew when called again.
pub async fn beat<E, F: Future<Output = Result<(), E>>>(
    received: impl Fn() -> Option<u64>,
    ask: impl Fn() -> F,
) -> Option<E> {
    let asks = async {
        let mut ticks = ticks();
        loop {
            ticks.tick().await;
            // No deadline: everything that is received before the answer counts as a sign of life.
            if received().is_some()
                && let Err(error) = ask().await
            {
                return error;
            }
        }
    };
    tokio::select! {
        error = asks => Some(error),
        () = silence(SILENT_TICKS, &received) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::ready,
        sync::atomic::{AtomicU64, Ordering},
    };

    use super::*;

    /// After how many ticks it ends, if there is a sign of life at each of these, or an excuse.
    async fn ends_after(signs: &[Option<bool>]) -> usize {
        let (mut tick, mut received) = (0, 0);
        silence(SILENT_TICKS, || {
            let sign = signs.get(tick).copied().unwrap_or(Some(false));
            tick += 1;
            received += u64::from(sign == Some(true));
            sign.map(|_| received)
        })
        .await;
        tick
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_unbroken_silence_without_excuse_ends_it() {
        let (sign, none, excuse) = (Some(true), Some(false), None);
        assert_eq!(ends_after(&[]).await, 4);
        assert_eq!(ends_after(&[none, none, none, sign]).await, 8);
        assert_eq!(ends_after(&[none, none, none, excuse, excuse]).await, 9);
        assert_eq!(ends_after(&[sign, sign, none, sign]).await, 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_beat_ends_by_an_error_or_by_silence_and_asks_nobody_who_is_excused() {
        let asked = AtomicU64::new(0);
        let ask = || {
            ready(
                (asked.fetch_add(1, Ordering::Relaxed) < 20)
                    .then_some(())
                    .ok_or("gone"),
            )
        };
        let received = || Some(asked.load(Ordering::Relaxed));
        assert_eq!(beat(received, ask).await, Some("gone"));
        let silent = || Some(0);
        assert_eq!(beat(silent, || ready(Ok::<(), ()>(()))).await, None);
        let excused = beat(|| None, || ready(Err(())));
        assert!(tokio::time::timeout(TICK * 100, excused).await.is_err());
    }
}
