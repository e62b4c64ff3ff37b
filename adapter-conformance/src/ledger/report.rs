//! What the ledger says in the end: counts, as Jepsen counts, and every broken invariant.

use std::{collections::BTreeMap, fmt};

/// A rule that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// I1: something arrived that nobody attempted, or in pieces.
    OnlyAttempted,
    /// I2: something arrived twice.
    Once,
    /// I3: a lane lost its order.
    Rising,
    /// I4: something accepted neither arrived nor was reported.
    NoSilentLoss,
    /// I5: something reported as lost arrived, or more was reported than is missing.
    NoFalseAlarm,
    /// I6: something that was certainly not sent arrived.
    NotSentStaysAway,
    /// I7: something published after all faults did not arrive.
    FinalsArrive,
    /// I8: something grew beyond its bound.
    Bounded,
}

impl Invariant {
    /// The short name, `I1` to `I8`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OnlyAttempted => "I1",
            Self::Once => "I2",
            Self::Rising => "I3",
            Self::NoSilentLoss => "I4",
            Self::NoFalseAlarm => "I5",
            Self::NotSentStaysAway => "I6",
            Self::FinalsArrive => "I7",
            Self::Bounded => "I8",
        }
    }
}

/// One invariant broken at one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Which rule.
    pub invariant: Invariant,
    /// At which receiver, or of which measurement.
    pub receiver: String,
    /// How often.
    pub count: u64,
    /// The first instance.
    pub example: String,
}

/// What the publishers know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// All attempts.
    pub attempted: u64,
    /// Accepted by the broker.
    pub accepted: u64,
    /// Rejected by the broker.
    pub rejected: u64,
    /// Certainly not sent.
    pub not_sent: u64,
    /// Of unknown outcome.
    pub unknown: u64,
    /// Of those accepted, not sent after all, as their publishers were told.
    pub withdrawn: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            attempted,
            accepted,
            rejected,
            not_sent,
            unknown,
            withdrawn,
        } = self;
        write!(
            f,
            "attempted {attempted}: accepted {accepted}, unknown {unknown}, rejected {rejected}, not sent {not_sent}, withdrawn {withdrawn}"
        )
    }
}

/// What one receiver saw. `+` is what several saw together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverCounts {
    /// Different entries that arrived.
    pub received: u64,
    /// Of those, entries whose outcome the publisher did not know.
    pub recovered: u64,
    /// Arrivals beyond the first of an entry.
    pub duplicates: u64,
    /// Losses that were reported with a number.
    pub reported: u64,
    /// Accepted but missing, before anything of the lane arrived.
    pub lost_prefix: u64,
    /// Accepted but missing, between arrivals of the lane.
    pub lost_middle: u64,
    /// Accepted but missing, after everything of the lane that arrived.
    pub lost_suffix: u64,
    /// Of the lost ones, those that no report covers.
    pub silent: u64,
}

impl std::ops::Add for ReceiverCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            received: self.received + other.received,
            recovered: self.recovered + other.recovered,
            duplicates: self.duplicates + other.duplicates,
            reported: self.reported + other.reported,
            lost_prefix: self.lost_prefix + other.lost_prefix,
            lost_middle: self.lost_middle + other.lost_middle,
            lost_suffix: self.lost_suffix + other.lost_suffix,
            silent: self.silent + other.silent,
        }
    }
}

impl fmt::Display for ReceiverCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            received,
            recovered,
            duplicates,
            reported,
            lost_prefix,
            lost_middle,
            lost_suffix,
            silent,
        } = self;
        write!(
            f,
            "received {received}, recovered {recovered}, duplicates {duplicates}, lost {lost_prefix}/{lost_middle}/{lost_suffix} (prefix/middle/suffix), reported {reported}, silent {silent}"
        )
    }
}

/// The verdict over all receivers. `Display` is a table with the violations below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Judgement {
    /// What the publishers know.
    pub counts: Counts,
    /// What each receiver saw.
    pub receivers: BTreeMap<String, ReceiverCounts>,
    /// Every broken invariant, by receiver.
    pub violations: Vec<Violation>,
}

impl Judgement {
    /// Whether no invariant is broken.
    pub const fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Accepted but missing at some receiver, reported or not, over all receivers.
    pub fn lost(&self) -> u64 {
        let lost =
            |counts: &ReceiverCounts| counts.lost_prefix + counts.lost_middle + counts.lost_suffix;
        self.receivers.values().map(lost).sum()
    }

    /// What all receivers saw together.
    pub fn total(&self) -> ReceiverCounts {
        let counts = self.receivers.values().copied();
        counts.fold(ReceiverCounts::default(), |sum, one| sum + one)
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.counts)?;
        for (name, counts) in &self.receivers {
            writeln!(f, "{name}: {counts}")?;
        }
        for violation in &self.violations {
            writeln!(
                f,
                "{} broken at {}, {} time(s): {}",
                violation.invariant.code(),
                violation.receiver,
                violation.count,
                violation.example
            )?;
        }
        Ok(())
    }
}
