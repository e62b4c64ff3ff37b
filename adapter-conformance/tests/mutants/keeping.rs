//! The in-process transport with a log per topic, which gives back what a node missed, and the bugs of doing so.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use socketioxide_adapter_core::{
    Result,
    memory::MemoryTransport,
    transport::{
        BufferLimits, Capabilities, Continuity, Event, LinkWatch, LossCause, Receipt, Replay,
        Subscription, SubscriptionSender, Topic, Transport,
    },
};

use crate::bug::Bug;

/// What the number of an entry takes in front of its payload.
const NUMBER: usize = 8;
/// A bug that stops replaying does so after as many.
const PAGE: u64 = 100;

/// The log of one topic of one cluster.
#[derive(Debug, Default)]
struct Log {
    /// Grows when the log is wiped.
    epoch: u64,
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Bytes>,
}

impl Log {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn get(&self, number: u64) -> Option<Bytes> {
        let place = number.checked_sub(self.first)?;
        self.entries.get(place as usize).cloned()
    }
}

/// All logs of a lab.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    logs: HashMap<(String, Topic), Log>,
    /// Entries per log; 0 is no limit.
    retained: usize,
}

impl Logs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(crate) fn retain(&self, payloads: u64) {
        self.state().retained = payloads as usize;
    }

    pub(crate) fn wipe(&self) {
        for log in self.state().logs.values_mut() {
            *log = Log {
                epoch: log.epoch + 1,
                ..Log::default()
            };
        }
    }
}

/// A transport that replays, with a bug.
pub(crate) struct Keeping {
    bug: Bug,
    inner: Arc<MemoryTransport>,
    cluster: String,
    logs: Logs,
}

impl Keeping {
    pub(crate) fn new(bug: Bug, inner: Arc<MemoryTransport>, cluster: &str, logs: Logs) -> Self {
        Self {
            bug,
            inner,
            cluster: cluster.to_owned(),
            logs,
        }
    }
}

#[async_trait]
impl Transport for Keeping {
    fn name(&self) -> &'static str {
        "mutant"
    }

    fn capabilities(&self) -> Capabilities {
        let inner = self.inner.capabilities();
        inner
            .with_replay(Replay::WithinRetention)
            .with_max_payload(inner.max_payload - NUMBER)
    }

    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<Receipt> {
        let mut call;
        let first_poll = {
            let mut state = self.logs.state();
            let retained = state.retained;
            let place = (self.cluster.clone(), topic.clone());
            let log = state.logs.entry(place).or_default();
            let mut numbered = BytesMut::with_capacity(NUMBER + payload.len());
            numbered.put_u64(log.end());
            numbered.put(&payload[..]);
            call = self.inner.publish(topic, numbered.freeze());
            let first_poll = (&mut call).now_or_never();
            // Under the same lock, so that the log has the order of the bus.
            if !matches!(first_poll, Some(Err(_))) {
                log.entries.push_back(payload);
                if retained > 0 && log.entries.len() > retained {
                    log.entries.pop_front();
                    log.first += 1;
                }
            }
            first_poll
        };
        match first_poll {
            Some(answer) => answer,
            None => call.await,
        }
    }

    async fn subscribe(&self, topic: &Topic) -> Result<Subscription> {
        let from = self.inner.subscribe(topic).await?;
        let (to, subscription) = Subscription::channel(BufferLimits::default());
        let reader = Reader {
            bug: self.bug,
            place: (self.cluster.clone(), topic.clone()),
            logs: self.logs.clone(),
            to,
        };
        let (epoch, next) = reader.log(|log| (log.epoch, log.end()));
        tokio::spawn(reader.read(from, epoch, next));
        Ok(subscription)
    }

    fn link(&self) -> LinkWatch {
        self.inner.link()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

impl fmt::Debug for Keeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeping({:?})", self.bug)
    }
}

struct Reader {
    bug: Bug,
    place: (String, Topic),
    logs: Logs,
    to: SubscriptionSender,
}

impl Reader {
    fn log<T>(&self, ask: impl FnOnce(&Log) -> T) -> T {
        let mut state = self.logs.state();
        ask(state.logs.entry(self.place.clone()).or_default())
    }

    /// Follows the bus from entry `next` on; what is missing comes from the log.
    async fn read(self, mut from: Subscription, mut epoch: u64, mut next: u64) {
        let mut resumed_at = next;
        while let Some(event) = from.recv().await {
            if self.to.is_closed() {
                return;
            }
            match event {
                Event::Resumed(_) => {
                    if self.bug == Bug::RepeatsTheReplay {
                        next = resumed_at;
                    }
                    resumed_at = next;
                    let (now, first, end) = self.log(|log| (log.epoch, log.first, log.end()));
                    let wiped = now != epoch && self.bug != Bug::TakesANewLogForTheOld;
                    let continuity = if wiped {
                        next = first;
                        Continuity::Lost {
                            count: None,
                            cause: LossCause::Reset,
                        }
                    } else {
                        let continuity = self.judge(next, first, end);
                        next = next.clamp(first, end.max(first));
                        continuity
                    };
                    epoch = now;
                    self.to.resumed(continuity);
                    let until = match self.bug {
                        Bug::ForgetsToResume => next,
                        Bug::ReplaysOnePage => end.min(next + PAGE),
                        _ => end,
                    };
                    self.replay(next, until).await;
                    next = until;
                }
                Event::Message(numbered) => {
                    let number = u64::from_be_bytes(numbered[..NUMBER].try_into().unwrap());
                    if number < next {
                        continue;
                    }
                    if !matches!(self.bug, Bug::ForgetsToResume | Bug::ReplaysOnePage) {
                        self.replay(next, number).await;
                    }
                    self.hand_over(numbered.slice(NUMBER..)).await;
                    next = number + 1;
                }
                // What the bus dropped is in the log.
                _ => {}
            }
        }
        self.to.end();
    }

    fn judge(&self, next: u64, first: u64, end: u64) -> Continuity {
        let lost = first.saturating_sub(next);
        match self.bug {
            Bug::ForgetsToResume => Continuity::Unbroken { replayed: 0 },
            Bug::OverlooksTheTrimmed => Continuity::Unbroken {
                replayed: end.saturating_sub(next.max(first)),
            },
            _ if lost == 0 => Continuity::Unbroken {
                replayed: end.saturating_sub(next),
            },
            _ => Continuity::Lost {
                count: Some(lost + u64::from(self.bug == Bug::MiscountsTheTrimmed)),
                cause: LossCause::Trimmed,
            },
        }
    }

    async fn replay(&self, from: u64, until: u64) {
        for number in from..until {
            if let Some(payload) = self.log(|log| log.get(number)) {
                self.hand_over(payload).await;
            }
        }
    }

    async fn hand_over(&self, payload: Bytes) {
        match self.bug {
            Bug::DropsInsteadOfWaiting => {
                self.to.push(payload);
            }
            _ => {
                self.to.push_wait(payload).await;
            }
        }
    }
}
