//! Logging in, TLS, and what is said when it does not work.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use common::*;
use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use socketioxide_adapter_core::{
    ErrorKind,
    transport::{Event, LinkStatus, Topic, Transport},
};
use socketioxide_adapter_nats::{NatsConfig, NatsTransport, RootCa};
use socketioxide_broker_lab::Nats;

const SECRET: &str = "s3cr3t";
/// A seed and its public key, of no use anywhere else.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// The kind and the text of the error that connecting gives; it must not tell the secret.
async fn refused(url: &str) -> (ErrorKind, String) {
    let error = try_connect(url).await.map(drop).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    (error.kind(), error.to_string())
}

async fn echoes(transport: &NatsTransport) {
    let mut subscription = transport.subscribe(&Topic::Cluster).await.unwrap();
    let publish = transport.publish(&Topic::Cluster, "hello".into());
    publish.await.unwrap();
    assert_eq!(message(&mut subscription).await, "hello");
}

#[tokio::test]
async fn passwords_and_tokens_are_taken_from_the_url() {
    let by_password = Nats::builder().password("us@er", SECRET).start().unwrap();
    let url = by_password.url_as(&format!("us%40er:{SECRET}@"));
    echoes(&try_connect(&url).await.unwrap()).await;
    let by_token = Nats::builder().token(SECRET).start().unwrap();
    echoes(&connect(&by_token).await).await;
    for (nats, wrong) in [(&by_password, "us%40er:s3cr3tt@"), (&by_token, "s3cr3tt@")] {
        let start = Instant::now();
        let (kind, text) = refused(&nats.url_as(wrong)).await;
        assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
        assert!(text.contains("does not accept"), "{text}");
        let (kind, text) = refused(&nats.url_as("")).await;
        assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
        assert!(text.contains("credentials are required"), "{text}");
        assert!(start.elapsed() < Duration::from_secs(4), "no retries");
    }
}

#[tokio::test]
async fn an_nkey_is_read_from_its_file() {
    let nats = Nats::builder().authorization(&format!("users: [{{nkey: {PUBLIC}}}]"));
    let nats = nats.start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nkey");
    let url = format!("{}?nkey={}", nats.url(), file.display());
    let (kind, text) = refused(&url).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    assert!(text.contains("option \"nkey\""), "{text}");
    fs::write(&file, SECRET).unwrap();
    let (kind, text) = refused(&url).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    fs::write(&file, format!("{SEED}\n")).unwrap();
    echoes(&try_connect(&url).await.unwrap()).await;
}

/// An operator, an account and a user, each vouching for the next: what `nsc` makes.
struct Realm {
    operator: String,
    account: String,
    account_key: String,
    /// What a `.creds` file holds.
    creds: String,
}

impl Realm {
    fn new() -> Self {
        let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
        let user = KeyPair::new_user();
        let jwt = token(
            &account,
            &user,
            "\"type\":\"user\",\"subs\":-1,\"data\":-1,\"payload\":-1",
        );
        Self {
            operator: token(&operator, &operator, "\"type\":\"operator\""),
            account: token(
                &operator,
                &account,
                "\"type\":\"account\",\"limits\":{\"subs\":-1,\"data\":-1,\"payload\":-1,\"conn\":-1,\"imports\":-1,\"exports\":-1,\"wildcards\":true}",
            ),
            account_key: account.public_key(),
            creds: format!(
                "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
                user.seed().unwrap()
            ),
        }
    }
}

fn token(issuer: &KeyPair, subject: &KeyPair, claims: &str) -> String {
    let (issuer_key, subject_key) = (issuer.public_key(), subject.public_key());
    let header = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let body = format!(
        "{{\"jti\":\"{subject_key}\",\"iat\":1700000000,\"iss\":\"{issuer_key}\",\"name\":\"test\",\
         \"sub\":\"{subject_key}\",\"nats\":{{{claims},\"version\":2}}}}"
    );
    let signed = format!("{header}.{}", BASE64URL_NOPAD.encode(body.as_bytes()));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

#[tokio::test]
async fn credentials_are_read_from_their_file_each_time() {
    let realm = Realm::new();
    let nats = Nats::builder()
        .config(format!("operator: {}", realm.operator))
        .config("resolver: MEMORY")
        .config(format!(
            "resolver_preload: {{ {}: {} }}",
            realm.account_key, realm.account
        ))
        .start()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("user.creds");
    fs::write(&file, &realm.creds).unwrap();
    let url = format!("{}?creds={}", nats.url(), file.display());
    let transport = try_connect(&url).await.unwrap();
    echoes(&transport).await;
    // Another realm's user is refused, also one who has been in before.
    fs::write(&file, Realm::new().creds).unwrap();
    let (kind, text) = refused(&url).await;
    assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
    nats.kill().unwrap();
    nats.restart().unwrap();
    let mut link = transport.link();
    let refused = |status: &LinkStatus| {
        status
            .reason
            .as_ref()
            .is_some_and(|it| it.contains("does not accept"))
    };
    soon("a refusal", link.wait_for(refused)).await;
    fs::write(&file, &realm.creds).unwrap();
    up(&transport, 2).await;
    echoes(&transport).await;
}

#[tokio::test]
async fn what_cannot_work_is_told_at_once() {
    let cases = [
        ("nats://h/1", "only be options"),
        ("nats://h?prefx=s3cr3t", "did you mean \"prefix\""),
        ("nats://h?prefix=a.", "prefix must be"),
        ("nats://h?prefix=a._b", "prefix must be"),
        ("nats://:s3cr3t@h", "user name"),
        ("nats://u:s3cr3t@h?nkey=/x", "more than one"),
        ("nats+tls://h?ca=/nowhere.pem", "\"ca\""),
        ("nats+tls://h?ca=/dev/null", "\"ca\""),
        ("nats://h?creds=/nowhere", "\"creds\""),
        ("nats://h?creds=/dev/null", "\"creds\""),
        ("nats://h?timeout=0s", "more than 0"),
    ];
    for (url, says) in cases {
        let config = socketioxide_adapter_core::backend::BackendUrl::parse(url).unwrap();
        let error = match NatsConfig::from_url(config) {
            Err(error) => error,
            Ok(config) => config.connect().await.unwrap_err(),
        };
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        assert!(error.to_string().contains(says), "{url}: {error}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_question_to_ask() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It takes the connection and says nothing.
    let url = format!("nats://u:{SECRET}@{address}?connect_timeout=300ms");
    let (kind, text) = refused(&url).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains(&address.to_string()), "{text}");
    drop(listener);
    let (kind, text) = refused(&url).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("is NATS running there?"), "{text}");
    let (kind, text) = refused("nats://no-such-host.invalid?connect_timeout=300ms").await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("no-such-host.invalid:4222"), "{text}");
}

#[tokio::test]
async fn one_of_several_servers_is_enough() {
    let (gone, nats) = (Nats::start().unwrap(), Nats::start().unwrap());
    gone.kill().unwrap();
    for _ in 0..5 {
        let url = format!("nats://127.0.0.1:{},127.0.0.1:{}", gone.port(), nats.port());
        echoes(&try_connect(&url).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_private_authority_is_trusted_by_file_or_pem_and_sessions_come_back() {
    let nats = Nats::builder().password("u", "p").tls().start().unwrap();
    let ca = nats.certificates().unwrap().ca.clone();
    let by_file = try_connect(&format!("{}?ca={}", nats.url(), ca.display())).await;
    let by_file = by_file.unwrap();
    // Not asked for TLS, but the server demands it.
    let url = format!("nats://u:p@localhost:{}", nats.port());
    let mut by_pem = config(&url);
    by_pem.endpoint.tls = Some(RootCa::Pem(fs::read(&ca).unwrap()));
    let by_pem = by_pem.connect().await.unwrap();
    let mut subscription = by_pem.subscribe(&Topic::Cluster).await.unwrap();
    let payload = vec![7; 1 << 20];
    let publish = by_file.publish(&Topic::Cluster, payload.clone().into());
    publish.await.unwrap();
    assert!(message(&mut subscription).await == payload);
    nats.kill().unwrap();
    nats.restart().unwrap();
    up(&by_pem, 2).await;
    up(&by_file, 2).await;
    assert!(matches!(next(&mut subscription).await, Event::Resumed(_)));
    let publish = by_file.publish(&Topic::Cluster, "back".into());
    publish.await.unwrap();
    assert_eq!(message(&mut subscription).await, "back");
}

#[tokio::test]
async fn tls_and_plain_text_are_not_mixed_up_in_silence() {
    let tls = Nats::builder().tls().start().unwrap();
    // Of an authority that nobody knows, with and without being asked for TLS.
    for scheme in ["nats+tls", "nats"] {
        let (kind, text) = refused(&format!("{scheme}://127.0.0.1:{}", tls.port())).await;
        assert_eq!(kind, ErrorKind::Config, "{text}");
        assert!(text.contains("option \"ca\""), "{text}");
    }
    let plain = Nats::start().unwrap();
    let ca = tls.certificates().unwrap().ca.display().to_string();
    let url = format!(
        "nats+tls://127.0.0.1:{}?connect_timeout=1s&ca={ca}",
        plain.port()
    );
    let (_, text) = refused(&url).await;
    assert!(text.contains("nats:// server"), "{text}");
}
