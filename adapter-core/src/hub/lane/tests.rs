//! Who may publish, and that nobody sleeps while there is something to look at.

use std::{
    future::pending,
    sync::atomic::AtomicUsize,
    task::{Wake, Waker},
};

use socketioxide_core::adapter::BroadcastOptions;

use super::*;
use crate::wire::NativeWire;

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A lane and its writer.
struct Bench {
    lane: Lane,
    woken: Arc<Count>,
    waker: Waker,
}

impl Bench {
    /// A lane whose writer is asleep with nothing on its way.
    fn idle() -> Self {
        let woken = Arc::<Count>::default();
        let bench = Self {
            lane: Lane::new(
                Topic::Namespace("/".into()),
                Arc::new(NativeWire::new()),
                BufferLimits::default(),
                1 << 10,
                1 << 20,
            ),
            waker: Waker::from(woken.clone()),
            woken,
        };
        assert!(matches!(bench.lane.begin_turn(), Turn::Free));
        assert!(bench.polls_in_vain(true));
        bench
    }

    /// Whether the writer goes on sleeping when it is polled.
    fn polls_in_vain(&self, idle: bool) -> bool {
        let cx = Context::from_waker(&self.waker);
        self.lane.poll_woken(&cx, idle).is_pending()
    }

    fn claim(&self) -> Option<Claim> {
        let envelope = Envelope::Disconnect {
            opts: BroadcastOptions::default(),
        };
        let pushed = self.lane.push_or_claim(None, &envelope, false);
        pushed.unwrap().1
    }

    /// Hands a claimed frame over, whose outcome is not there yet.
    fn started(&self, claim: Claim) {
        let Claim { batch, writer } = claim;
        let sealed = Sealed {
            payload: Bytes::new(),
            seq: 1,
            count: 1,
            bytes: batch.bytes,
            since: batch.since,
            waiters: batch.waiters,
            maybe_sent: false,
            handed_over: Arc::default(),
            last_error: ErrorKind::LinkDown,
            void: false,
        };
        self.lane
            .started(writer, sealed, Box::pin(pending()), false);
    }

    fn woken(&self) -> usize {
        self.woken.0.load(Relaxed)
    }
}

#[test]
fn an_outcome_before_the_frame_is_handed_over_wakes_the_writer_once_more() {
    let bench = Bench::idle();
    let claim = bench.claim().unwrap();
    // The outcome wakes the writer, which finds nothing yet and sleeps on.
    assert!(bench.polls_in_vain(true));
    bench.started(claim);
    assert_eq!(bench.woken(), 1);
    assert!(matches!(bench.lane.begin_turn(), Turn::Started(..)));
}

#[test]
fn while_one_caller_publishes_no_other_does_whatever_wakes_the_writer() {
    let bench = Bench::idle();
    let first = bench.claim().unwrap();
    assert!(bench.polls_in_vain(true));
    assert!(bench.claim().is_none());
    // The second message has woken the writer; it waits for the first caller all the same.
    assert_eq!(bench.woken(), 1);
    assert!(matches!(bench.lane.begin_turn(), Turn::Busy));
    bench.started(first);
    assert!(matches!(bench.lane.begin_turn(), Turn::Started(..)));
    assert_eq!(
        bench.lane.take_batch().map(|batch| batch.buf.count()),
        Some(1)
    );
}

#[test]
fn with_the_frame_handed_over_the_writer_does_not_sleep() {
    let bench = Bench::idle();
    let claim = bench.claim().unwrap();
    bench.started(claim);
    assert!(!bench.polls_in_vain(true));
}

/// The names of rooms are no part of the estimate.
fn to_room(length: usize) -> Envelope {
    let mut opts = BroadcastOptions::default();
    opts.rooms.push("r".repeat(length).into());
    Envelope::Disconnect { opts }
}

#[test]
fn what_does_not_fit_harms_nothing_that_was_taken() {
    const MOST: usize = 4 << 10;
    let lane = Lane::new(
        Topic::Namespace("/".into()),
        Arc::new(NativeWire::new()),
        BufferLimits::default(),
        MOST,
        MOST,
    );
    for _ in 0..3 {
        let push = lane.push(None, &to_room(200), false);
        assert!(matches!(push, Ok(Push::Queued)));
    }
    let refused = lane.push(None, &to_room(MOST), false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    // Too large for this frame, but not for one of its own.
    let push = lane.push(None, &to_room(MOST - 300), false);
    assert!(matches!(push, Ok(Push::Queued)));
    let counts = std::iter::from_fn(|| Some(lane.take_batch()?.buf.count()));
    assert_eq!(counts.collect::<Vec<_>>(), [3, 1]);
    let state = lane.lock();
    assert_eq!((state.envelopes, state.taken), (4, 4));
}
