//! Tests of the judge: each invariant broken alone, and none broken by what is allowed.

use super::{Attempt, Entry, Gap, Invariant, Judgement, Ledger};

const NODE: &str = "node";

fn entry(number: u64) -> Entry {
    Entry {
        publisher: 1,
        lane: 0,
        number,
    }
}

/// A ledger with ten accepted entries that a receiver is owed.
fn ten() -> Ledger {
    let ledger = Ledger::new();
    ledger.joins(NODE);
    for number in 1..=10 {
        ledger.attempts(entry(number));
        ledger.concludes(entry(number), Attempt::Accepted);
    }
    ledger
}

fn arrive(ledger: &Ledger, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        ledger.arrives(NODE, entry(number));
    }
}

fn broken(judgement: &Judgement) -> Vec<(Invariant, u64)> {
    let violations = judgement.violations.iter();
    violations.map(|v| (v.invariant, v.count)).collect()
}

#[test]
fn all_arrived_is_clean() {
    let ledger = ten();
    arrive(&ledger, 1..=10);
    let judgement = ledger.judge();
    assert!(judgement.is_clean(), "{judgement}");
    assert_eq!(judgement.receivers[NODE].received, 10);
}

#[test]
fn what_nobody_attempted_and_what_is_torn_break_i1() {
    let ledger = ten();
    arrive(&ledger, 1..=11);
    ledger.arrives_torn(NODE);
    assert_eq!(broken(&ledger.judge()), [(Invariant::OnlyAttempted, 2)]);
}

#[test]
fn a_duplicate_breaks_i2_and_only_i2() {
    let ledger = ten();
    arrive(&ledger, 1..=10);
    arrive(&ledger, [4]);
    assert_eq!(broken(&ledger.judge()), [(Invariant::Once, 1)]);
}

#[test]
fn a_late_one_breaks_i3_and_only_i3() {
    let ledger = ten();
    arrive(&ledger, [1, 2, 4, 3, 5, 6, 7, 8, 9, 10]);
    assert_eq!(broken(&ledger.judge()), [(Invariant::Rising, 1)]);
}

#[test]
fn a_silent_loss_breaks_i4_wherever_it_is() {
    for (missing, place) in [(1, [1, 0, 0]), (5, [0, 1, 0]), (10, [0, 0, 1])] {
        let ledger = ten();
        arrive(&ledger, (1..=10).filter(|number| *number != missing));
        let judgement = ledger.judge();
        assert_eq!(broken(&judgement), [(Invariant::NoSilentLoss, 1)]);
        let counts = judgement.receivers[NODE];
        let lost = [counts.lost_prefix, counts.lost_middle, counts.lost_suffix];
        assert_eq!((lost, counts.silent), (place, 1));
        assert_eq!(judgement.lost(), 1);
    }
}

#[test]
fn reported_losses_are_no_violation() {
    let reports = [
        Gap::Exact {
            publisher: 1,
            lane: 0,
            numbers: 4..=6,
        },
        Gap::Counted {
            publisher: 1,
            lane: 0,
            count: 3,
        },
        Gap::Here { count: Some(3) },
        Gap::Here { count: None },
    ];
    for report in reports {
        let ledger = ten();
        arrive(&ledger, 1..=3);
        ledger.reports(NODE, report);
        arrive(&ledger, 7..=10);
        let judgement = ledger.judge();
        assert!(judgement.is_clean(), "{judgement}");
        assert_eq!(judgement.lost(), 3);
    }
}

#[test]
fn a_report_at_another_place_or_of_too_few_covers_nothing_more() {
    let ledger = ten();
    arrive(&ledger, 1..=3);
    arrive(&ledger, 7..=10);
    ledger.reports(NODE, Gap::Here { count: None });
    assert_eq!(broken(&ledger.judge()), [(Invariant::NoSilentLoss, 3)]);

    for count in [Gap::Here { count: Some(2) }, counted(2)] {
        let ledger = ten();
        arrive(&ledger, 1..=3);
        ledger.reports(NODE, count);
        arrive(&ledger, 7..=10);
        assert_eq!(broken(&ledger.judge()), [(Invariant::NoSilentLoss, 1)]);
    }
}

const fn counted(count: u64) -> Gap {
    Gap::Counted {
        publisher: 1,
        lane: 0,
        count,
    }
}

#[test]
fn a_false_alarm_breaks_i5() {
    let exact = Gap::Exact {
        publisher: 1,
        lane: 0,
        numbers: 3..=6,
    };
    for report in [exact, counted(4), Gap::Here { count: Some(4) }] {
        let ledger = ten();
        arrive(&ledger, 1..=3);
        ledger.reports(NODE, report);
        arrive(&ledger, 7..=10);
        assert_eq!(broken(&ledger.judge()), [(Invariant::NoFalseAlarm, 1)]);
    }
}

#[test]
fn what_was_not_sent_must_stay_away_and_what_is_unknown_may_come_or_not() {
    let ledger = ten();
    for (number, attempt) in [
        (11, Attempt::NotSent),
        (12, Attempt::Rejected),
        (13, Attempt::Unknown),
        (14, Attempt::Unknown),
    ] {
        ledger.attempts(entry(number));
        ledger.concludes(entry(number), attempt);
    }
    arrive(&ledger, 1..=10);
    arrive(&ledger, [13]);
    let judgement = ledger.judge();
    assert!(judgement.is_clean(), "{judgement}");
    assert_eq!(judgement.receivers[NODE].recovered, 1);
    arrive(&ledger, [14]);
    ledger.arrives(NODE, entry(11));
    ledger.arrives(NODE, entry(12));
    let broken = broken(&ledger.judge());
    assert!(
        broken.contains(&(Invariant::NotSentStaysAway, 2)),
        "{broken:?}"
    );
}

#[test]
fn finals_must_arrive_even_if_their_loss_is_reported() {
    let ledger = ten();
    arrive(&ledger, 1..=10);
    ledger.finals();
    ledger.attempts(entry(11));
    ledger.concludes(entry(11), Attempt::Accepted);
    assert!(!ledger.finals_arrived());
    ledger.reports(NODE, counted(1));
    assert_eq!(broken(&ledger.judge()), [(Invariant::FinalsArrive, 1)]);
    arrive(&ledger, [11]);
    assert!(ledger.finals_arrived());
}

#[test]
fn a_receiver_is_owed_only_what_was_attempted_while_it_was_there() {
    let ledger = ten();
    arrive(&ledger, 1..=10);
    ledger.joins("late");
    ledger.attempts(entry(11));
    ledger.concludes(entry(11), Attempt::Accepted);
    arrive(&ledger, [11]);
    ledger.leaves(NODE);
    ledger.attempts(entry(12));
    ledger.concludes(entry(12), Attempt::Accepted);
    ledger.arrives("late", entry(12));
    let judgement = ledger.judge();
    let silent: Vec<u64> = judgement.receivers.values().map(|r| r.silent).collect();
    assert_eq!(silent, [1, 0], "{judgement}");
}

#[test]
fn what_is_beside_its_publisher_gets_everything_whatever_the_broker_says() {
    for (missing, broken_rules) in [
        (None, vec![]),
        (Some(3), vec![(Invariant::NoSilentLoss, 1)]),
    ] {
        let ledger = Ledger::new();
        ledger.joins_beside(NODE, 1);
        for number in 1..=4 {
            ledger.attempts(entry(number));
        }
        ledger.concludes(entry(2), Attempt::NotSent);
        ledger.concludes(entry(3), Attempt::Rejected);
        arrive(&ledger, (1..=4).filter(|number| Some(*number) != missing));
        assert_eq!(broken(&ledger.judge()), broken_rules);
    }
}

#[test]
fn what_was_not_sent_after_all_is_no_silent_loss_but_must_not_arrive() {
    let ledger = ten();
    ledger.withdraws(1, 0, 2);
    arrive(&ledger, (1..=10).filter(|number| ![4, 5].contains(number)));
    let judgement = ledger.judge();
    assert!(judgement.is_clean(), "{judgement}");
    assert_eq!(judgement.counts.withdrawn, 2);
    arrive(&ledger, [5]);
    let expected = [(Invariant::Rising, 1), (Invariant::NotSentStaysAway, 1)];
    assert_eq!(broken(&ledger.judge()), expected);
}

#[test]
fn a_loss_beyond_what_was_not_sent_is_silent() {
    let ledger = ten();
    ledger.withdraws(1, 0, 1);
    arrive(&ledger, (1..=10).filter(|number| ![4, 5].contains(number)));
    assert_eq!(broken(&ledger.judge()), [(Invariant::NoSilentLoss, 1)]);
}

#[test]
fn a_measure_beyond_its_bound_breaks_i8() {
    let ledger = Ledger::new();
    ledger.measures("memory", 10, 10);
    assert!(ledger.judge().is_clean());
    ledger.measures("memory", 11, 10);
    ledger.measures("memory", 3, 10);
    let judgement = ledger.judge();
    assert_eq!(broken(&judgement), [(Invariant::Bounded, 1)]);
    assert_eq!(judgement.violations[0].receiver, "memory");
}

#[test]
fn finals_of_a_peace_that_did_not_hold_are_not_owed() {
    let ledger = ten();
    ledger.finals();
    ledger.attempts(entry(11));
    arrive(&ledger, 1..=10);
    assert_eq!(broken(&ledger.judge()), [(Invariant::FinalsArrive, 1)]);
    ledger.unsettles();
    assert!(ledger.judge().is_clean());
}
