//! How many frames to ask for at once: they are of any size, as ways are of any width, and our own echoes wait behind them.

use std::time::Duration;

/// Most bytes that the server may send unasked for: two portions of frames as large as can be.
const UNASKED: usize = 64 << 20;
/// Bytes of a portion at most, about.
const MOST: usize = 4 << 20;
/// A slow portion that has fewer says nothing of how wide the way is.
const FEW: usize = 16 << 10;
/// A portion that was waited for longer is to be smaller the next time.
const SLOW: Duration = Duration::from_millis(500);

/// Begins with one frame and at most doubles with each portion, since nobody knows how large the next ones are.
#[derive(Debug)]
pub(crate) struct Portion {
    frames: usize,
    /// Most of them.
    most: usize,
    bytes: usize,
}

impl Portion {
    /// `largest`: how many bytes a frame can have.
    pub(crate) fn new(largest: usize) -> Self {
        Self {
            frames: 1,
            most: (UNASKED / 2 / largest.max(1)).clamp(8, 256),
            bytes: MOST,
        }
    }

    /// How many frames to ask for, at least one.
    pub(crate) const fn frames(&self) -> usize {
        self.frames
    }

    /// Takes in a portion: how many bytes its frames have together, and how long they were waited for while the server had
    /// them; `None` if it had nothing.
    pub(crate) fn saw(&mut self, frames: usize, bytes: usize, waited: Option<Duration>) {
        match waited {
            Some(waited) if waited > SLOW => self.bytes = (self.bytes.min(bytes) / 2).max(FEW),
            Some(_) => self.bytes = (self.bytes * 2).min(MOST),
            None => {}
        }
        let average = (bytes / frames.max(1)).max(1);
        let most = self.most.min(2 * self.frames);
        self.frames = (self.bytes / average).clamp(1, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads frames of `size` bytes that come so fast, after so long; two portions are on their way at once. Returns how many
    /// frames each has, and how long an echo that is sent when it was asked for takes to come back.
    fn read(
        portion: &mut Portion,
        size: usize,
        bytes_per_second: usize,
        latency: Duration,
    ) -> Vec<(usize, Duration)> {
        let mut asked = [portion.frames(), portion.frames()];
        let portions = (0..60).map(|_| {
            let way = |frames: usize| {
                Duration::from_secs(1).mul_f64((frames * size) as f64 / bytes_per_second as f64)
            };
            let [first, second] = asked;
            let echo = latency + way(first) + way(second);
            portion.saw(first, first * size, Some(latency + way(first)));
            asked = [second, portion.frames()];
            (first, echo)
        });
        portions.collect()
    }

    #[test]
    fn small_frames_soon_come_many_at_once() {
        let portions = read(&mut Portion::new(1), 100, 100 << 20, Duration::ZERO);
        let frames: Vec<usize> = portions.iter().map(|(frames, _)| *frames).collect();
        assert_eq!(frames[..10], [1, 1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(frames.last(), Some(&256));
    }

    #[test]
    fn no_echo_waits_long_whatever_the_way() {
        for (size, bytes_per_second) in [
            (128 << 10, 1 << 20),
            (128 << 10, 128 << 10),
            (10 << 10, 1 << 20),
            (10 << 10, 64 << 10),
            (100, 16 << 10),
        ] {
            let latency = Duration::from_millis(1);
            let portions = read(&mut Portion::new(1 << 20), size, bytes_per_second, latency);
            let longest = portions.iter().map(|(_, echo)| *echo).max();
            // Of the 8 s after which the session ends.
            let limit = Duration::from_secs(3);
            assert!(longest < Some(limit), "{size}: {portions:?}");
        }
    }

    #[test]
    fn a_server_that_is_far_away_or_has_nothing_is_not_asked_for_less() {
        let far = Duration::from_millis(300);
        let mut portion = Portion::new(1);
        let portions = read(&mut portion, 1_000, 100 << 20, far);
        assert_eq!(portions.last().map(|(frames, _)| *frames), Some(256));
        portion.saw(256, 256, None);
        portion.saw(1, 100, Some(Duration::from_secs(3)));
        assert!(portion.frames() > 100, "{portion:?}");
    }

    #[test]
    fn it_grows_again_when_the_way_is_good_again() {
        let mut portion = Portion::new(1);
        let narrow = read(&mut portion, 10 << 10, 64 << 10, Duration::ZERO);
        let wide = read(&mut portion, 10 << 10, 100 << 20, Duration::ZERO);
        let small = |portions: &[(usize, Duration)]| portions.iter().all(|(it, _)| *it < 10);
        assert!(small(&narrow[12..]), "{narrow:?}");
        assert_eq!(wide.last().map(|(frames, _)| *frames), Some(256));
    }

    #[test]
    fn what_may_come_unasked_has_a_bound() {
        for largest in [1, 1 << 20, 8 << 20] {
            let mut portion = Portion::new(largest);
            for _ in 0..60 {
                portion.saw(portion.frames(), 1, None);
            }
            let unasked = 2 * portion.frames() * largest;
            assert!(unasked <= UNASKED.max(16 * largest), "{portion:?}");
        }
    }
}
