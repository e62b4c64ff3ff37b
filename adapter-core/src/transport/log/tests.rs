//! Cursors against a log that grows, is trimmed, and is lost.

use futures_util::FutureExt as _;
use tokio::sync::oneshot;

use super::*;
use crate::{
    error::{Error, ErrorKind, Result},
    transport::{BufferLimits, Continuity, Event, LossCause, Subscription},
};

const LOG: &str = "log";
/// What the log of the tests surely keeps.
const KEPT: u64 = 100;

/// A broker with one log, whose entries carry their ids.
#[derive(Debug, Default)]
struct Broker {
    epoch: u64,
    /// The ids before this one are trimmed.
    trimmed: u64,
    /// The last id.
    last: u64,
    /// Topics of the entries, from id 1 on.
    topics: Vec<Option<String>>,
    /// It does not tell how many entries the log ever had.
    counts_nothing: bool,
}

impl Broker {
    fn publish(&mut self, count: u64) {
        self.last += count;
        self.topics.resize(self.last as usize, None);
    }

    fn publish_to(&mut self, topic: &str) {
        self.last += 1;
        self.topics.push(Some(topic.to_owned()));
    }

    /// Trims all but so many.
    fn trim(&mut self, length: u64) {
        self.trimmed = self.trimmed.max(self.last.saturating_sub(length));
    }

    /// As many as `count` entries from `from` on.
    fn entries(&self, from: u64, count: usize) -> Vec<Entry<u64>> {
        let entry = |id: u64| Entry {
            id,
            topic: self.topics[id as usize - 1].clone(),
            payload: Some(id.to_string().into()),
        };
        let left = from.max(self.trimmed + 1)..=self.last;
        left.take(count).map(entry).collect()
    }

    fn snapshot(&self, due: &Due<u64>, page: usize) -> Snapshot<u64> {
        let entries = match due.from {
            Some(from) => self.entries(from, page + 1),
            None => Vec::new(),
        };
        Snapshot {
            epoch: self.epoch,
            added: (!self.counts_nothing).then_some(self.last),
            length: self.last - self.trimmed,
            first: (self.trimmed < self.last).then_some(self.trimmed + 1),
            last: self.last,
            more: entries.last().is_some_and(|entry| entry.id < self.last),
            entries,
        }
    }

    /// Looks at all that is due, once.
    fn look(&self, cursors: &Cursors<u64>, page: usize) {
        for due in cursors.due() {
            cursors.advance(due.cursor, &self.snapshot(&due, page));
        }
    }

    /// Reads behind the end of the log, once.
    fn read(&self, cursors: &Cursors<u64>, page: usize) {
        if let Some(end) = cursors.ends().logs.get(LOG) {
            let entries = self.entries(end + 1, page);
            let all = entries.len() < page;
            cursors.hand_out(LOG, &entries, all);
        }
    }

    /// Lets a session go on until there is nothing left to read.
    fn settle(&self, cursors: &Cursors<u64>) {
        while cursors.changed().now_or_never().is_some() || cursors.ends().behind {
            self.look(cursors, 3);
        }
        self.read(cursors, 50);
    }
}

type Confirmation = oneshot::Receiver<Result<()>>;

fn add(cursors: &Cursors<u64>, topic: Option<&str>, room: usize) -> (Subscription, Confirmation) {
    let place = Place {
        log: LOG.into(),
        topic: topic.map(Into::into),
        kept: KEPT,
    };
    cursors.add(place, BufferLimits::new(room, 1 << 20))
}

/// One that has heard that it has a position.
fn listen(cursors: &Cursors<u64>, broker: &Broker, topic: Option<&str>) -> Subscription {
    let (subscription, confirmation) = add(cursors, topic, 1_000);
    broker.look(cursors, 3);
    assert!(is_confirmed(confirmation));
    subscription
}

fn is_confirmed(confirmation: Confirmation) -> bool {
    matches!(confirmation.now_or_never(), Some(Ok(Ok(()))))
}

fn heard(subscription: &mut Subscription) -> Vec<Event> {
    std::iter::from_fn(|| subscription.recv().now_or_never().flatten()).collect()
}

fn messages(ids: impl IntoIterator<Item = u64>) -> Vec<Event> {
    let message = |id: u64| Event::Message(id.to_string().into());
    ids.into_iter().map(message).collect()
}

const fn resumed(replayed: u64) -> Event {
    Event::Resumed(Continuity::Unbroken { replayed })
}

const fn lost(count: Option<u64>, cause: LossCause) -> Event {
    Event::Resumed(Continuity::Lost { count, cause })
}

#[test]
fn who_is_added_hears_what_comes_after_the_answer_and_nothing_before() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    broker.publish(10);
    let (mut inbox, confirmation) = add(&cursors, None, 100);
    assert!(cursors.changed().now_or_never().is_some() && cursors.ends().behind);
    broker.look(&cursors, 3);
    assert!(is_confirmed(confirmation));
    assert!(cursors.due().is_empty() && !cursors.ends().behind);
    broker.publish(5);
    broker.read(&cursors, 50);
    assert_eq!(heard(&mut inbox), messages(11..=15));
    // Who comes to the same place is no other question.
    let (_other, _) = add(&cursors, None, 100);
    broker.look(&cursors, 3);
    cursors.doubt();
    assert_eq!(cursors.due().len(), 1);
}

#[test]
fn a_thousand_that_start_together_are_one_question_and_who_comes_later_is_another() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let mut first: Vec<_> = (0..1_000).map(|_| add(&cursors, None, 10)).collect();
    let asked = cursors.due();
    assert_eq!(asked.len(), 1);
    let answer = broker.snapshot(&asked[0], 3);
    broker.publish(1);
    let (mut late, confirmation) = add(&cursors, None, 10);
    cursors.advance(asked[0].cursor, &answer);
    assert!(!is_confirmed(confirmation));
    broker.settle(&cursors);
    broker.publish(1);
    broker.settle(&cursors);
    // The end of the first was before the entry that the other must not hear.
    assert_eq!(heard(&mut late), messages([2]));
    assert!(
        first
            .iter_mut()
            .all(|it| heard(&mut it.0) == messages([1, 2]))
    );
    // All stand at one place again.
    cursors.doubt();
    assert_eq!(cursors.due().len(), 1);
}

#[test]
fn a_session_tells_once_what_became_of_the_log_and_reads_on_in_pages() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let mut inbox = listen(&cursors, &broker, None);
    broker.publish(2);
    broker.read(&cursors, 50);
    cursors.end();
    broker.publish(8);
    broker.look(&cursors, 0);
    assert!(cursors.ends().behind && cursors.ends().logs.is_empty());
    broker.settle(&cursors);
    let told = [messages(1..=2), vec![resumed(8)], messages(3..=10)];
    assert_eq!(heard(&mut inbox), told.concat());
    // Two outages with nothing between.
    cursors.end();
    broker.settle(&cursors);
    cursors.end();
    broker.settle(&cursors);
    assert_eq!(heard(&mut inbox), [resumed(0)]);
}

#[test]
fn what_was_trimmed_during_an_outage_is_told_exactly_and_so_is_another_log() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let mut inbox = listen(&cursors, &broker, None);
    cursors.end();
    broker.publish(150);
    broker.trim(KEPT);
    broker.settle(&cursors);
    let mut told = heard(&mut inbox);
    assert_eq!(told.remove(0), lost(Some(50), LossCause::Trimmed));
    assert_eq!(told, messages(51..=150));
    // Deleted by hand, amid a session, and begun anew.
    broker = Broker {
        epoch: 1,
        ..Broker::default()
    };
    broker.publish(1);
    cursors.doubt();
    broker.settle(&cursors);
    broker.publish(1);
    broker.settle(&cursors);
    let told = [vec![lost(None, LossCause::Reset)], messages([2])];
    assert_eq!(heard(&mut inbox), told.concat());
}

#[test]
fn losses_are_exact_again_as_soon_as_the_broker_counts() {
    let mut broker = Broker {
        counts_nothing: true,
        ..Broker::default()
    };
    let cursors = Cursors::default();
    let mut inbox = listen(&cursors, &broker, None);
    let mut outage = |broker: &mut Broker, published: u64| {
        cursors.end();
        broker.publish(published);
        broker.trim(KEPT);
        broker.settle(&cursors);
        heard(&mut inbox).remove(0)
    };
    let uncounted = lost(None, LossCause::Trimmed);
    assert_eq!(outage(&mut broker, 150), uncounted);
    broker.counts_nothing = false;
    assert_eq!(outage(&mut broker, 0), resumed(0));
    assert_eq!(outage(&mut broker, 150), lost(Some(50), LossCause::Trimmed));
}

#[test]
fn what_may_have_been_trimmed_before_it_was_read_is_looked_at_instead() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let mut inbox = listen(&cursors, &broker, None);
    // There may be more than these, and what is before them may be gone.
    broker.publish(150);
    broker.trim(KEPT);
    broker.read(&cursors, 20);
    assert_eq!(heard(&mut inbox), []);
    broker.settle(&cursors);
    let told = [vec![Event::Lagged(50)], messages(51..=150)];
    assert_eq!(heard(&mut inbox), told.concat());
    // All there is, but as many as a log has that was trimmed.
    broker.publish(120);
    broker.trim(KEPT);
    broker.read(&cursors, 1_000);
    assert_eq!(heard(&mut inbox), []);
}

#[test]
fn a_log_that_keeps_nothing_for_sure_is_looked_at_for_each_entry() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let by_age = Place {
        log: LOG.into(),
        topic: None,
        kept: 0,
    };
    let (mut inbox, _) = cursors.add(by_age, BufferLimits::default());
    broker.settle(&cursors);
    broker.publish(1);
    broker.read(&cursors, 50);
    assert_eq!(heard(&mut inbox), []);
    broker.settle(&cursors);
    assert_eq!(heard(&mut inbox), messages([1]));
}

#[test]
fn one_that_is_full_waits_alone_and_is_told_what_it_missed() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let mut quick = listen(&cursors, &broker, None);
    let (mut slow, _) = add(&cursors, None, 10);
    broker.settle(&cursors);
    for _ in 0..10 {
        broker.publish(40);
        broker.trim(KEPT);
        broker.read(&cursors, 50);
    }
    assert_eq!(heard(&mut quick), messages(1..=400));
    assert!(!cursors.ends().behind);
    // It has room for what it waited for, and then for more; meanwhile nobody asks for it.
    assert_eq!(heard(&mut slow), messages(1..=10));
    broker.settle(&cursors);
    let told = [
        messages([11]),
        vec![Event::Lagged(289)],
        messages(301..=309),
    ];
    assert_eq!(heard(&mut slow), told.concat());
    let rest = std::iter::from_fn(|| {
        broker.settle(&cursors);
        Some(heard(&mut slow)).filter(|events| !events.is_empty())
    });
    assert_eq!(rest.flatten().collect::<Vec<_>>(), messages(310..=400));
    cursors.doubt();
    assert_eq!(cursors.due().len(), 1);
}

#[test]
fn what_a_full_one_waited_for_comes_once_also_if_the_session_ends() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let (mut slow, _) = add(&cursors, None, 1);
    broker.settle(&cursors);
    broker.publish(3);
    broker.read(&cursors, 50);
    cursors.end();
    assert_eq!(heard(&mut slow), messages([1]));
    // Nothing of the session before comes now.
    assert!(cursors.changed().now_or_never().is_none());
    assert_eq!(heard(&mut slow), []);
    broker.settle(&cursors);
    let told = [vec![resumed(2)], messages([2])];
    assert_eq!(heard(&mut slow), told.concat());
    broker.settle(&cursors);
    assert_eq!(heard(&mut slow), messages([3]));
}

#[tokio::test]
async fn whoever_waits_for_something_to_do_is_woken_by_room_and_by_a_listener() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let (mut slow, _) = add(&cursors, None, 1);
    broker.settle(&cursors);
    broker.publish(2);
    broker.read(&cursors, 50);
    let read = async {
        tokio::task::yield_now().await;
        slow.recv().await
    };
    let ((), first) = tokio::join!(cursors.changed(), read);
    assert_eq!(first.into_iter().collect::<Vec<_>>(), messages([1]));
    let adding = async {
        tokio::task::yield_now().await;
        add(&cursors, None, 1)
    };
    tokio::join!(cursors.changed(), adding);
    assert!(cursors.changed().now_or_never().is_none());
}

#[test]
fn topics_that_share_a_log_do_not_mix_and_each_is_told_what_is_its_own() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let [mut a, mut b] = ["a", "b"].map(|topic| listen(&cursors, &broker, Some(topic)));
    for topic in ["a", "b", "a"] {
        broker.publish_to(topic);
    }
    broker.publish(1);
    broker.read(&cursors, 50);
    assert_eq!(heard(&mut a), messages([1, 3]));
    assert_eq!(heard(&mut b), messages([2]));
    cursors.end();
    broker.publish_to("a");
    // As many as the page has; how many of those that are gone were ours, nobody knows.
    for due in cursors.due() {
        cursors.advance(due.cursor, &broker.snapshot(&due, 10));
    }
    assert_eq!(heard(&mut a), [vec![resumed(1)], messages([5])].concat());
    assert_eq!(heard(&mut b), [resumed(0)]);
    broker.publish(150);
    broker.trim(KEPT);
    cursors.end();
    broker.settle(&cursors);
    assert_eq!(heard(&mut a), [lost(None, LossCause::Trimmed)]);
}

#[test]
fn what_is_nobodys_counts_and_is_passed_over() {
    let (cursors, broker) = (Cursors::default(), Broker::default());
    let mut inbox = listen(&cursors, &broker, None);
    let entry = |id: u64, payload: Option<&'static str>| Entry {
        id,
        topic: None,
        payload: payload.map(Into::into),
    };
    cursors.hand_out(LOG, &[entry(1, None), entry(2, Some("2"))], true);
    assert_eq!(heard(&mut inbox), messages([2]));
    assert_eq!(cursors.ends().logs.get(LOG), Some(&2));
}

#[test]
fn a_refusal_is_for_those_who_wait_and_an_end_is_for_all() {
    let (cursors, broker) = (Cursors::default(), Broker::default());
    let mut inbox = listen(&cursors, &broker, None);
    let (_refused, confirmation) = add(&cursors, None, 10);
    let due = cursors.due();
    cursors.refuse(due[0].cursor, || {
        Error::new(ErrorKind::Unauthorized, "test", "no")
    });
    let answer = confirmation.now_or_never().unwrap().unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unauthorized);
    // The session ends before there is an answer.
    let (_waiting, confirmation) = add(&cursors, None, 10);
    cursors.end();
    assert!(confirmation.now_or_never().unwrap().is_err());
    assert_eq!(cursors.due().len(), 1);
    cursors.close();
    assert_eq!(inbox.recv().now_or_never(), Some(None));
    let (mut late, confirmation) = add(&cursors, None, 10);
    assert_eq!(late.recv().now_or_never(), Some(None));
    assert!(confirmation.now_or_never().unwrap().is_err() && cursors.due().is_empty());
}

#[test]
fn who_was_dropped_is_forgotten_also_while_it_was_waited_for() {
    let (cursors, mut broker) = (Cursors::default(), Broker::default());
    let quick = listen(&cursors, &broker, None);
    let (slow, _) = add(&cursors, None, 1);
    broker.settle(&cursors);
    broker.publish(5);
    broker.read(&cursors, 50);
    drop((quick, slow));
    assert!(cursors.changed().now_or_never().is_some());
    assert!(cursors.due().is_empty() && cursors.ends().logs.is_empty());
    assert!(!format!("{cursors:?}").contains("Listener"));
}

/// A thousand lives of a log and its listeners, each drawn from a seed: whatever happens in whatever order, each listener
/// hears or is told of each entry once, in order.
#[test]
fn whatever_happens_each_entry_is_heard_or_counted_once() {
    for seed in 0..1_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (cursors, mut broker) = (Cursors::default(), Broker::default());
        let mut listeners: Vec<(Subscription, u64)> = Vec::new();
        let listen = |event: Event, at: &mut u64| match event {
            Event::Message(id) => {
                *at += 1;
                assert_eq!(id, at.to_string(), "seed {seed}");
            }
            Event::Lagged(count)
            | Event::Resumed(Continuity::Lost {
                count: Some(count),
                cause: LossCause::Trimmed,
            }) => *at += count,
            event => assert!(
                matches!(event, Event::Resumed(Continuity::Unbroken { .. })),
                "seed {seed}: {event:?}"
            ),
        };
        for _ in 0..200 {
            match random.u8(..10) {
                0 if listeners.len() < 5 => {
                    let (subscription, confirmation) = add(&cursors, None, random.usize(1..20));
                    broker.look(&cursors, random.usize(..9));
                    assert!(is_confirmed(confirmation), "seed {seed}");
                    listeners.push((subscription, broker.last));
                }
                1 => cursors.end(),
                2 => cursors.doubt(),
                3 => broker.trim(KEPT),
                4 => drop(cursors.changed().now_or_never()),
                5 | 6 => broker.publish(random.u64(..60)),
                7 => broker.look(&cursors, random.usize(..9)),
                8 => broker.read(&cursors, random.usize(1..90)),
                _ => {
                    for (subscription, at) in &mut listeners {
                        let events = std::iter::from_fn(|| subscription.recv().now_or_never()?);
                        events
                            .take(random.usize(..30))
                            .for_each(|event| listen(event, at));
                    }
                }
            }
        }
        for (subscription, at) in &mut listeners {
            while *at < broker.last {
                broker.settle(&cursors);
                let events = heard(subscription);
                assert!(!events.is_empty(), "seed {seed}: stuck at {at}");
                events.into_iter().for_each(|event| listen(event, at));
            }
        }
    }
}
