//! What a node gets back from the log, and what it is told of what is gone.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../adapter-nats/tests/common/mod.rs"]
mod common;

use std::{fs, path::Path, time::Duration};

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use common::*;
use socketioxide_adapter_conformance::proxy::{Proxy, Way};
use socketioxide_adapter_core::{
    ErrorKind, Outcome, Result,
    backend::BackendUrl,
    transport::{Continuity, Event, LinkState, LossCause, Subscription, Topic, Transport},
};
use socketioxide_adapter_jetstream::{JetStreamConfig, JetStreamTransport};
use socketioxide_broker_lab::Nats;

const STREAM: &str = "socketioxide";

async fn try_connect(url: &str) -> Result<JetStreamTransport> {
    let url = BackendUrl::parse(url)?;
    JetStreamConfig::from_url(url)?.connect().await
}

async fn connect(nats: &Nats) -> JetStreamTransport {
    try_connect(&nats.url()).await.unwrap()
}

/// A server, a node that stays, and one that can be cut off and listens to `/`.
struct Pair {
    nats: Nats,
    proxy: Proxy,
    talker: JetStreamTransport,
    away: JetStreamTransport,
    inbox: Subscription,
}

impl Pair {
    async fn new() -> Self {
        Self::on(Nats::builder().jetstream().start().unwrap()).await
    }

    async fn on(nats: Nats) -> Self {
        let talker = connect(&nats).await;
        let address = ([127, 0, 0, 1], nats.port()).into();
        let proxy = Proxy::start(address, 0).await.unwrap();
        let away = try_connect(&format!("nats+jetstream://{}", proxy.address())).await;
        let away = away.unwrap();
        let mut inbox = away.subscribe(&namespace("/")).await.unwrap();
        publish(&talker, 0..1).await;
        assert_eq!(message(&mut inbox).await, "0");
        Self {
            nats,
            proxy,
            talker,
            away,
            inbox,
        }
    }

    async fn cut_off(&self) {
        self.proxy.shut();
        down(&self.away).await;
    }

    async fn come_back(&mut self) -> Event {
        let epoch = self.away.link().status().epoch;
        self.proxy.open();
        up(&self.away, epoch + 1).await;
        next(&mut self.inbox).await
    }

    async fn expect(&mut self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            assert_eq!(message(&mut self.inbox).await, number.to_string());
        }
    }
}

async fn publish(transport: &JetStreamTransport, numbers: std::ops::Range<u32>) {
    for number in numbers {
        let payload = number.to_string();
        transport
            .publish(&namespace("/"), payload.into())
            .await
            .unwrap();
    }
}

const fn unbroken(replayed: u64) -> Event {
    Event::Resumed(Continuity::Unbroken { replayed })
}

const fn lost(count: Option<u64>, cause: LossCause) -> Event {
    Event::Resumed(Continuity::Lost { count, cause })
}

/// What an administrator has.
async fn admin(nats: &Nats) -> jetstream::Context {
    let client = async_nats::connect(format!("127.0.0.1:{}", nats.port())).await;
    jetstream::new(client.unwrap())
}

async fn stream(nats: &Nats) -> stream::Stream {
    admin(nats).await.get_stream(STREAM).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_frames_come_back_once_and_in_order() {
    let mut pair = Pair::new().await;
    pair.cut_off().await;
    publish(&pair.talker, 1..1_001).await;
    assert_eq!(pair.come_back().await, unbroken(1_000));
    pair.expect(1..1_001).await;
    pair.cut_off().await;
    assert_eq!(pair.come_back().await, unbroken(0));
    publish(&pair.talker, 1_001..1_002).await;
    pair.expect(1_001..1_002).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_takes_long_on_a_narrow_way_is_not_taken_for_a_dead_link() {
    let mut pair = Pair::new().await;
    // As every node has: the server must confirm it before the link is up.
    let _cluster = pair.away.subscribe(&Topic::Cluster).await.unwrap();
    pair.cut_off().await;
    let (topic, frame) = (namespace("/"), Bytes::from(vec![0; 128 << 10]));
    for _ in 0..40 {
        let publish = pair.talker.publish(&topic, frame.clone());
        publish.await.unwrap();
    }
    // All together take 13 s, more than an echo may.
    let narrow = Way::default().with_bandwidth(400 << 10);
    pair.proxy.set_to_client(narrow);
    assert_eq!(pair.come_back().await, unbroken(40));
    for _ in 0..40 {
        assert_eq!(message(&mut pair.inbox).await, frame);
    }
    assert_eq!(pair.away.link().status().epoch, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_killed_has_lost_nothing() {
    let mut pair = Pair::new().await;
    for round in 0..3 {
        pair.cut_off().await;
        publish(&pair.talker, 1 + 100 * round..101 + 100 * round).await;
        pair.nats.kill().unwrap();
        pair.nats.restart().unwrap();
        up(&pair.talker, u64::from(round) + 2).await;
        assert_eq!(pair.come_back().await, unbroken(100));
        pair.expect(1 + 100 * round..101 + 100 * round).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_trimmed_or_purged_is_counted_exactly() {
    let nats = Nats::builder().jetstream().start().unwrap();
    // An existing stream is used as it is.
    let config = stream::Config {
        name: STREAM.into(),
        subjects: vec![format!("{STREAM}._ns.*")],
        max_messages: 100,
        ..Default::default()
    };
    admin(&nats).await.create_stream(config).await.unwrap();
    let mut pair = Pair::on(nats).await;
    pair.cut_off().await;
    publish(&pair.talker, 1..1_001).await;
    assert_eq!(pair.come_back().await, lost(Some(900), LossCause::Trimmed));
    pair.expect(901..1_001).await;
    pair.cut_off().await;
    publish(&pair.talker, 1_001..1_051).await;
    stream(&pair.nats).await.purge().await.unwrap();
    publish(&pair.talker, 1_051..1_061).await;
    assert_eq!(pair.come_back().await, lost(Some(50), LossCause::Trimmed));
    pair.expect(1_051..1_061).await;
    assert_eq!(
        stream(&pair.nats).await.cached_info().config.max_messages,
        100
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_namespaces_nobody_can_say_whose_frames_are_gone() {
    let mut pair = Pair::new().await;
    let mut other = pair.away.subscribe(&namespace("/other")).await.unwrap();
    pair.talker
        .publish(&namespace("/other"), "x".into())
        .await
        .unwrap();
    assert_eq!(message(&mut other).await, "x");
    pair.cut_off().await;
    publish(&pair.talker, 1..11).await;
    stream(&pair.nats).await.purge().await.unwrap();
    assert_eq!(pair.come_back().await, lost(None, LossCause::Trimmed));
    assert_eq!(next(&mut other).await, lost(None, LossCause::Trimmed));
    publish(&pair.talker, 11..12).await;
    pair.expect(11..12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_log_is_told_once_and_all_of_the_new_one_arrives() {
    let mut pair = Pair::new().await;
    pair.cut_off().await;
    publish(&pair.talker, 1..11).await;
    pair.nats.kill().unwrap();
    pair.nats.wipe().unwrap();
    pair.nats.restart().unwrap();
    up(&pair.talker, 2).await;
    publish(&pair.talker, 11..21).await;
    assert_eq!(pair.come_back().await, lost(None, LossCause::Reset));
    pair.expect(11..21).await;
    pair.cut_off().await;
    assert_eq!(pair.come_back().await, unbroken(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_deleted_under_our_feet_is_made_anew() {
    let mut pair = Pair::new().await;
    admin(&pair.nats).await.delete_stream(STREAM).await.unwrap();
    up(&pair.away, 2).await;
    up(&pair.talker, 2).await;
    assert_eq!(next(&mut pair.inbox).await, lost(None, LossCause::Reset));
    publish(&pair.talker, 1..11).await;
    pair.expect(1..11).await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => fs::copy(entry.path(), &to).map(drop).unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_rolled_back_is_told_however_long_it_has_become_since() {
    for after in [5, 50] {
        let mut pair = Pair::new().await;
        let backup = tempfile::tempdir().unwrap();
        pair.nats.stop().unwrap();
        copy(&pair.nats.store(), backup.path());
        pair.nats.restart().unwrap();
        up(&pair.away, 2).await;
        assert_eq!(next(&mut pair.inbox).await, unbroken(0));
        up(&pair.talker, 2).await;
        publish(&pair.talker, 1..21).await;
        pair.expect(1..21).await;
        pair.cut_off().await;
        pair.nats.stop().unwrap();
        fs::remove_dir_all(pair.nats.store()).unwrap();
        copy(backup.path(), &pair.nats.store());
        pair.nats.restart().unwrap();
        up(&pair.talker, 3).await;
        publish(&pair.talker, 100..100 + after).await;
        assert_eq!(pair.come_back().await, lost(None, LossCause::Reset));
        publish(&pair.talker, 200..210).await;
        pair.expect(200..210).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_put_into_the_log_is_passed_once_and_stops_nothing() {
    let mut pair = Pair::new().await;
    let admin = admin(&pair.nats).await;
    let subject = format!("{STREAM}._ns./");
    // A header that looks like a status of the server.
    let mut raw = tokio::net::TcpStream::connect(("127.0.0.1", pair.nats.port()))
        .await
        .unwrap();
    use tokio::io::AsyncWriteExt as _;
    let poison = "NATS/1.0 409 Consumer Deleted\r\n\r\n";
    let line = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nHPUB {subject} {} {}\r\n{poison}poison\r\nPING\r\n",
        poison.len(),
        poison.len() + 6
    );
    raw.write_all(line.as_bytes()).await.unwrap();
    assert_eq!(message(&mut pair.inbox).await, "poison");
    let ack = admin.publish(subject, "\0\u{fe}".into()).await.unwrap();
    ack.await.unwrap();
    assert_eq!(message(&mut pair.inbox).await, "\0\u{fe}");
    publish(&pair.talker, 1..2).await;
    pair.expect(1..2).await;
    assert_eq!(pair.away.link().status().epoch, 1);
    pair.cut_off().await;
    assert_eq!(pair.come_back().await, unbroken(0));
    publish(&pair.talker, 2..3).await;
    pair.expect(2..3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_published_again_after_an_unknown_outcome_is_stored_once() {
    let mut pair = Pair::new().await;
    let topic = namespace("/");
    pair.nats.freeze().unwrap();
    let outcome = pair.talker.publish(&topic, "again".into()).await;
    assert_eq!(outcome.unwrap_err().outcome(), Outcome::Unknown);
    pair.nats.thaw().unwrap();
    let back = async {
        while pair.talker.publish(&topic, "again".into()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("the second attempt", back).await;
    // Equal bytes that are no retry are another frame.
    pair.talker.publish(&topic, "again".into()).await.unwrap();
    publish(&pair.talker, 1..2).await;
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| last != "1") {
        if let Event::Message(payload) = next(&mut pair.inbox).await {
            heard.push(payload);
        }
    }
    assert_eq!(heard, ["again", "again", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_what_is_needed_says_so() {
    let plain = Nats::start().unwrap();
    let url = format!("nats+jetstream://127.0.0.1:{}", plain.port());
    let error = try_connect(&format!("{url}?connect_timeout=1s"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("is it enabled"), "{error}");
    let one = Nats::builder().jetstream().start().unwrap();
    let error = try_connect(&format!("{}?replicas=3", one.url()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("replicas"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_permissions_are_enough() {
    let subjects = [
        "app.one.>",
        "$JS.API.STREAM.INFO.app_-one",
        "$JS.API.STREAM.CREATE.app_-one",
        "$JS.API.STREAM.MSG.GET.app_-one",
        "$JS.API.CONSUMER.CREATE.app_-one",
        "$JS.API.CONSUMER.MSG.NEXT.app_-one.>",
    ];
    let user = |publish: &[&str]| {
        let users = format!(
            "users: [{{user: u, password: p, permissions: {{publish: {publish:?}, subscribe: \"app.one.>\"}}}}]"
        );
        let nats = Nats::builder().jetstream().authorization(&users);
        nats.start().unwrap()
    };
    let nats = user(&subjects);
    let url = format!("{}?prefix=app.one", nats.url_as("u:p@"));
    let transport = try_connect(&url).await.unwrap();
    let mut subscription = transport.subscribe(&namespace("/")).await.unwrap();
    for epoch in 2..=3 {
        publish(&transport, 0..1).await;
        assert_eq!(message(&mut subscription).await, "0");
        nats.kill().unwrap();
        nats.restart().unwrap();
        up(&transport, epoch).await;
        assert_eq!(next(&mut subscription).await, unbroken(0));
    }
    let less = user(&subjects[..2]);
    let url = format!("{}?prefix=app.one", less.url_as("u:p@"));
    let error = try_connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(
        error.to_string().contains("$JS.API.STREAM.CREATE"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_and_answers_are_not_in_the_log() {
    let nats = Nats::builder().jetstream().start().unwrap();
    let transport = connect(&nats).await;
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    transport
        .publish(&Topic::Cluster, "hello".into())
        .await
        .unwrap();
    assert_eq!(message(&mut subscription).await, "hello");
    assert_eq!(stream(&nats).await.cached_info().state.last_sequence, 0);
    assert_eq!(transport.link().state(), LinkState::Up);
}
