//! Broadcasts with acknowledgements: all answers come, and the waiting ends when it can.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;
use socketioxide::{AckError, ack::AckStream, socket::Sid};
use socketioxide_adapter_core::{
    ClusterEvent, ErrorKind, NodeId,
    transport::{LinkState, Topic},
};
use tokio::time::Instant;

use super::{
    stage::{assemble, brisk, link_becomes, mortal, told},
    tap::Fate,
};
use crate::{
    cases::{Need, cases},
    check::{Failure, Verdict, ensure, ensure_eq, eventually, within},
    context::{Context, patience},
    node::{Adapter, Client, Node, Reply},
};

cases!("cluster::acks":
    every_socket_of_every_node_answers_and_the_stream_ends,
    a_silent_socket_times_out_alone,
    a_broadcast_to_nobody_ends_at_once,
    a_remote_socket_answers,
    an_answer_that_overtakes_its_count_is_kept,
    a_node_that_dies_before_its_count_is_named_and_not_waited_for,
    a_node_that_dies_after_its_count_is_named_and_not_waited_for,
    a_stream_that_is_dropped_disturbs_no_other,
    without_a_link_it_fails_and_asks_local_sockets [Need::Gate],
);

type Answer = (Sid, Result<String, AckError>);

fn now(answer: &str) -> Reply {
    Reply::Now(json!(answer))
}

/// Asks everybody in `/`; sockets have this long to answer.
async fn ask(node: &Node, timeout: Duration) -> Verdict<AckStream<String, Adapter>> {
    let io = node.io().timeout(timeout);
    Ok(io.emit_with_ack("ask", "anybody there?").await?)
}

/// Reads to the end.
async fn all(stream: AckStream<String, Adapter>) -> Verdict<Vec<Answer>> {
    let stream = Box::pin(stream);
    within(
        2 * patience(),
        "the end of the acknowledgements",
        stream.collect(),
    )
    .await
}

/// Wants exactly these sockets to have answered with these texts; `None` is a time-out.
fn expect(answers: Vec<Answer>, expected: &[(&Client, Option<&str>)]) -> Verdict {
    let mut answers: Vec<_> = answers
        .into_iter()
        .map(|(sid, answer)| (sid, answer.ok()))
        .collect();
    let text = |text: &Option<&str>| text.map(str::to_owned);
    let mut expected: Vec<_> = expected
        .iter()
        .map(|(client, answer)| (client.sid(), text(answer)))
        .collect();
    answers.sort();
    expected.sort();
    ensure_eq("the acknowledgements", &answers, &expected)
}

fn is_incomplete(node: NodeId) -> impl Fn(&ClusterEvent) -> bool {
    move |event| matches!(event, ClusterEvent::Incomplete { missing, .. } if *missing == [node])
}

async fn every_socket_of_every_node_answers_and_the_stream_ends(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let late = Reply::After(Duration::from_millis(200), json!("late"));
    let mut clients = Vec::new();
    for node in &nodes {
        for reply in [now("one"), now("two"), late.clone()] {
            clients.push(node.client_that_replies("/", reply).await?);
        }
    }
    let start = Instant::now();
    let answers = all(ask(&nodes[1], Duration::from_secs(60)).await?).await?;
    ensure!(
        start.elapsed() < Duration::from_secs(60),
        "it waited for the time-out"
    );
    let texts = ["one", "two", "late"].into_iter().map(Some).cycle();
    let expected: Vec<_> = clients.iter().zip(texts).collect();
    expect(answers, &expected)
}

async fn a_silent_socket_times_out_alone(context: Context) -> Verdict {
    let nodes = context.cluster::<2>(brisk()).await?;
    let replies = [now("here"), Reply::Never];
    let mut clients = Vec::new();
    for node in &nodes {
        for reply in replies.clone() {
            clients.push(node.client_that_replies("/", reply).await?);
        }
    }
    let answers = all(ask(&nodes[0], Duration::from_millis(300)).await?).await?;
    let texts = [Some("here"), None].into_iter().cycle();
    let expected: Vec<_> = clients.iter().zip(texts).collect();
    expect(answers, &expected)
}

async fn a_broadcast_to_nobody_ends_at_once(context: Context) -> Verdict {
    let nodes = context.cluster::<3>(brisk()).await?;
    let _client = nodes[1].client_that_replies("/", now("not asked")).await?;
    let io = nodes[0].io().to("nobody").timeout(Duration::from_secs(60));
    let answers = all(io.emit_with_ack("ask", &()).await?).await?;
    expect(answers, &[])
}

async fn a_remote_socket_answers(context: Context) -> Verdict {
    let nodes = context.cluster::<2>(brisk()).await?;
    let asked = nodes[1].client_that_replies("/", now("it is me")).await?;
    let _other = nodes[1].client_that_replies("/", now("not asked")).await?;
    let found = nodes[0].io().fetch_sockets().await?;
    let socket = found.iter().find(|socket| socket.data().id == asked.sid());
    let socket = socket.ok_or_else(|| Failure("the remote socket was not found".into()))?;
    let answers = all(socket.emit_with_ack("ask", &()).await?).await?;
    expect(answers, &[(&asked, Some("it is me"))])
}

async fn an_answer_that_overtakes_its_count_is_kept(context: Context) -> Verdict {
    let (one, tap, two) = context.pair(brisk()).await?;
    let late = Reply::After(Duration::from_millis(50), json!("late"));
    let clients = [
        one.client_that_replies("/", now("early")).await?,
        one.client_that_replies("/", late).await?,
    ];
    tap.forget();
    // Of what is for the asking node, the first frame has the count.
    let mut holds = true;
    tap.rule(move |out| match out.topic {
        Topic::Node(_) if std::mem::take(&mut holds) => Fate::Hold,
        _ => Fate::Pass,
    });
    let stream = ask(&two, Duration::from_secs(60)).await?;
    let release = async {
        let to_two = Topic::Node(two.id()?);
        let answered = async || {
            let published = tap.published();
            Ok(tap.held() == 1
                && published
                    .iter()
                    .filter(|(topic, _)| *topic == to_two)
                    .count()
                    > 1)
        };
        eventually(patience(), "an answer behind the count", answered).await?;
        Ok(tap.release().await?)
    };
    let (answers, released) = tokio::join!(all(stream), release);
    let released: Verdict = released;
    released?;
    expect(
        answers?,
        &[(&clients[0], Some("early")), (&clients[1], Some("late"))],
    )
}

async fn a_node_that_dies_before_its_count_is_named_and_not_waited_for(
    context: Context,
) -> Verdict {
    let (mute, tap, asking) = context.pair(mortal()).await?;
    let _unheard = mute.client_that_replies("/", now("unheard")).await?;
    let heard = asking.client_that_replies("/", now("heard")).await?;
    tap.rule(|_| Fate::Lose);
    let answers = all(ask(&asking, Duration::from_secs(60)).await?).await?;
    expect(answers, &[(&heard, Some("heard"))])?;
    told(&asking, "missing answers", is_incomplete(mute.id()?)).await
}

async fn a_node_that_dies_after_its_count_is_named_and_not_waited_for(context: Context) -> Verdict {
    let [dying, asking] = context.cluster(mortal()).await?;
    let quick = dying.client_that_replies("/", now("quick")).await?;
    let _silent = dying.client("/").await?;
    let mut stream = Box::pin(ask(&asking, Duration::from_secs(60)).await?);
    let first = within(patience(), "an acknowledgement", stream.next()).await?;
    expect(first.into_iter().collect(), &[(&quick, Some("quick"))])?;
    let id = dying.id()?;
    dying.kill().await?;
    let rest = within(
        patience(),
        "the end of the acknowledgements",
        stream.collect(),
    )
    .await?;
    expect(rest, &[])?;
    told(&asking, "missing answers", is_incomplete(id)).await
}

async fn a_stream_that_is_dropped_disturbs_no_other(context: Context) -> Verdict {
    let nodes = context.cluster::<2>(brisk()).await?;
    let late = Reply::After(Duration::from_millis(100), json!("late"));
    let client = nodes[1].client_that_replies("/", late).await?;
    for _ in 0..3 {
        drop(ask(&nodes[0], Duration::from_secs(60)).await?);
    }
    let answers = all(ask(&nodes[0], Duration::from_secs(60)).await?).await?;
    expect(answers, &[(&client, Some("late"))])
}

async fn without_a_link_it_fails_and_asks_local_sockets(context: Context) -> Verdict {
    let (away, gate) = context.gated(brisk()).await?;
    let other = context.server(brisk()).await?;
    assemble(&[&away, &other]).await?;
    let client = away.client_that_replies("/", now("here")).await?;
    gate.shut().await?;
    link_becomes(&away, LinkState::Down).await?;
    let asked = away.io().emit_with_ack::<_, String>("ask", &()).await;
    let Err(error) = asked else {
        return Err(Failure(
            "it did not say that others could not be asked".into(),
        ));
    };
    let error = format!("{error:?}");
    let kind = format!("{:?}", ErrorKind::LinkDown);
    ensure!(error.contains(&kind), "expected {kind}, got {error}");
    let asked = client.arrivals().wait_for(|arrivals| arrivals.len() == 1);
    within(patience(), "the question to a local socket", asked).await
}
