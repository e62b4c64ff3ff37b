//! Single rules of the receive filter; `model` judges them all together on random histories.

use super::*;

const HOLD: Duration = Duration::from_millis(250);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn filter() -> ReceiveFilter {
    ReceiveFilter::new(HOLD, 4_096)
}

/// A filter that is live, the time, and the start of an origin that began to send a second later.
fn live() -> (ReceiveFilter, Instant, Option<Instant>) {
    let mut filter = filter();
    let now = Instant::now();
    filter.live(now);
    (filter, now + ms(2_000), Some(now + ms(1_000)))
}

fn origin() -> NodeId {
    NodeId::numbered(1)
}

fn gap(from: u64, to: u64) -> Gap {
    let origin = origin();
    Gap { origin, from, to }
}

#[test]
fn numbers_seen_before_are_skipped_also_in_part() {
    let (mut filter, now, young) = live();
    assert_eq!(filter.on_data(now, origin(), 1, 3, young), 0);
    assert_eq!(filter.on_data(now, origin(), 1, 3, young), 3);
    assert_eq!(filter.on_data(now, origin(), 2, 4, young), 2);
    assert_eq!(filter.on_data(now, origin(), 6, 1, young), 0);
    assert_eq!(filter.next_deadline(), None);
}

#[test]
fn a_jump_is_delivered_at_once_and_its_gap_reported_once_after_the_hold() {
    let (mut filter, now, young) = live();
    filter.on_data(now, origin(), 1, 1, young);
    assert_eq!(filter.on_data(now, origin(), 5, 2, young), 0);
    assert_eq!(filter.next_deadline(), Some(now + HOLD));
    assert_eq!(filter.poll(now + HOLD - ms(1)), []);
    assert_eq!(filter.poll(now + HOLD), [gap(2, 4)]);
    assert_eq!(filter.poll(now + HOLD * 2), []);
    assert_eq!(filter.flush(), []);
}

#[test]
fn a_void_cancels_exactly_its_part_of_a_gap() {
    let (mut filter, now, young) = live();
    filter.on_data(now, origin(), 1, 1, young);
    filter.on_data(now, NodeId::numbered(2), 7, 1, young);
    filter.on_data(now, origin(), 10, 1, young);
    filter.on_void(now, origin(), 4, 2, young);
    filter.on_void(now, origin(), 9, 1, young);
    let other = Gap {
        origin: NodeId::numbered(2),
        from: 1,
        to: 6,
    };
    assert_eq!(filter.poll(now + HOLD), [other, gap(2, 3), gap(6, 8)]);
}

#[test]
fn a_void_ahead_is_no_gap_but_what_it_jumps_over_is() {
    let (mut filter, now, young) = live();
    filter.on_data(now, origin(), 1, 1, young);
    filter.on_void(now, origin(), 2, 3, young);
    assert_eq!(filter.on_data(now, origin(), 5, 1, young), 0);
    filter.on_void(now, origin(), 8, 1, young);
    assert_eq!(filter.on_data(now, origin(), 9, 1, young), 0);
    assert_eq!(filter.flush(), [gap(6, 7)]);
}

#[test]
fn a_tail_reveals_a_lost_last_frame() {
    let (mut filter, now, young) = live();
    filter.on_data(now, origin(), 1, 1, young);
    filter.on_tail(now, origin(), 2, young);
    assert_eq!(filter.next_deadline(), None);
    filter.on_tail(now, origin(), 4, young);
    filter.on_tail(now, origin(), 4, young);
    assert_eq!(filter.poll(now + HOLD), [gap(2, 3)]);
}

#[test]
fn what_comes_late_is_dropped_and_stays_in_its_gap() {
    let (mut filter, now, young) = live();
    filter.on_data(now, origin(), 1, 1, young);
    filter.on_data(now, origin(), 4, 1, young);
    assert_eq!(filter.on_data(now, origin(), 1, 4, young), 4);
    assert_eq!(filter.poll(now + HOLD), [gap(2, 3)]);
}

#[test]
fn nothing_counts_before_the_topic_is_live() {
    let mut filter = filter();
    let now = Instant::now();
    let start = Some(now);
    assert_eq!(filter.on_data(now, origin(), 7, 1, start), 0);
    assert_eq!(filter.on_data(now, origin(), 9, 1, start), 0);
    assert_eq!(filter.on_data(now, origin(), 9, 1, start), 1);
    assert_eq!(filter.next_deadline(), None);
    filter.live(now);
    assert_eq!(filter.on_data(now, origin(), 12, 1, start), 0);
    assert_eq!(filter.poll(now + HOLD), [gap(10, 11)]);
}

#[test]
fn an_origin_heard_before_the_topic_is_live_owes_nothing_whatever_its_presence_says() {
    let mut filter = filter();
    let now = Instant::now();
    filter.on_data(now, origin(), 7, 1, None);
    filter.live(now);
    let delayed_presence = Some(now + ms(300));
    filter.on_data(now + ms(400), origin(), 8, 1, delayed_presence);
    assert_eq!(filter.flush(), []);
}

#[test]
fn only_an_origin_that_started_after_we_listened_owes_its_first_numbers() {
    let mut filter = filter();
    let live = Instant::now();
    filter.live(live);
    // Later calls, after each reconnect, do not move the beginning.
    filter.live(live + ms(500));
    let starts = [live - ms(2), live - ms(1), live].map(Some);
    for (n, start) in (0..).zip(starts) {
        filter.on_data(live + ms(900), NodeId::numbered(n), 3, 1, start);
    }
    let missing = Gap {
        origin: NodeId::numbered(2),
        from: 1,
        to: 2,
    };
    assert_eq!(filter.flush(), [missing]);
}

#[test]
fn the_first_numbers_are_judged_once_the_start_is_known() {
    let (mut filter, now, young) = live();
    let old = Some(now - ms(10_000));
    filter.on_data(now, origin(), 3, 1, None);
    filter.on_tail(now, NodeId::numbered(2), 3, None);
    filter.on_data(now + ms(100), origin(), 4, 1, None);
    assert_eq!(filter.next_deadline(), None);
    filter.on_data(now + ms(200), origin(), 5, 1, young);
    filter.on_data(now + ms(200), NodeId::numbered(2), 3, 1, old);
    filter.on_data(now + ms(200), NodeId::numbered(2), 4, 1, young);
    assert_eq!(filter.poll(now + ms(200) + HOLD), [gap(1, 2)]);
}

#[test]
fn hostile_numbers_do_no_harm() {
    let (mut filter, now, young) = live();
    assert_eq!(filter.on_data(now, origin(), 0, 0, young), 0);
    assert_eq!(filter.on_data(now, origin(), 0, 3, young), 1);
    filter.on_tail(now, origin(), 0, young);
    filter.on_void(now, origin(), 0, u32::MAX, young);
    let high = u64::from(u32::MAX) - 1;
    assert_eq!(filter.on_data(now, origin(), high, 2, young), 1);
    filter.on_data(now, origin(), u64::MAX, u32::MAX, young);
    filter.on_void(now, origin(), u64::MAX, u32::MAX, young);
    filter.on_tail(now, origin(), u64::MAX, young);
    assert_eq!(filter.on_data(now, origin(), 1, u32::MAX, young), u32::MAX);
    let all = filter.flush();
    assert_eq!(all, [gap(high + 2, u64::MAX - 1)]);
    let everything = gap(0, u64::MAX);
    assert_eq!(everything.count(), u64::MAX);
}

#[test]
fn a_loss_after_a_day_of_silence_is_still_found() {
    let (mut filter, now, young) = live();
    filter.on_data(now, origin(), 1, 1, young);
    let back = now + Duration::from_secs(24 * 3600);
    assert_eq!(filter.on_data(back, origin(), 9, 1, young), 0);
    assert_eq!(filter.flush(), [gap(2, 8)]);
}

#[test]
fn the_longest_silent_origin_makes_room() {
    let mut filter = ReceiveFilter::new(HOLD, 2);
    let now = Instant::now();
    filter.live(now);
    let hear = |filter: &mut ReceiveFilter, after, n| {
        filter.on_data(now + ms(after), NodeId::numbered(n), 1, 1, None)
    };
    hear(&mut filter, 0, 1);
    hear(&mut filter, 1, 2);
    hear(&mut filter, 2, 1);
    hear(&mut filter, 3, 3);
    assert_eq!(filter.origins.len(), 2);
    assert_eq!(hear(&mut filter, 4, 1), 1, "still remembered");
    assert_eq!(hear(&mut filter, 5, 2), 0, "forgotten");
}

#[test]
fn an_origin_that_comes_back_after_it_made_room_owes_nothing() {
    let mut filter = ReceiveFilter::new(HOLD, 1);
    let live = Instant::now();
    filter.live(live);
    let young = Some(live + ms(100));
    filter.on_data(live + ms(200), origin(), 1, 1, young);
    filter.on_data(live + ms(300), NodeId::numbered(2), 1, 1, young);
    assert_eq!(filter.on_data(live + ms(400), origin(), 9, 1, young), 0);
    assert_eq!(filter.flush(), [], "2 to 8 may have been delivered");
}

#[test]
fn too_many_open_gaps_make_the_oldest_due_at_once() {
    let (mut filter, now, young) = live();
    let later = now + ms(1);
    for n in 0..=MAX_OPEN_GAPS as u64 {
        assert_eq!(filter.next_deadline().filter(|&at| at <= later), None);
        let at = if n == 0 { now } else { later };
        filter.on_data(at, origin(), 2 * n + 2, 1, young);
    }
    assert_eq!(filter.next_deadline(), Some(later));
    assert_eq!(filter.poll(later), [gap(1, 1)]);
    assert_eq!(filter.open.len(), MAX_OPEN_GAPS);
    filter.on_void(later, origin(), 2, 1, young);
    assert_eq!(filter.open.len(), MAX_OPEN_GAPS, "nothing to cut");
}
