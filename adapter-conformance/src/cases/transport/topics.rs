//! Topics, namespaces and clusters do not mix, whatever their names look like.

use bytes::Bytes;
use socketioxide_adapter_core::{
    NodeId,
    transport::{Event, Topic},
};

use crate::{
    cases::cases,
    check::{Verdict, ensure, show},
    context::{Context, Inbox, Node, inbox, namespace, publish},
};

cases!("transport::topics":
    topics_with_hostile_names_do_not_mix,
    clusters_with_similar_prefixes_do_not_mix,
    clusters_with_hostile_prefixes_do_not_mix_or_are_refused,
    a_prefix_and_a_namespace_cannot_be_taken_for_each_other,
);

/// Names that mean something to some broker, look like one another, or look like other kinds of topics.
fn hostile_names() -> Vec<String> {
    let short = [
        "/",
        "/a",
        "/A",
        "/a/",
        "/a/b",
        "/a//b",
        "/a.b",
        "/a_2eb",
        "/a%2eb",
        "/a-b",
        "/a:b",
        "/a,b",
        "/*",
        "/a*",
        "/[ab]",
        "/?",
        "/a?b=c&d",
        "/#",
        "/a/#",
        "/>",
        "/a.>",
        "/$SYS",
        "/{tag}",
        "/a b",
        " /a",
        "/a ",
        "/a\tb",
        "/a\r\nb",
        "/a\0b",
        "/'\"\\;--",
        "/ü",
        "/u\u{308}",
        "/日本語",
        "/🦀",
        "",
        "a",
        "cluster",
        "/cluster",
        "node/x",
        "ns/a",
        "/ns/a",
    ];
    let mut names: Vec<String> = short.map(Into::into).into();
    for last in ["x", "y"] {
        names.push(format!("/{}{last}", "long".repeat(256)));
    }
    names
}

/// Publishes one payload to each place, by the node that stands beside it, and wants each to arrive there and only there.
async fn expect_no_mixing(places: &mut [(String, Node, Topic, Inbox)]) -> Verdict {
    for (name, node, topic, inbox) in places.iter_mut() {
        let payload = Bytes::from(format!("for {name}"));
        publish(node, topic, payload.clone()).await?;
        // Waiting for it here, in the right place, also gives a leak the time to happen.
        match inbox.next().await? {
            Event::Message(other) if other == payload => {}
            other => ensure!(false, "{name:?} received {}", show(Some(&other))),
        }
    }
    for (name, node, topic, inbox) in places.iter_mut() {
        let strangers = inbox.fence(node, topic).await?;
        ensure!(
            strangers.is_empty(),
            "{name:?} also received {}",
            show(strangers.first())
        );
    }
    Ok(())
}

async fn topics_with_hostile_names_do_not_mix(context: Context) -> Verdict {
    let (one, two) = (context.node().await?, context.node().await?);
    let mut topics = vec![Topic::Cluster];
    topics.extend([NodeId::random(), NodeId::random()].map(Topic::Node));
    topics.extend(hostile_names().iter().map(|name| namespace(name)));
    let mut places = Vec::new();
    for topic in topics {
        let inbox = inbox(&two, &topic).await?;
        places.push((topic.to_string(), one.clone(), topic, inbox));
    }
    expect_no_mixing(&mut places).await
}

/// One place for each prefix and topic, each with a node of its own.
async fn places(
    context: &Context,
    prefixes: &[String],
    topics: &[Topic],
) -> Verdict<Vec<(String, Node, Topic, Inbox)>> {
    let mut places = Vec::new();
    for prefix in prefixes {
        let node = context.node_of(prefix).await?;
        for topic in topics {
            let inbox = inbox(&node, topic).await?;
            let name = format!("{topic} of cluster {prefix}");
            places.push((name, node.clone(), topic.clone(), inbox));
        }
    }
    Ok(places)
}

async fn clusters_with_similar_prefixes_do_not_mix(context: Context) -> Verdict {
    let base = &context.prefix;
    let prefixes = ["", "a", "A", "-", "_", "-a", "-cluster"].map(|end| format!("{base}{end}"));
    let topics = [
        Topic::Cluster,
        Topic::Node(NodeId::random()),
        namespace("/"),
        namespace("/a"),
    ];
    let mut places = places(&context, &prefixes, &topics).await?;
    expect_no_mixing(&mut places).await
}

async fn clusters_with_hostile_prefixes_do_not_mix_or_are_refused(context: Context) -> Verdict {
    let base = &context.prefix;
    let ends = [
        ".", ".*", ".>", ".#", ":", ":*", "/", "/#", "?", "[a]", "{a}", " ", "\r\n", "%2e", "ü",
    ];
    let mut accepted = vec![base.clone(), format!("{base}a")];
    for prefix in ends.map(|end| format!("{base}{end}")) {
        if let Ok(node) = context.lab.connect(&prefix).await {
            node.close().await?;
            accepted.push(prefix);
        }
    }
    let mut places = places(&context, &accepted, &[Topic::Cluster, namespace("/a")]).await?;
    expect_no_mixing(&mut places).await
}

async fn a_prefix_and_a_namespace_cannot_be_taken_for_each_other(context: Context) -> Verdict {
    let base = &context.prefix;
    let mut places = Vec::new();
    for separator in [":", ".", "/", "-", "_"] {
        let longer = format!("{base}{separator}ns{separator}a");
        if let Ok(node) = context.lab.connect(&longer).await {
            node.close().await?;
            places.extend(self::places(&context, &[longer], &[namespace("/b")]).await?);
        }
        let topics = [
            namespace(&format!("/a{separator}b")),
            namespace(&format!("/a{separator}ns{separator}b")),
        ];
        places.extend(self::places(&context, std::slice::from_ref(base), &topics).await?);
    }
    places.extend(self::places(&context, std::slice::from_ref(base), &[namespace("/b")]).await?);
    expect_no_mixing(&mut places).await
}
