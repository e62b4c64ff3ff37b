//! Tests of the table of topics.

use super::*;
use crate::{error::ErrorKind, transport::Event};

type Confirmation = Option<oneshot::Receiver<Result<()>>>;

fn add(topics: &Topics, kept: bool) -> (Subscription, Confirmation) {
    topics.add("t", kept, BufferLimits::default())
}

fn names() -> Vec<Name> {
    vec!["t".into()]
}

fn unknown(_: &str) -> Continuity {
    Continuity::Unknown
}

fn subscribe(topics: &Topics, from: u64) {
    assert_eq!(topics.differences().missing, names());
    topics.ask(&names());
    assert_eq!(topics.differences(), Differences::default());
    topics.confirm(&names(), from, unknown);
}

fn read(subscription: &mut Subscription) -> Option<Event> {
    subscription.recv().now_or_never().flatten()
}

fn message(payload: &'static str) -> Option<Event> {
    Some(Event::Message(payload.into()))
}

fn is_confirmed(confirmation: Confirmation) -> bool {
    let answer = confirmation.and_then(|it| it.now_or_never());
    matches!(answer, Some(Ok(Ok(()))))
}

async fn pass(topics: &Topics, position: u64, payload: &'static str) {
    let patience = Duration::from_secs(5);
    topics.pass("t", position, payload.into(), patience).await;
}

#[test]
fn a_session_resumes_before_anything_of_it_arrives() {
    let topics = Topics::default();
    let (mut subscription, confirmation) = add(&topics, false);
    assert!(topics.changed().now_or_never().is_some());
    subscribe(&topics, 0);
    assert!(is_confirmed(confirmation));
    topics.push(0, "t", "first".into());
    topics.end(false);
    // A reader of the session before is not heard any more, and what comes before the confirmation may have holes.
    topics.push(0, "t", "late".into());
    topics.push(1, "t", "early".into());
    assert!(!topics.is_subscribed("t"));
    subscribe(&topics, 0);
    assert!(topics.is_subscribed("t"));
    topics.push(topics.session(), "t", "second".into());
    assert_eq!(read(&mut subscription), message("first"));
    let resumed = Event::Resumed(Continuity::Unknown);
    assert_eq!(read(&mut subscription), Some(resumed));
    assert_eq!(read(&mut subscription), message("second"));
    assert_eq!(read(&mut subscription), None);
    drop(subscription);
    assert_eq!(topics.differences().unwanted, names());
}

#[test]
fn what_is_opened_counts_but_is_confirmed_later_and_resumed_once() {
    let topics = Topics::default();
    let (mut had_it, _) = add(&topics, false);
    subscribe(&topics, 0);
    topics.end(false);
    let (_new, confirmation) = add(&topics, false);
    topics.ask(&names());
    topics.open(&names(), unknown);
    topics.push(1, "t", "between".into());
    topics.confirm(&names(), 0, unknown);
    assert!(is_confirmed(confirmation));
    let resumed = Event::Resumed(Continuity::Unknown);
    assert_eq!(read(&mut had_it), Some(resumed));
    assert_eq!(read(&mut had_it), message("between"));
    assert_eq!(read(&mut had_it), None);
}

#[test]
fn a_fence_that_comes_back_confirms_what_was_asked_for_before_it_in_its_session() {
    let topics = Topics::default();
    let ends = topics.fence(names());
    topics.end(false);
    let (_one, one) = add(&topics, false);
    let lost = topics.fence(names());
    let (_two, two) = topics.add("u", false, BufferLimits::default());
    let back = topics.fence(vec!["u".into()]);
    let (_three, three) = topics.add("v", false, BufferLimits::default());
    let later = topics.fence(vec!["v".into()]);
    topics.came_back(ends, 0, unknown);
    assert!(!topics.is_subscribed("t"));
    topics.came_back(back, 0, unknown);
    assert!(is_confirmed(one) && is_confirmed(two));
    topics.came_back(lost, 0, unknown);
    assert!(!topics.is_subscribed("v"));
    topics.came_back(later, 0, unknown);
    assert!(is_confirmed(three));
}

#[test]
fn a_topic_that_is_lost_is_missing_again_and_resumes() {
    let topics = Topics::default();
    let (mut subscription, _) = add(&topics, false);
    subscribe(&topics, 0);
    topics.lost("t");
    topics.push(0, "t", "rest".into());
    subscribe(&topics, 0);
    topics.push(0, "t", "new".into());
    let resumed = Event::Resumed(Continuity::Unknown);
    assert_eq!(read(&mut subscription), Some(resumed));
    assert_eq!(read(&mut subscription), message("new"));
}

#[test]
fn only_those_are_confirmed_on_whose_behalf_the_broker_was_asked() {
    let topics = Topics::default();
    let (_first, first) = add(&topics, true);
    topics.ask(&names());
    let (_second, second) = add(&topics, true);
    topics.confirm(&names(), 5, unknown);
    assert!(is_confirmed(first));
    assert_eq!(topics.differences().missing, names());
    assert!(!is_confirmed(second));
    // What the broker does not keep cannot come from before.
    topics.end(false);
    let (_third, third) = add(&topics, false);
    subscribe(&topics, 0);
    assert!(is_confirmed(third));
    assert!(add(&topics, false).1.is_none());
}

#[tokio::test]
async fn a_listener_hears_what_comes_after_its_position() {
    let topics = Topics::default();
    let (mut one, _) = add(&topics, true);
    subscribe(&topics, 10);
    let (mut two, _) = add(&topics, true);
    subscribe(&topics, 20);
    for (position, payload) in [(9, "a"), (10, "b"), (19, "c"), (20, "d")] {
        pass(&topics, position, payload).await;
    }
    let heard = ["b", "c", "d"].map(message);
    assert_eq!([read(&mut one), read(&mut one), read(&mut one)], heard);
    assert_eq!(read(&mut two), message("d"));
    let lost = |_: &str| Some(Continuity::Unknown);
    topics.tell(15, lost);
    assert!(read(&mut one).is_some() && read(&mut two).is_none());
    topics.rewind();
    pass(&topics, 1, "e").await;
    assert_eq!(read(&mut two), message("e"));
}

#[test]
fn what_the_broker_keeps_stays_subscribed_and_is_told_how_it_goes_on() {
    let topics = Topics::default();
    let (mut subscription, _) = add(&topics, true);
    subscribe(&topics, 0);
    let _heartbeats = topics.add("cluster", false, BufferLimits::default());
    let others: Vec<Name> = vec!["cluster".into()];
    topics.ask(&others);
    topics.confirm(&others, 0, unknown);
    topics.end(true);
    assert_eq!(topics.differences().missing, others);
    let replayed = Continuity::Unbroken { replayed: 3 };
    topics.tell(u64::MAX, |_| Some(replayed));
    assert_eq!(read(&mut subscription), Some(Event::Resumed(replayed)));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_is_waited_for_once() {
    let topics = Topics::default();
    let (mut slow, _) = topics.add("t", true, BufferLimits::new(1, 100));
    subscribe(&topics, 0);
    let start = tokio::time::Instant::now();
    for payload in ["kept", "dropped", "dropped too"] {
        pass(&topics, 1, payload).await;
    }
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!(read(&mut slow), message("kept"));
    pass(&topics, 2, "back").await;
    assert_eq!(read(&mut slow), Some(Event::Lagged(2)));
    assert_eq!(read(&mut slow), message("back"));
    pass(&topics, 3, "fits").await;
    let waited = async { pass(&topics, 4, "waited for").await };
    let reading = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        (read(&mut slow), slow.recv().await)
    };
    let ((), heard) = tokio::join!(waited, reading);
    assert_eq!(heard, (message("fits"), message("waited for")));
}

#[test]
fn a_refusal_ends_those_who_wait_and_the_session_of_those_who_had_it() {
    let topics = Topics::default();
    let refused = || Error::new(ErrorKind::Unauthorized, "test", "no");
    let (subscription, confirmation) = add(&topics, false);
    topics.ask(&names());
    assert!(topics.refuse("t", refused).is_ok());
    let answer = confirmation.unwrap().now_or_never().unwrap().unwrap();
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unauthorized);
    drop(subscription);
    assert_eq!(topics.differences(), Differences::default());
    let (_had_it, _) = add(&topics, false);
    subscribe(&topics, 0);
    topics.end(false);
    assert!(topics.refuse("t", refused).is_err());
}

#[test]
fn who_waits_when_the_session_ends_waits_in_vain_and_the_end_ends_all() {
    let topics = Topics::default();
    let (_waiting, confirmation) = add(&topics, false);
    topics.end(false);
    assert!(matches!(confirmation.unwrap().now_or_never(), Some(Err(_))));
    let (mut subscription, _) = add(&topics, false);
    topics.close();
    assert_eq!(subscription.recv().now_or_never(), Some(None));
    let (mut late, confirmation) = add(&topics, false);
    assert!(confirmation.is_none());
    assert_eq!(late.recv().now_or_never(), Some(None));
}
