//! The comparison of what was attempted with what was seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, RangeInclusive},
};

use super::{
    Attempt, Books, Counts, Entry, Gap, Invariant, Judgement, Receiver, ReceiverCounts, Record,
    Seen, Violation,
};

pub(super) fn count(books: &Books) -> Counts {
    let mut counts = Counts::default();
    for record in books.attempts.values() {
        counts.attempted += 1;
        *match record.attempt {
            Attempt::Accepted => &mut counts.accepted,
            Attempt::Rejected => &mut counts.rejected,
            Attempt::NotSent => &mut counts.not_sent,
            Attempt::Unknown => &mut counts.unknown,
        } += 1;
    }
    counts.withdrawn = books.withdrawn.values().sum();
    counts
}

pub(super) fn judge(books: &Books) -> Judgement {
    let mut judgement = Judgement {
        counts: count(books),
        ..Judgement::default()
    };
    for (what, measure) in &books.measures {
        if measure.value > measure.bound {
            judgement.violations.push(Violation {
                invariant: Invariant::Bounded,
                receiver: what.clone(),
                count: 1,
                example: format!("{} is more than {}", measure.value, measure.bound),
            });
        }
    }
    for (name, receiver) in &books.receivers {
        let mut trial = Trial::new(name, books, receiver);
        trial.hear_arrivals();
        trial.hear_losses();
        trial.hear_alarms();
        judgement.receivers.insert(name.clone(), trial.counts);
        judgement.violations.extend(trial.violations.into_values());
    }
    judgement
}

/// Whether every receiver that has not left has got all finals. Asked again and again, so it looks at nothing older.
pub(super) fn finals_arrived(books: &Books) -> bool {
    let Some(finals) = &books.finals else {
        return true;
    };
    let mut present = books.receivers.values().filter(|receiver| !receiver.left);
    present.all(|receiver| {
        let since = receiver.seen.iter().skip(receiver.seen_before_finals);
        let arrived: BTreeSet<Entry> = since
            .filter_map(|seen| match seen {
                Seen::Arrival(entry) => Some(*entry),
                _ => None,
            })
            .collect();
        finals.iter().all(|entry| arrived.contains(entry))
    })
}

impl Receiver {
    /// Arrivals with their place among all events.
    fn arrivals(&self) -> impl Iterator<Item = (usize, Entry)> {
        let events = self.seen.iter().enumerate();
        events.filter_map(|(place, seen)| match seen {
            Seen::Arrival(entry) => Some((place, *entry)),
            _ => None,
        })
    }
}

type Lane = (u32, u32);

const fn lane_of(entry: Entry) -> Lane {
    (entry.publisher, entry.lane)
}

/// What a receiver was told about losses.
#[derive(Default)]
struct Reports<'a> {
    exact: BTreeMap<Lane, Vec<&'a RangeInclusive<u64>>>,
    counted: BTreeMap<Lane, u64>,
    /// Where a `Here` stands among all events, in order.
    places: Vec<usize>,
    /// How many they speak of in all, and whether each of them gave a number.
    here: u64,
    all_numbered: bool,
}

impl<'a> Reports<'a> {
    fn read(receiver: &'a Receiver) -> Self {
        let mut reports = Self {
            all_numbered: true,
            ..Self::default()
        };
        for (place, seen) in receiver.seen.iter().enumerate() {
            let Seen::Gap(gap) = seen else { continue };
            match gap {
                Gap::Exact {
                    publisher,
                    lane,
                    numbers,
                } => {
                    let exact = reports.exact.entry((*publisher, *lane)).or_default();
                    exact.push(numbers);
                }
                Gap::Counted {
                    publisher,
                    lane,
                    count,
                } => *reports.counted.entry((*publisher, *lane)).or_default() += count,
                Gap::Here { count } => {
                    reports.places.push(place);
                    reports.all_numbered &= count.is_some();
                    reports.here += count.unwrap_or_default();
                }
            }
        }
        reports
    }

    /// How many losses were reported with a number.
    fn total(&self) -> u64 {
        let length = |numbers: &&RangeInclusive<u64>| match numbers.is_empty() {
            true => 0,
            false => numbers.end() - numbers.start() + 1,
        };
        let exact: u64 = self.exact.values().flatten().map(length).sum();
        exact + self.counted.values().sum::<u64>() + self.here
    }

    fn names(&self, entry: Entry) -> bool {
        let exact = self.exact.get(&lane_of(entry)).into_iter().flatten();
        exact
            .into_iter()
            .any(|numbers| numbers.contains(&entry.number))
    }

    /// Whether a `Here` stands between two arrivals.
    fn stands_between(&self, before: Option<usize>, after: Option<usize>) -> bool {
        let next = match before {
            Some(before) => self.places.partition_point(|place| *place < before),
            None => 0,
        };
        let place = self.places.get(next);
        place.is_some_and(|place| after.is_none_or(|after| *place < after))
    }
}

/// The case of one receiver.
struct Trial<'a> {
    name: &'a str,
    attempts: &'a BTreeMap<Entry, Record>,
    withdrawn: &'a BTreeMap<Lane, u64>,
    receiver: &'a Receiver,
    reports: Reports<'a>,
    /// The first arrival of each entry, by its place among all events.
    arrived: BTreeMap<Entry, usize>,
    /// Per lane, what is missing though it may have been sent, and what `Counted` reports have to cover.
    missing: BTreeMap<Lane, u64>,
    uncovered: BTreeMap<Lane, Vec<Entry>>,
    /// Missing entries that only a `Here` covers.
    covered_here: u64,
    counts: ReceiverCounts,
    violations: BTreeMap<Invariant, Violation>,
}

impl<'a> Trial<'a> {
    fn new(name: &'a str, books: &'a Books, receiver: &'a Receiver) -> Self {
        Self {
            name,
            attempts: &books.attempts,
            withdrawn: &books.withdrawn,
            receiver,
            reports: Reports::read(receiver),
            arrived: BTreeMap::new(),
            missing: BTreeMap::new(),
            uncovered: BTreeMap::new(),
            covered_here: 0,
            counts: ReceiverCounts::default(),
            violations: BTreeMap::new(),
        }
    }

    fn accuse(&mut self, invariant: Invariant, count: u64, example: impl FnOnce() -> String) {
        if count == 0 {
            return;
        }
        let violation = self
            .violations
            .entry(invariant)
            .or_insert_with(|| Violation {
                invariant,
                receiver: self.name.to_owned(),
                count: 0,
                example: example(),
            });
        violation.count += count;
    }

    /// What became of an attempt, from where the receiver is: next to the publisher it arrives in any case.
    fn attempt(&self, entry: Entry, record: &Record) -> Attempt {
        match self.receiver.beside == Some(entry.publisher) {
            true => Attempt::Accepted,
            false => record.attempt,
        }
    }

    /// How many of a lane were not sent after all, and so are missing here without a word.
    fn withdrawn(&self, lane: Lane) -> u64 {
        match self.receiver.beside == Some(lane.0) {
            true => 0,
            false => self.withdrawn.get(&lane).copied().unwrap_or_default(),
        }
    }

    /// I1, I2, I3 and I6.
    fn hear_arrivals(&mut self) {
        let mut highest: BTreeMap<Lane, u64> = BTreeMap::new();
        for seen in &self.receiver.seen {
            if *seen == Seen::Torn {
                self.accuse(Invariant::OnlyAttempted, 1, || "a torn payload".into());
            }
        }
        for (place, entry) in self.receiver.arrivals() {
            let record = self.attempts.get(&entry);
            match record.map(|record| self.attempt(entry, record)) {
                None => {
                    self.accuse(Invariant::OnlyAttempted, 1, || {
                        format!("{entry:?} was never attempted")
                    });
                    continue;
                }
                Some(attempt @ (Attempt::Rejected | Attempt::NotSent)) => {
                    self.accuse(Invariant::NotSentStaysAway, 1, || {
                        format!("{entry:?} arrived, but its publisher was told {attempt:?}")
                    });
                }
                Some(Attempt::Unknown) if !self.arrived.contains_key(&entry) => {
                    self.counts.recovered += 1;
                }
                Some(_) => {}
            }
            if self.arrived.contains_key(&entry) {
                self.counts.duplicates += 1;
                self.accuse(Invariant::Once, 1, || format!("{entry:?} arrived again"));
                continue;
            }
            self.arrived.insert(entry, place);
            self.counts.received += 1;
            let highest = highest.entry(lane_of(entry)).or_insert(entry.number);
            let before = *highest;
            *highest = before.max(entry.number);
            if before > entry.number {
                self.accuse(Invariant::Rising, 1, || {
                    format!("{entry:?} came after #{before}")
                });
            }
        }
    }

    /// I4 and I7.
    fn hear_losses(&mut self) {
        for (&entry, record) in self.attempts {
            if self.arrived.contains_key(&entry) {
                continue;
            }
            let attempt = self.attempt(entry, record);
            if matches!(attempt, Attempt::Accepted | Attempt::Unknown) {
                *self.missing.entry(lane_of(entry)).or_default() += 1;
            }
            let (before, after) = self.neighbours(entry);
            if record.place < self.receiver.joined_at || (self.receiver.left && after.is_none()) {
                continue;
            }
            if record.is_final {
                self.accuse(Invariant::FinalsArrive, 1, || {
                    format!("{entry:?} did not arrive")
                });
            }
            if attempt != Attempt::Accepted {
                continue;
            }
            match (before, after) {
                (None, Some(_)) => self.counts.lost_prefix += 1,
                (_, None) => self.counts.lost_suffix += 1,
                (Some(_), Some(_)) => self.counts.lost_middle += 1,
            }
            if self.reports.names(entry) {
                continue;
            }
            if self.reports.stands_between(before, after) {
                self.covered_here += 1;
            } else {
                self.uncovered
                    .entry(lane_of(entry))
                    .or_default()
                    .push(entry);
            }
        }
        for (lane, entries) in std::mem::take(&mut self.uncovered) {
            let silent = entries.len() as u64;
            let reported = self.reports.counted.get(&lane).copied().unwrap_or_default();
            let silent = silent.saturating_sub(reported + self.withdrawn(lane));
            self.counts.silent += silent;
            self.accuse(Invariant::NoSilentLoss, silent, || {
                format!(
                    "{:?} was accepted, but neither arrived nor was reported",
                    entries[0]
                )
            });
        }
    }

    /// I5, and the halves of I4 and I6 that are about numbers.
    fn hear_alarms(&mut self) {
        for &lane in self.withdrawn.keys() {
            let missing = self.missing.get(&lane).copied().unwrap_or_default();
            let withdrawn = self.withdrawn(lane);
            let arrived = withdrawn.saturating_sub(missing);
            self.accuse(Invariant::NotSentStaysAway, arrived, || {
                format!("of lane {lane:?} {withdrawn} were not sent after all, but only {missing} are missing")
            });
        }
        let reports = std::mem::take(&mut self.reports);
        self.counts.reported = reports.total();
        for ((publisher, lane), numbers) in &reports.exact {
            for numbers in numbers {
                let [first, last] = [*numbers.start(), *numbers.end()].map(|number| Entry {
                    publisher: *publisher,
                    lane: *lane,
                    number,
                });
                let arrived = self.arrived.range(first..=last).count() as u64;
                self.accuse(Invariant::NoFalseAlarm, arrived, || {
                    format!("{first:?} to {last:?} were reported, but of these {arrived} arrived")
                });
            }
        }
        for (lane, reported) in &reports.counted {
            let missing = self.missing.get(lane).copied().unwrap_or_default();
            self.accuse(
                Invariant::NoFalseAlarm,
                reported.saturating_sub(missing),
                || {
                    format!(
                        "of lane {lane:?} {reported} were reported, but only {missing} are missing"
                    )
                },
            );
        }
        let (reported, missing) = (reports.here, self.missing.values().sum());
        self.accuse(
            Invariant::NoFalseAlarm,
            reported.saturating_sub(missing),
            || format!("{reported} were reported, but only {missing} are missing"),
        );
        if reports.all_numbered {
            let silent = self.covered_here.saturating_sub(reported);
            let covered = self.covered_here;
            self.counts.silent += silent;
            self.accuse(Invariant::NoSilentLoss, silent, || {
                format!("{covered} are missing at places where only {reported} were reported")
            });
        }
    }

    /// Places of the nearest arrivals of the same lane.
    fn neighbours(&self, entry: Entry) -> (Option<usize>, Option<usize>) {
        let same_lane = |neighbour: &(&Entry, &usize)| lane_of(*neighbour.0) == lane_of(entry);
        let before = self.arrived.range(..entry).next_back().filter(same_lane);
        let after = self
            .arrived
            .range((Bound::Excluded(entry), Bound::Unbounded))
            .next()
            .filter(same_lane);
        (
            before.map(|(_, place)| *place),
            after.map(|(_, place)| *place),
        )
    }
}
