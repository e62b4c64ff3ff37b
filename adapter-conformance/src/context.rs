//! What a case works with: nodes of its own cluster, inboxes, and fences that prove absence.

use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use socketioxide_adapter_core::{
    Error,
    transport::{Capabilities, Event, LinkState, Receipt, Subscription, Topic, Transport},
};

use tokio::time::timeout;

use crate::{
    Faults, Lab, LabError,
    check::{Failure, Verdict, ensure, show, within},
    journal::Journal,
    lab::USUAL_PATIENCE,
    length::Length,
    payload::Id,
    proxy::Proxy,
};

tokio::task_local! {
    /// [`Lab::patience`] of the lab that the running case works in.
    pub(crate) static PATIENCE: Duration;
}

/// How long the running case waits for something that ought to come at once.
pub(crate) fn patience() -> Duration {
    PATIENCE
        .try_with(|patience| *patience)
        .unwrap_or(USUAL_PATIENCE)
}

/// Something that is put between a node and its transport.
pub(crate) type Sabotage = Arc<dyn Fn(Arc<dyn Transport>) -> Arc<dyn Transport> + Send + Sync>;

/// A node of a cluster.
pub(crate) type Node = Arc<dyn Transport>;

/// The surroundings of one run of one case.
pub(crate) struct Context {
    pub(crate) lab: Arc<dyn Lab>,
    /// The cluster of this run; no other case uses it.
    pub(crate) prefix: String,
    /// Where random numbers of the case come from.
    pub(crate) seed: u64,
    /// What tests of the suite itself put below every server.
    pub(crate) sabotage: Option<Sabotage>,
    /// How long its faults are.
    pub(crate) length: Length,
    /// What is told when it fails.
    pub(crate) journal: Arc<Journal>,
    /// Whether nothing else runs in this process.
    pub(crate) alone: bool,
}

impl Context {
    /// A new node of the case's cluster.
    pub(crate) async fn node(&self) -> Verdict<Node> {
        self.node_of(&self.prefix).await
    }

    /// A new node of another cluster.
    pub(crate) async fn node_of(&self, prefix: &str) -> Verdict<Node> {
        let node = within(patience(), "connecting", self.lab.connect(prefix)).await??;
        let state = node.link().state();
        ensure!(
            state == LinkState::Up,
            "a transport that has just connected has a link that is {state:?}, not Up"
        );
        Ok(node)
    }

    /// A new node with a chaos proxy between it and the broker; cases that call this have stated the need.
    pub(crate) async fn node_behind_proxy(&self) -> Verdict<(Node, Proxy)> {
        let missing = || Failure("the lab has no endpoint although it said so".into());
        let broker = self.lab.endpoint().ok_or_else(missing)?;
        let proxy = Proxy::start(broker, self.seed)
            .await
            .map_err(LabError::from)?;
        let node = self.lab.connect_via(&self.prefix, proxy.address()).await?;
        Ok((node, proxy))
    }

    /// The faults of the lab; cases that call this have stated which ones they need.
    pub(crate) fn faults(&self) -> Verdict<&dyn Faults> {
        let missing = || Failure("the lab has no faults although it said so".into());
        self.lab.faults().ok_or_else(missing)
    }
}

/// A namespace topic.
pub(crate) fn namespace(path: &str) -> Topic {
    Topic::Namespace(path.to_owned().into())
}

/// Subscribes, with a deadline.
pub(crate) async fn inbox(node: &Node, topic: &Topic) -> Verdict<Inbox> {
    let subscription = within(patience(), "subscribing", node.subscribe(topic)).await??;
    Ok(Inbox { subscription })
}

/// Publishes, with a deadline, and wants it accepted.
pub(crate) async fn publish(node: &Node, topic: &Topic, payload: Bytes) -> Verdict<Receipt> {
    Ok(within(patience(), "publishing", node.publish(topic, payload)).await??)
}

/// Waits until the node has had more than `epoch` sessions and is up.
pub(crate) async fn up_after(node: &Node, epoch: u64) -> Verdict {
    let mut link = node.link();
    let up = link.wait_for(|status| status.epoch > epoch && status.state == LinkState::Up);
    let up = within(patience(), "a new session after the fault", up);
    let status = up.await.map_err(|Failure(late)| {
        let status = node.link().status();
        let reason = status.reason.as_deref().unwrap_or("no reason");
        Failure(format!("{late}: the link is {:?}, {reason}", status.state))
    })?;
    ensure!(
        status.state == LinkState::Up,
        "the link closed instead of coming back: {:?}",
        status.reason
    );
    Ok(())
}

/// Waits until the link is in a state.
pub(crate) async fn link_is(node: &Node, state: LinkState) -> Verdict {
    let mut link = node.link();
    let reached = link.wait_for(|status| status.state == state);
    let status = within(patience(), &format!("the link being {state:?}"), reached).await?;
    ensure!(
        status.state == state,
        "the link became {:?} instead of {state:?}",
        status.state
    );
    Ok(())
}

/// The number of sessions the link has had.
pub(crate) fn epoch(node: &Node) -> u64 {
    node.link().status().epoch
}

/// Whether the transport can deliver a payload twice by contract.
pub(crate) fn may_repeat(capabilities: Capabilities) -> bool {
    use socketioxide_adapter_core::transport::Delivery;
    capabilities.delivery != Delivery::AtMostOnce
}

/// A subscription whose reads have deadlines.
pub(crate) struct Inbox {
    pub(crate) subscription: Subscription,
}

impl Inbox {
    /// The next event.
    pub(crate) async fn next(&mut self) -> Verdict<Event> {
        let event = within(patience(), "an event", self.subscription.recv()).await?;
        event.ok_or_else(|| Failure("the subscription ended too early".into()))
    }

    /// The next event, which must be a payload.
    pub(crate) async fn message(&mut self) -> Verdict<Bytes> {
        match self.next().await? {
            Event::Message(payload) => Ok(payload),
            other => Err(Failure(format!("expected a payload, got {other:?}"))),
        }
    }

    /// The next event, which must be this payload.
    pub(crate) async fn expect(&mut self, payload: &Bytes) -> Verdict {
        let event = self.next().await?;
        let expected = Event::Message(payload.clone());
        ensure!(
            event == expected,
            "expected {}, got {}",
            show(Some(&expected)),
            show(Some(&event))
        );
        Ok(())
    }

    /// The next event, which must be a whole numbered payload.
    pub(crate) async fn id(&mut self) -> Verdict<Id> {
        read_id(&self.message().await?)
    }

    /// Publishes a sentinel to `topic` from `node` and returns all that arrives before it; other sentinels of the topic,
    /// meant for other inboxes, do not count.
    pub(crate) async fn fence(&mut self, node: &Node, topic: &Topic) -> Verdict<Vec<Event>> {
        let fence = Fence::new(topic);
        publish(node, topic, fence.sentinel()).await?;
        let mut before = Vec::new();
        fence.read(self, &mut before).await?;
        Ok(before)
    }

    /// Like [`fence`](Self::fence), while sessions may still be coming and going: sends sentinels until one arrives.
    pub(crate) async fn fence_at_last(
        &mut self,
        node: &Node,
        topic: &Topic,
    ) -> Verdict<Vec<Event>> {
        let fence = Fence::new(topic);
        let mut before = Vec::new();
        within(
            2 * patience(),
            "a payload that arrives after the fault",
            async {
                loop {
                    // Whether it was accepted does not matter: it arrives, or the next one does.
                    let _ = node.publish(topic, fence.sentinel()).await;
                    let arrival =
                        timeout(Duration::from_millis(200), fence.read(self, &mut before));
                    if let Ok(arrived) = arrival.await {
                        return arrived;
                    }
                }
            },
        )
        .await??;
        Ok(before)
    }

    /// Like [`fence`](Self::fence), for numbered payloads and nothing else.
    pub(crate) async fn fenced_ids(&mut self, node: &Node, topic: &Topic) -> Verdict<Vec<Id>> {
        let id = |event: &Event| match event {
            Event::Message(payload) => read_id(payload),
            other => Err(Failure(format!("unexpected {other:?} on a healthy link"))),
        };
        self.fence(node, topic).await?.iter().map(id).collect()
    }

    /// Proves with a fence that nothing is there.
    pub(crate) async fn expect_nothing(&mut self, node: &Node, topic: &Topic) -> Verdict {
        let before = self.fence(node, topic).await?;
        ensure!(
            before.is_empty(),
            "{} event(s) too many, the first is {}",
            before.len(),
            show(before.first())
        );
        Ok(())
    }
}

/// Sentinels of one fence.
struct Fence {
    /// What all sentinels of the topic begin with.
    family: String,
    sentinel: String,
}

impl Fence {
    fn new(topic: &Topic) -> Self {
        static FENCES: AtomicU64 = AtomicU64::new(0);
        let number = FENCES.fetch_add(1, Ordering::Relaxed);
        let family = format!("fence of {topic} ");
        Self {
            sentinel: format!("{family}{number} {:016x}", fastrand::u64(..)),
            family,
        }
    }

    fn sentinel(&self) -> Bytes {
        Bytes::from(self.sentinel.clone())
    }

    /// Reads up to the sentinel.
    async fn read(&self, inbox: &mut Inbox, before: &mut Vec<Event>) -> Verdict {
        loop {
            match inbox.next().await? {
                Event::Message(payload) if payload == self.sentinel => return Ok(()),
                Event::Message(payload) if payload.starts_with(self.family.as_bytes()) => {}
                event => before.push(event),
            }
        }
    }
}

/// Reads a numbered payload, which must be whole.
pub(crate) fn read_id(payload: &Bytes) -> Verdict<Id> {
    Id::read(payload).ok_or_else(|| {
        let event = Event::Message(payload.clone());
        Failure(format!(
            "a torn or foreign payload arrived: {}",
            show(Some(&event))
        ))
    })
}

/// Wants the numbers of each publisher to rise. Whether one may come twice is the question of other cases.
pub(crate) fn ensure_rising(ids: &[Id]) -> Verdict {
    let mut highest = HashMap::new();
    for id in ids {
        let before = highest.insert(id.publisher, id.number);
        if let Some(before) = before.filter(|before| *before > id.number) {
            ensure!(false, "{id:?} came after {}#{before}", id.publisher);
        }
    }
    Ok(())
}

type Call<'a> = Pin<Box<dyn Future<Output = Result<Receipt, Error>> + Send + 'a>>;

/// Publishes with several calls in flight, each first polled after the one before.
pub(crate) struct Pipeline<'a> {
    node: &'a Node,
    topic: &'a Topic,
    window: usize,
    calls: VecDeque<(Id, Call<'a>)>,
    /// What each call returned, in order.
    pub(crate) outcomes: Vec<(Id, Result<Receipt, Error>)>,
}

impl<'a> Pipeline<'a> {
    pub(crate) const fn new(node: &'a Node, topic: &'a Topic, window: usize) -> Self {
        Self {
            node,
            topic,
            window,
            calls: VecDeque::new(),
            outcomes: Vec::new(),
        }
    }

    /// Starts one publish; waits for the oldest one first if the window is full.
    pub(crate) async fn publish(&mut self, id: Id, filler: usize) -> Verdict {
        if self.calls.len() >= self.window {
            self.finish_one().await?;
        }
        let mut call: Call<'a> = Box::pin(self.node.publish(self.topic, id.payload(filler)));
        match poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx))).await {
            Poll::Pending => self.calls.push_back((id, call)),
            Poll::Ready(outcome) => {
                // Calls may end in another order than they began.
                self.calls
                    .push_back((id, Box::pin(std::future::ready(outcome))));
            }
        }
        Ok(())
    }

    /// Waits for all calls.
    pub(crate) async fn finish(&mut self) -> Verdict {
        while !self.calls.is_empty() {
            self.finish_one().await?;
        }
        Ok(())
    }

    /// Waits for all calls and wants every one accepted.
    pub(crate) async fn finish_accepted(mut self) -> Verdict {
        self.finish().await?;
        for (_, outcome) in self.outcomes {
            outcome?;
        }
        Ok(())
    }

    async fn finish_one(&mut self) -> Verdict {
        if let Some((id, call)) = self.calls.pop_front() {
            let outcome = within(patience(), "the end of a publish", call).await?;
            self.outcomes.push((id, outcome));
        }
        Ok(())
    }
}

/// Publishes `count` numbered payloads with up to `window` calls in flight and wants each accepted.
pub(crate) async fn publish_many(
    node: &Node,
    topic: &Topic,
    publisher: u32,
    count: u64,
    window: usize,
) -> Verdict {
    let mut pipeline = Pipeline::new(node, topic, window);
    for number in 0..count {
        pipeline.publish(Id { publisher, number }, 16).await?;
    }
    pipeline.finish_accepted().await
}
