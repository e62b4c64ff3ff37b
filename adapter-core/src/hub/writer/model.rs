//! Random histories of one lane, its writer and a broker with moods: the lane is bounded, old messages are given up, the rest
//! keeps its order, and nothing is lost without a word.

use std::{collections::BTreeSet, sync::Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use socketioxide_core::adapter::BroadcastOptions;
use tokio::{
    runtime::Runtime,
    sync::{broadcast, oneshot},
    task::JoinHandle,
    time::sleep,
};

use super::*;
use crate::{
    ClusterConfig, NodeId,
    hub::{
        Push, VERSIONS,
        membership::{Membership, MembershipConfig},
    },
    transport::{BufferLimits, Capabilities, Delivery, LinkWatch, Subscription, Transport, link},
    wire::{Envelope, NativeWire, Payload, Wire},
};

/// Messages that the lane holds, and how long.
const LIMIT: usize = 12;
const MAX_AGE: Duration = Duration::from_secs(3);
/// How long a broker that stands still is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the answer to a frame to the next look at it.
const SLACK: Duration = Duration::from_secs(1);

/// What the broker does with a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Takes,
    Refuses,
    /// It cannot be reached.
    Away,
    /// The connection is lost before the answer; it has the frame, or not.
    Breaks {
        has_it: bool,
    },
    /// It does not answer in time; it has the frame, or not.
    StandsStill {
        has_it: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Push,
    Mood(Mood),
    /// Whether the topic delivers.
    Live(bool),
    Wait(u64),
}

/// What is done to the lane, and the time: what becomes of it is for the ledger.
#[derive(Debug, Clone)]
struct Story {
    mood: Mood,
    live: bool,
    /// Numbers before the first one that are withdrawn, for peers may wait for them.
    withdrawn: u64,
}

impl ReferenceStateMachine for Story {
    type State = Self;
    type Transition = Op;

    fn init_state() -> BoxedStrategy<Self> {
        let begin = |(live, withdrawn)| Self {
            mood: Mood::Takes,
            live,
            withdrawn,
        };
        (any::<bool>(), prop_oneof![Just(0), 1..20u64])
            .prop_map(begin)
            .boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Op> {
        let mood = prop_oneof![
            4 => Just(Mood::Takes),
            1 => Just(Mood::Refuses),
            1 => Just(Mood::Away),
            2 => any::<bool>().prop_map(|has_it| Mood::Breaks { has_it }),
            1 => any::<bool>().prop_map(|has_it| Mood::StandsStill { has_it }),
        ];
        prop_oneof![
            10 => Just(Op::Push),
            3 => mood.prop_map(Op::Mood),
            1 => any::<bool>().prop_map(Op::Live),
            4 => (0..1_500u64).prop_map(Op::Wait),
        ]
        .boxed()
    }

    /// What changes nothing is not worth a step.
    fn preconditions(story: &Self, op: &Op) -> bool {
        match op {
            Op::Mood(mood) => *mood != story.mood,
            Op::Live(live) => *live != story.live,
            Op::Push | Op::Wait(_) => true,
        }
    }

    fn apply(mut story: Self, op: &Op) -> Self {
        match op {
            Op::Mood(mood) => story.mood = *mood,
            Op::Live(live) => story.live = *live,
            Op::Push | Op::Wait(_) => {}
        }
        story
    }
}

#[derive(Debug)]
struct Broker {
    mood: Mutex<Mood>,
    /// The frames it has, in order.
    frames: Mutex<Vec<Bytes>>,
    link: LinkWatch,
}

#[async_trait]
impl Transport for Broker {
    fn name(&self) -> &'static str {
        "moody"
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Delivery::AtMostOnce)
    }
    async fn publish(&self, _: &Topic, payload: Bytes) -> Result<Receipt> {
        let mood = *self.mood.lock().unwrap();
        let fails = |kind| Err(Error::new(kind, "moody: publish", "on purpose"));
        let has_it = match mood {
            Mood::Takes => true,
            Mood::Refuses | Mood::Away => false,
            Mood::Breaks { has_it } | Mood::StandsStill { has_it } => has_it,
        };
        if has_it {
            self.frames.lock().unwrap().push(payload);
        }
        match mood {
            Mood::Takes => Ok(Receipt::default()),
            Mood::Refuses => fails(ErrorKind::Rejected),
            Mood::Away => fails(ErrorKind::LinkDown),
            Mood::Breaks { .. } => fails(ErrorKind::Interrupted),
            Mood::StandsStill { .. } => {
                sleep(PATIENCE).await;
                fails(ErrorKind::Timeout)
            }
        }
    }
    async fn subscribe(&self, _: &Topic) -> Result<Subscription> {
        Ok(Subscription::channel(BufferLimits::default()).1)
    }
    fn link(&self) -> LinkWatch {
        self.link.clone()
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// A message, and what became of it.
struct Message {
    since: Instant,
    waits: Option<oneshot::Receiver<Result<(), ErrorKind>>>,
    became: Option<Result<(), ErrorKind>>,
}

impl Message {
    fn is_unsent(&self) -> bool {
        matches!(self.became, Some(Err(kind)) if kind.outcome() != Outcome::Unknown)
    }
}

struct Outbox {
    runtime: Arc<Runtime>,
    lane: Arc<Lane>,
    wire: Arc<NativeWire>,
    broker: Arc<Broker>,
    live: watch::Sender<bool>,
    events: broadcast::Receiver<ClusterEvent>,
    writer: JoinHandle<()>,
    /// By the number that each carries, from 0.
    messages: Vec<Message>,
}

impl Outbox {
    fn push(&mut self) {
        let id = self.messages.len() as u64;
        let envelope = Envelope::Broadcast {
            opts: BroadcastOptions::default(),
            payload: Payload {
                text: false,
                data: id.to_le_bytes().to_vec().into(),
                attachments: None,
            },
        };
        let full = self.waiting().count() == LIMIT;
        match self.lane.push(None, &envelope, true).unwrap() {
            Push::Confirm(waits) => {
                assert!(!full, "the lane holds more than its limit");
                self.messages.push(Message {
                    since: Instant::now(),
                    waits: Some(waits),
                    became: None,
                });
            }
            Push::Full => assert!(full, "the lane is not full"),
            Push::Queued => panic!("nobody will be told"),
        }
    }

    fn waiting(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().filter(|it| it.became.is_none())
    }

    /// Lets the time pass, and looks often.
    fn wait(&mut self, mut time: Duration) {
        const STEP: Duration = Duration::from_millis(50);
        while time > Duration::ZERO {
            let step = time.min(STEP);
            self.runtime.clone().block_on(sleep(step));
            self.note();
            time -= step;
        }
    }

    /// Notes what became of messages, and when.
    fn note(&mut self) {
        let now = Instant::now();
        let mut oldest_unsent = None;
        for message in &mut self.messages {
            let told = message.waits.as_mut().map(oneshot::Receiver::try_recv);
            if let Some(Ok(became)) = told {
                message.became = Some(became);
                message.waits = None;
                if became != Err(ErrorKind::Rejected) && message.is_unsent() {
                    oldest_unsent.get_or_insert(message.since);
                }
            }
        }
        // A frame is given up as a whole, when its oldest message is too old.
        if let Some(since) = oldest_unsent {
            assert!(now - since >= MAX_AGE, "given up after {:?}", now - since);
        }
        let longest = self.waiting().map(|message| now - message.since).max();
        let most = MAX_AGE + PATIENCE + SLACK;
        assert!(
            longest.is_none_or(|age| age <= most),
            "{longest:?} in the lane"
        );
    }

    /// Judges by what a peer would see of the frames that the broker has.
    fn judge(&mut self) {
        let (mut high, mut lost) = (0, BTreeSet::new());
        let mut delivered = Vec::new();
        for payload in std::mem::take(&mut *self.broker.frames.lock().unwrap()) {
            let frame = self.wire.open(self.lane.id, payload).unwrap();
            let (seq, count) = (frame.head.seq, u64::from(frame.head.count));
            lost.extend(high + 1..seq);
            match frame.head.kind {
                FrameKind::Void => {
                    lost.retain(|n| !(seq..seq + count).contains(n));
                }
                FrameKind::Data => {
                    let ids = frame
                        .envelopes()
                        .map(|it| id(it.unwrap().decode().unwrap()));
                    let fresh = (seq..).zip(ids).filter(|(n, _)| *n > high);
                    delivered.extend(fresh.map(|(_, id)| id));
                }
                FrameKind::Tail | FrameKind::Probe => {}
            }
            high = high.max((seq + count).saturating_sub(1));
        }
        assert!(delivered.is_sorted_by(|a, b| a < b), "{delivered:?}");
        assert_eq!(
            high + 1,
            self.lane.next_number(),
            "peers know where it ends"
        );
        let delivered = BTreeSet::from_iter(delivered);
        let mut in_doubt = 0;
        for (id, message) in self.messages.iter().enumerate() {
            let arrived = delivered.contains(&(id as u64));
            match message.became.unwrap() {
                Ok(()) => assert!(arrived, "{id} was accepted and did not arrive"),
                Err(kind) if kind.outcome() == Outcome::Unknown => {
                    in_doubt += usize::from(!arrived);
                }
                Err(_) => assert!(!arrived, "{id} arrived and was called unsent"),
            }
        }
        assert_eq!(lost.len(), in_doubt, "what peers report lost");
        let mut told = 0;
        while let Ok(event) = self.events.try_recv() {
            if let ClusterEvent::Unsent { count, .. } = event {
                told += count;
            }
        }
        let unsent = self.messages.iter().filter(|it| it.is_unsent());
        assert_eq!(unsent.count() as u64, told, "what is told as unsent");
    }
}

fn id(envelope: Envelope) -> u64 {
    let Envelope::Broadcast { payload, .. } = envelope else {
        panic!("{envelope:?}");
    };
    u64::from_le_bytes(payload.data[..].try_into().unwrap())
}

impl StateMachineTest for Outbox {
    type SystemUnderTest = Self;
    type Reference = Story;

    fn init_test(story: &Story) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let runtime = Arc::new(runtime);
        let guard = runtime.enter();
        let broker = Arc::new(Broker {
            mood: Mutex::new(story.mood),
            frames: Mutex::default(),
            link: link().1,
        });
        let wire = Arc::new(NativeWire::new());
        let (events_tx, events) = broadcast::channel(1_024);
        let me = NodeId::numbered(1);
        let mut config =
            ClusterConfig::default().with_outage(OutagePolicy::Buffer { max_age: MAX_AGE });
        config.in_flight = 2;
        let limits = MembershipConfig {
            heartbeat: config.heartbeat,
            dead_after: config.dead_after,
            tombstone: config.dead_after,
            max_members: 1,
            versions: VERSIONS,
        };
        let shared = Arc::new(Shared::new(
            me,
            config,
            broker.clone(),
            wire.clone(),
            Arc::default(),
            events_tx,
            Membership::new(me, limits),
        ));
        let lane = Arc::new(Lane::new(
            Topic::Namespace("/".into()),
            wire.clone(),
            BufferLimits::new(LIMIT, 1 << 20),
            // A few messages fill a frame.
            1 << 10,
            1 << 20,
        ));
        let (live, live_rx) = watch::channel(story.live);
        let numbers = Numbers {
            last: story.withdrawn,
            withdrawn: story.withdrawn,
        };
        let writer = Writer::new(shared, lane.clone(), live_rx, CancellationToken::new())
            .with_numbers(Arc::new(tokio::sync::Mutex::new(numbers)));
        let writer = runtime.spawn(writer.run());
        drop(guard);
        Self {
            runtime,
            lane,
            wire,
            broker,
            live,
            events,
            writer,
            messages: Vec::new(),
        }
    }

    fn apply(mut outbox: Self, _: &Story, op: Op) -> Self {
        let runtime = outbox.runtime.clone();
        let _guard = runtime.enter();
        match op {
            Op::Push => outbox.push(),
            Op::Mood(mood) => *outbox.broker.mood.lock().unwrap() = mood,
            Op::Live(live) => drop(outbox.live.send(live)),
            Op::Wait(ms) => outbox.wait(Duration::from_millis(ms)),
        }
        outbox
    }

    /// In the end all is well, and the lane is closed.
    fn teardown(mut outbox: Self, _: Story) {
        let runtime = outbox.runtime.clone();
        let _guard = runtime.enter();
        *outbox.broker.mood.lock().unwrap() = Mood::Takes;
        let _ = outbox.live.send(true);
        outbox.wait(Duration::from_secs(10));
        outbox.lane.close();
        let end = timeout(Duration::from_secs(10), &mut outbox.writer);
        let end = runtime.block_on(end);
        end.expect("the writer goes on").unwrap();
        outbox.note();
        outbox.judge();
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_does_not_arrive_is_told_once_and_in_time(sequential 1..60 => Outbox);
}
