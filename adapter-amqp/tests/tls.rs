//! `amqps://`.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use socketioxide_adapter_core::ErrorKind;

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_the_feature_the_error_names_it() {
    let error = try_connect("amqps://u:s3cr3t@127.0.0.1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("cargo feature \"tls\""),
        "{error}"
    );
}

#[cfg(feature = "tls")]
mod enabled {
    use std::{fs, net::TcpListener};

    use socketioxide_adapter_amqp::{Address, AmqpConfig, Endpoint, RootCa};
    use socketioxide_adapter_core::transport::{Event, Topic, Transport};
    use socketioxide_broker_lab::RabbitMq;

    use super::*;

    /// One server for all: a start takes seconds.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_private_authority_is_trusted_if_it_is_named_and_sessions_come_back() {
        let server = RabbitMq::builder().user("u", "p").tls().start().unwrap();
        let ca = server.certificates().unwrap().ca.clone();

        let error = try_connect(&server.url()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains("option \"ca\""), "{error}");
        let plain = server.url().replace("amqps:", "amqp:");
        let error = try_connect(&format!("{plain}?connect_timeout=1s")).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("amqp: connect"), "{error}");

        let by_file = try_connect(&format!("{}?ca={}", server.url(), ca.display())).await;
        let by_file = by_file.unwrap();
        let by_pem = Endpoint::new(Address::new("localhost", server.port()))
            .with_credentials("u", "p")
            .with_tls(RootCa::Pem(fs::read(&ca).unwrap()));
        let by_pem = AmqpConfig::new(by_pem).connect().await.unwrap();
        let mut subscription = by_pem.subscribe(&Topic::Cluster).await.unwrap();
        let payload = vec![7; 3 << 20];
        let publish = by_file.publish(&Topic::Cluster, payload.clone().into());
        publish.await.unwrap();
        assert!(message(&mut subscription).await == payload);

        server.kill().unwrap();
        server.restart().unwrap();
        up(&by_pem, 2).await;
        up(&by_file, 2).await;
        assert!(matches!(next(&mut subscription).await, Event::Resumed(_)));
        delivers(&by_file, &Topic::Cluster, &mut subscription, "back").await;
    }

    #[tokio::test]
    async fn a_server_that_does_not_speak_tls_is_not_waited_for_without_a_word() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = try_connect(&format!("amqps://127.0.0.1:{port}?connect_timeout=300ms")).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("plain amqp:// port"), "{error}");
    }

    #[tokio::test]
    async fn a_ca_that_cannot_be_read_is_named() {
        for url in ["amqps://h?ca=/nowhere.pem", "amqps://h?ca=/dev/null"] {
            let error = try_connect(url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("\"ca\""), "{error}");
        }
    }
}
