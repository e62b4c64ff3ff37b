//! What cases about clusters work with: nodes that know each other, and fences that prove what did not arrive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use socketioxide::BroadcastError;
use socketioxide_adapter_core::{
    ClusterConfig, ClusterEvent, Error, ErrorKind, NodeId,
    transport::{LinkState, Transport},
};

use super::tap::Tap;
use crate::{
    Gate,
    check::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::{Arrival, Client, Node},
};

/// Settings under which a case takes about a second, where nobody is taken for dead.
pub(crate) fn brisk() -> ClusterConfig {
    ClusterConfig::default().with_heartbeat(Duration::from_millis(100))
}

/// Settings under which a silent node is soon dead; heartbeats of a busy machine must come in time all the same.
pub(crate) fn mortal() -> ClusterConfig {
    brisk().with_dead_after(Duration::from_secs(1))
}

impl Context {
    /// A server over a transport; it has not joined yet.
    pub(crate) fn serve(
        &self,
        transport: Arc<dyn Transport>,
        config: ClusterConfig,
    ) -> Verdict<Node> {
        let transport = match &self.sabotage {
            Some(sabotage) => sabotage(transport),
            None => transport,
        };
        Ok(Node::new(transport, config)?)
    }

    /// A server of the case's cluster that has not joined yet.
    pub(crate) async fn server(&self, config: ClusterConfig) -> Verdict<Node> {
        self.serve(self.node().await?, config)
    }

    /// A server with a gate in the way to the broker.
    pub(crate) async fn gated(&self, config: ClusterConfig) -> Verdict<(Node, Box<dyn Gate>)> {
        let (transport, gate) = self.lab.connect_gated(&self.prefix).await?;
        Ok((self.serve(transport, config)?, gate))
    }

    /// A server behind a tap.
    pub(crate) async fn tapped(&self, config: ClusterConfig) -> Verdict<(Node, Arc<Tap>)> {
        let tap = Tap::new(self.node().await?);
        Ok((self.serve(tap.clone(), config)?, tap))
    }

    /// Servers of one cluster with the namespace `/`, which all know each other.
    pub(crate) async fn cluster<const N: usize>(
        &self,
        config: ClusterConfig,
    ) -> Verdict<[Node; N]> {
        let mut nodes = Vec::with_capacity(N);
        for _ in 0..N {
            nodes.push(self.server(config.clone()).await?);
        }
        assemble(&nodes.iter().collect::<Vec<_>>()).await?;
        let count = |_| Failure("a cluster of another size".into());
        nodes.try_into().map_err(count)
    }

    /// A server behind a tap and one without, which know each other and where the other stands: the smallest cluster in which
    /// something can get lost.
    pub(crate) async fn pair(&self, config: ClusterConfig) -> Verdict<(Node, Arc<Tap>, Node)> {
        let (one, tap) = self.tapped(config.clone()).await?;
        let two = self.server(config).await?;
        within(patience(), "joining", one.namespace("/")).await??;
        tap.forget();
        within(patience(), "joining", two.namespace("/")).await??;
        acquainted(&[&one, &two]).await?;
        // From this on, the second one can tell what it misses from what was before its time.
        let told = async || Ok(tap.has_told_where_it_stands());
        eventually(patience(), "the answer to the newcomer's probe", told).await?;
        Ok((one, tap, two))
    }
}

/// Adds the namespace `/` to all nodes and waits until each knows all others.
pub(crate) async fn assemble(nodes: &[&Node]) -> Verdict {
    let joining = try_join_all(nodes.iter().map(|node| node.namespace("/")));
    within(2 * patience(), "joining the cluster", joining).await??;
    acquainted(nodes).await
}

/// Waits until each of these nodes knows exactly the others.
pub(crate) async fn acquainted(nodes: &[&Node]) -> Verdict {
    let known = async || {
        let known = nodes.iter().map(|node| node.cluster().nodes().len() + 1);
        Ok(known.min() == Some(nodes.len()) && known_max(nodes) == nodes.len())
    };
    eventually(patience(), "each node knowing all others", known).await
}

fn known_max(nodes: &[&Node]) -> usize {
    let known = nodes.iter().map(|node| node.cluster().nodes().len() + 1);
    known.max().unwrap_or(0)
}

/// Connects one client to `/` of each node.
pub(crate) async fn clients<const N: usize>(nodes: &[Node; N]) -> Verdict<[Client; N]> {
    let clients = try_join_all(nodes.iter().map(|node| node.client("/"))).await?;
    let count = |_| Failure("a client too few".into());
    clients.try_into().map_err(count)
}

/// The event whose first argument is a word of the case.
pub(crate) const SAID: &str = "said";
/// The event that proves that nothing is behind it.
const FENCE: &str = "fence";

/// Emits a word to everybody in `/`.
pub(crate) async fn say(node: &Node, word: &str) -> Verdict {
    Ok(node.io().emit(SAID, word).await?)
}

/// Emits words to everybody in `/`, each in a frame of its own.
pub(crate) async fn say_apart(
    node: &Node,
    words: impl IntoIterator<Item = impl AsRef<str>>,
) -> Verdict {
    for word in words {
        say(node, word.as_ref()).await?;
        node.cluster().flush().await?;
    }
    Ok(())
}

/// The numbers of a range as words.
pub(crate) fn words(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// The words that have arrived so far.
pub(crate) fn heard_so_far(client: &Client) -> Vec<String> {
    client.arrivals().with(|arrivals| {
        let words = arrivals.iter().filter(|arrival| is(arrival, SAID));
        words.filter_map(Arrival::text).map(str::to_owned).collect()
    })
}

fn is(arrival: &Arrival, name: &str) -> bool {
    matches!(arrival, Arrival::Event(event) if event.name == name)
}

/// Emits a sentinel from `node` to everybody in the namespace of `client`, and returns all words that arrived before it:
/// what `node` emitted earlier has arrived by then, or never will.
pub(crate) async fn heard(node: &Node, client: &Client) -> Verdict<Vec<String>> {
    let sentinel = format!("{:016x}", fastrand::u64(..));
    let is_sentinel = |arrival: &Arrival| is(arrival, FENCE) && arrival.text() == Some(&sentinel);
    node.of(client.namespace())?.emit(FENCE, &sentinel).await?;
    let fence = client
        .arrivals()
        .wait_for(|arrivals| arrivals.iter().any(is_sentinel));
    within(patience(), "the arrival of what was emitted last", fence).await?;
    Ok(heard_so_far(client))
}

/// Wants exactly these words to have arrived, in this order, when all that `node` emitted is through.
pub(crate) async fn expect_heard<T: AsRef<str>>(
    node: &Node,
    client: &Client,
    expected: impl IntoIterator<Item = T>,
) -> Verdict {
    let expected: Vec<String> = expected
        .into_iter()
        .map(|word| word.as_ref().to_owned())
        .collect();
    let heard = heard(node, client).await?;
    let first = heard
        .iter()
        .zip(&expected)
        .position(|(heard, expected)| heard != expected);
    let first = first.unwrap_or(heard.len().min(expected.len()));
    let show = |words: &[String]| {
        let word = words.get(first)?;
        Some(word.chars().take(40).collect::<String>())
    };
    ensure!(
        heard == expected,
        "a client heard {} words instead of {}; word {first} is {:?} instead of {:?}",
        heard.len(),
        expected.len(),
        show(&heard),
        show(&expected)
    );
    Ok(())
}

/// Waits until a word arrives.
pub(crate) async fn hears(client: &Client, word: &str) -> Verdict {
    let heard = client.arrivals().wait_for(|arrivals| {
        arrivals
            .iter()
            .any(|arrival| is(arrival, SAID) && arrival.text() == Some(word))
    });
    within(patience(), &format!("the arrival of {word:?}"), heard).await
}

/// Says words until one arrives, for nodes that are about to hear again; returns how many were said.
pub(crate) async fn say_until_heard(node: &Node, client: &Client) -> Verdict<u64> {
    let (before, said) = (heard_so_far(client).len(), AtomicU64::new(0));
    let heard = async || {
        let number = said.fetch_add(1, Ordering::Relaxed);
        // Whether it was accepted does not matter: it arrives, or a later one does.
        let _ = say(node, &format!("again {number}")).await;
        Ok(heard_so_far(client).len() > before)
    };
    let wait = patience() + Duration::from_secs(10);
    eventually(wait, "an emit being heard again", heard).await?;
    Ok(said.into_inner())
}

/// Waits until a client is disconnected.
pub(crate) async fn disconnected(client: &Client) -> Verdict {
    let gone = |arrivals: &[Arrival]| arrivals.last() == Some(&Arrival::Disconnected);
    within(
        patience(),
        "a disconnection",
        client.arrivals().wait_for(gone),
    )
    .await
}

/// Waits until a node was told something.
pub(crate) async fn told(
    node: &Node,
    what: &str,
    is_it: impl Fn(&ClusterEvent) -> bool,
) -> Verdict {
    let told = node.events().wait_for(|events| events.iter().any(&is_it));
    let told = within(patience(), &format!("an event about {what}"), told).await;
    told.map_err(|Failure(late)| {
        let events = node.events().with(|events| format!("{events:?}"));
        Failure(format!("{late}, but these: {events}"))
    })
}

/// Whether a node was told something so far.
pub(crate) fn was_told(node: &Node, is_it: impl Fn(&ClusterEvent) -> bool) -> bool {
    node.events().with(|events| events.iter().any(is_it))
}

/// Waits until a node was told that so many messages of another were lost in all.
pub(crate) async fn told_lost(node: &Node, by: NodeId, count: u64) -> Verdict {
    let told = node.events().wait_for(|events| lost(events, by) >= count);
    within(patience(), "an event about the loss", told).await?;
    ensure_eq(
        "messages told as lost",
        &node.events().with(|events| lost(events, by)),
        &count,
    )
}

fn lost(events: &[ClusterEvent], by: NodeId) -> u64 {
    let counts = events.iter().map(|event| match event {
        ClusterEvent::Gap { origin, count, .. } if *origin == by => *count,
        _ => 0,
    });
    counts.sum()
}

/// Wants a node to have missed exactly so many messages. It leaves the cluster for that: then it tells what it holds back.
pub(crate) async fn expect_lost_in_all(node: &Node, count: u64) -> Verdict {
    node.shutdown().await?;
    ensure_eq(
        "messages lost",
        &node.cluster().stats().envelopes_lost,
        &count,
    )
}

/// Waits until the proven link of a node is in a state.
pub(crate) async fn link_becomes(node: &Node, state: LinkState) -> Verdict {
    let mut link = node.cluster().link();
    let becomes = link.wait_for(|status| status.state == state);
    let what = format!("the cluster's link being {state:?}");
    // Probes take their time to be given up.
    let status = within(patience() + Duration::from_secs(10), &what, becomes).await?;
    ensure_eq("the cluster's link", &status.state, &state)
}

/// The kind of the adapter's error in what an emit returns.
pub(crate) fn kind_of(error: BroadcastError) -> Verdict<ErrorKind> {
    match error {
        BroadcastError::Adapter(error) => match error.0.downcast_ref::<Error>() {
            Some(error) => Ok(error.kind()),
            None => Err(Failure(format!(
                "an error that is not the adapter's: {error:?}"
            ))),
        },
        other => Err(Failure(format!(
            "an error that is not about the cluster: {other:?}"
        ))),
    }
}

/// Wants an emit to fail for a reason.
pub(crate) fn expect_failure(emitted: Result<(), BroadcastError>, kind: ErrorKind) -> Verdict {
    match emitted {
        Ok(()) => {
            ensure!(
                false,
                "expected a failure, {kind:?}, but the emit succeeded"
            );
            Ok(())
        }
        Err(error) => ensure_eq("why the emit failed", &kind_of(error)?, &kind),
    }
}
