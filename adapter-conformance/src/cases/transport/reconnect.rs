//! After the broker was away: everything subscribed is subscribed again, and what was lost is said.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use bytes::Bytes;
use socketioxide_adapter_core::{
    ErrorKind, NodeId,
    transport::{Continuity, Event, LinkState, Replay, Topic},
};

use crate::{
    Ability, LabResult,
    cases::{Need, cases},
    check::{Verdict, ensure, ensure_eq, eventually, show, within},
    context::{
        Context, Inbox, Node, epoch, inbox, link_is, may_repeat, namespace, patience, publish,
        read_id, up_after,
    },
    payload::Id,
    proxy::{Flow, Way},
};

cases!("transport::reconnect":
    the_link_follows_the_broker [Need::Fault(Ability::Stop)],
    a_publish_while_down_fails_at_once_and_sends_nothing [Need::Fault(Ability::Stop)],
    a_subscribe_while_down_fails_by_its_deadline_and_leaves_nothing [Need::Fault(Ability::Stop)],
    every_subscription_delivers_after_a_restart [Need::Fault(Ability::Restart)],
    every_subscription_delivers_after_a_cut [Need::Fault(Ability::Cut)],
    every_subscription_delivers_after_a_wipe [Need::Fault(Ability::Wipe)],
    restart_after_restart_nothing_wears_out [Need::Fault(Ability::Restart)],
    a_subscription_dropped_while_down_stays_away [Need::Fault(Ability::Stop)],
    a_suspected_session_is_made_anew,
    a_deaf_session_is_made_anew_once_suspected [Need::Proxy],
);

/// "At once": no round trip, no timer; the rest is the noise of a busy machine.
const AT_ONCE: Duration = Duration::from_millis(250);

async fn the_link_follows_the_broker(context: Context) -> Verdict {
    let node = context.node().await?;
    let before = epoch(&node);
    ensure!(before >= 1, "the link is up but counts no session");
    context.faults()?.stop().await?;
    link_is(&node, LinkState::Down).await?;
    let reason = node.link().status().reason.unwrap_or_default();
    ensure!(
        !reason.is_empty() && !reason.contains('\n'),
        "the reason of a link that is down must be one line, got {reason:?}"
    );
    context.faults()?.start().await?;
    up_after(&node, before).await
}

async fn a_publish_while_down_fails_at_once_and_sends_nothing(context: Context) -> Verdict {
    let topic = namespace("/down");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut inbox = inbox(&two, &topic).await?;
    let epochs = [epoch(&one), epoch(&two)];
    context.faults()?.stop().await?;
    link_is(&one, LinkState::Down).await?;
    link_is(&two, LinkState::Down).await?;
    for _ in 0..20 {
        let start = Instant::now();
        let publish = one.publish(&topic, Bytes::from_static(b"not now"));
        let result = within(patience(), "the end of a publish while down", publish).await?;
        let took = start.elapsed();
        let kind = result.map_err(|error| error.kind());
        ensure_eq("a publish while down", &kind, &Err(ErrorKind::LinkDown))?;
        ensure!(took < AT_ONCE, "a publish while down took {took:?}");
    }
    context.faults()?.start().await?;
    up_after(&one, epochs[0]).await?;
    up_after(&two, epochs[1]).await?;
    let events = inbox.fence(&one, &topic).await?;
    let sent = events
        .iter()
        .find(|event| matches!(event, Event::Message(_)));
    ensure!(
        sent.is_none(),
        "a publish that failed as not sent arrived all the same: {}",
        show(sent)
    );
    Ok(())
}

async fn a_subscribe_while_down_fails_by_its_deadline_and_leaves_nothing(
    context: Context,
) -> Verdict {
    let topic = namespace("/down");
    let node = context.node().await?;
    let before = epoch(&node);
    context.faults()?.stop().await?;
    link_is(&node, LinkState::Down).await?;
    let deadline = context.lab.call_deadline();
    let subscribe = within(
        deadline,
        "the end of a subscribe while down",
        node.subscribe(&topic),
    );
    let Err(error) = subscribe.await? else {
        ensure!(false, "a subscribe succeeded while the broker was down");
        return Ok(());
    };
    ensure!(
        error.is_retryable(),
        "a subscribe while down failed with {error:?}, which nobody would retry"
    );
    context.faults()?.start().await?;
    up_after(&node, before).await?;
    let mut inbox = inbox(&node, &topic).await?;
    inbox.expect_nothing(&node, &topic).await
}

async fn every_subscription_delivers_after_a_restart(context: Context) -> Verdict {
    let faults = context.faults()?;
    let cluster = Cluster::new(&context).await?;
    cluster.survives(faults.restart()).await.map(drop)
}

async fn every_subscription_delivers_after_a_cut(context: Context) -> Verdict {
    let faults = context.faults()?;
    let cluster = Cluster::new(&context).await?;
    cluster.survives(faults.cut()).await.map(drop)
}

async fn every_subscription_delivers_after_a_wipe(context: Context) -> Verdict {
    let faults = context.faults()?;
    let cluster = Cluster::new(&context).await?;
    cluster.survives(faults.wipe()).await.map(drop)
}

async fn restart_after_restart_nothing_wears_out(context: Context) -> Verdict {
    let faults = context.faults()?;
    let mut cluster = Cluster::new(&context).await?;
    for _ in 0..5 {
        cluster = cluster.survives(faults.restart()).await?;
    }
    Ok(())
}

async fn a_subscription_dropped_while_down_stays_away(context: Context) -> Verdict {
    let topic = namespace("/dropped");
    let (one, two) = (context.node().await?, context.node().await?);
    let mut kept = inbox(&one, &topic).await?;
    let dropped = inbox(&two, &topic).await?;
    let epochs = [epoch(&one), epoch(&two)];
    context.faults()?.stop().await?;
    link_is(&two, LinkState::Down).await?;
    drop(dropped);
    context.faults()?.start().await?;
    up_after(&one, epochs[0]).await?;
    up_after(&two, epochs[1]).await?;
    kept.fence(&one, &topic).await?;
    // The broker may learn of it with the next payload.
    eventually(
        patience(),
        "the broker counting only who listens",
        async || {
            let receipt = publish(&one, &topic, Bytes::from_static(b"who is there?")).await?;
            Ok(receipt.receivers.is_none_or(|receivers| receivers == 1))
        },
    )
    .await
}

async fn a_suspected_session_is_made_anew(context: Context) -> Verdict {
    let cluster = Cluster::new(&context).await?;
    let (publisher, idle) = (cluster.publisher.clone(), cluster.idle.clone());
    let suspect = async {
        for node in [&publisher, &idle] {
            node.link().suspect();
            // Some transports have nothing that runs by itself: they notice with the next call, whatever becomes of it.
            let _ = node.publish(&namespace("/suspect"), Bytes::new()).await;
        }
        Ok(())
    };
    cluster.survives(suspect).await.map(drop)
}

async fn a_deaf_session_is_made_anew_once_suspected(context: Context) -> Verdict {
    let topic = namespace("/deaf");
    let talker = context.node().await?;
    let (listener, proxy) = context.node_behind_proxy().await?;
    let mut inbox = inbox(&listener, &topic).await?;
    let before = epoch(&listener);
    proxy.set_to_client(Way::default().with_flow(Flow::BlackHole));
    publish(&talker, &topic, Bytes::from_static(b"unheard")).await?;
    let swallowed = async || Ok(proxy.swallowed() > 0);
    eventually(patience(), "the loss of a payload on its way", swallowed).await?;
    ensure_eq(
        "the link before anybody complains",
        &epoch(&listener),
        &before,
    )?;
    // The hole is still there, so the old connections cannot come back to life; new ones pass once it is closed.
    listener.link().suspect();
    link_is(&listener, LinkState::Down).await?;
    proxy.set_to_client(Way::default());
    up_after(&listener, before).await?;
    let events = inbox.fence(&talker, &topic).await?;
    let (first, rest) = events.split_first().unzip();
    ensure!(
        matches!(first, Some(Event::Resumed(_))),
        "expected Resumed, got {}",
        show(first)
    );
    let replays = listener.capabilities().replay != Replay::None;
    let unheard = |event: &Event| *event == Event::Message(Bytes::from_static(b"unheard"));
    let other = rest.into_iter().flatten().find(|event| {
        let belongs = matches!(event, Event::Resumed(_)) || (replays && unheard(event));
        !belongs
    });
    ensure!(other.is_none(), "unexpected {} after Resumed", show(other));
    Ok(())
}

/// Two nodes: one publishes, the other never does and has subscriptions of all kinds.
struct Cluster {
    publisher: Node,
    idle: Node,
    inboxes: Vec<(Topic, Inbox)>,
    sent: u64,
}

impl Cluster {
    async fn new(context: &Context) -> Verdict<Self> {
        let (publisher, idle) = (context.node().await?, context.node().await?);
        let topics = [
            Topic::Cluster,
            Topic::Node(NodeId::random()),
            namespace("/"),
            namespace("/a.*"),
            // A second subscription to one topic is easily forgotten.
            namespace("/"),
        ];
        let mut inboxes = Vec::new();
        for topic in topics {
            let inbox = inbox(&idle, &topic).await?;
            inboxes.push((topic, inbox));
        }
        Ok(Self {
            publisher,
            idle,
            inboxes,
            sent: 0,
        })
    }

    /// Wants a fault to be followed, in every inbox, by `Resumed`, then by everything that is published once both links
    /// are up again, once.
    async fn survives(mut self, fault: impl Future<Output = LabResult>) -> Verdict<Self> {
        let epochs = [epoch(&self.publisher), epoch(&self.idle)];
        fault.await?;
        up_after(&self.publisher, epochs[0]).await?;
        up_after(&self.idle, epochs[1]).await?;
        let id = Id {
            publisher: 0,
            number: self.sent,
        };
        self.sent += 1;
        let repeats = may_repeat(self.idle.capabilities());
        let topics: HashSet<Topic> = self
            .inboxes
            .iter()
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in topics {
            publish(&self.publisher, &topic, id.payload(16)).await?;
        }
        for (topic, inbox) in &mut self.inboxes {
            let events = inbox.fence(&self.publisher, topic).await?;
            let mut resumed = false;
            let mut copies = 0;
            for event in &events {
                match event {
                    Event::Resumed(continuity) => {
                        ensure!(copies == 0, "{topic}: Resumed came after a new payload");
                        let lost = matches!(
                            continuity,
                            Continuity::Lost {
                                count: Some(1..),
                                ..
                            }
                        );
                        ensure!(!lost, "{topic}: {continuity:?}, but nothing was published");
                        resumed = true;
                    }
                    Event::Message(payload) if read_id(payload)? == id => copies += 1,
                    other => ensure!(false, "{topic}: unexpected {}", show(Some(other))),
                }
            }
            ensure!(resumed, "{topic}: the link came back, but no Resumed came");
            ensure!(
                copies == 1 || (copies > 1 && repeats),
                "{topic}: both links were up, but the payload arrived {copies} times"
            );
        }
        Ok(self)
    }
}
