//! What happened in a case, for whoever reads that it failed: the schedule of its faults, and the books.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::ledger::Ledger;

/// Lines that are kept; what happens later is only counted.
const LINES: usize = 400;

/// Written by the case, read by the suite, also when the case did not come to its end.
#[derive(Debug)]
pub(crate) struct Journal {
    start: Instant,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    lines: Vec<(Duration, String)>,
    dropped: u64,
    ledger: Option<Arc<Ledger>>,
}

impl Journal {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            pages: Mutex::default(),
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that something happens at this moment.
    pub(crate) fn note(&self, what: impl Into<String>) {
        let at = self.start.elapsed();
        let mut pages = self.pages();
        match pages.lines.len() < LINES {
            true => pages.lines.push((at, what.into())),
            false => pages.dropped += 1,
        }
    }

    /// Notes where the books are.
    pub(crate) fn books(&self, ledger: &Arc<Ledger>) {
        self.pages().ledger = Some(ledger.clone());
    }

    /// The counts of the books, on one line; `None` if there are none.
    pub(crate) fn summary(&self) -> Option<String> {
        let ledger = self.pages().ledger.clone()?;
        let judgement = ledger.judge();
        Some(format!("{}; {}", judgement.counts, judgement.total()))
    }
}

/// The schedule and the books, as far as there are any.
impl fmt::Display for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lines, dropped, ledger) = {
            let pages = self.pages();
            (pages.lines.clone(), pages.dropped, pages.ledger.clone())
        };
        if !lines.is_empty() {
            writeln!(f, "what happened, and when:")?;
        }
        for (at, line) in lines {
            writeln!(f, "{:8.3} s  {line}", at.as_secs_f64())?;
        }
        if dropped > 0 {
            writeln!(f, "… and {dropped} things more")?;
        }
        match ledger {
            Some(ledger) => write!(f, "the books:\n{}", ledger.judge()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_the_schedule_and_the_books_and_stays_bounded() {
        let journal = Journal::new();
        assert_eq!(journal.to_string(), "");
        journal.books(&Arc::default());
        for _ in 0..LINES + 2 {
            journal.note("the broker is killed");
        }
        let told = journal.to_string();
        assert_eq!(told.matches("the broker is killed").count(), LINES);
        assert!(told.contains("and 2 things more"), "{told}");
        assert!(told.contains("attempted 0: accepted 0"), "{told}");
        assert!(journal.summary().unwrap().contains("received 0"));
    }
}
