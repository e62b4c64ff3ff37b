//! `rediss://`.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use socketioxide_adapter_core::ErrorKind;
use socketioxide_broker_lab::Redis;

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn without_the_feature_the_error_names_it() {
    let error = try_connect("rediss://:s3cr3t@127.0.0.1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "redis: config: TLS needs the cargo feature \"tls\" of socketioxide-adapter, or of the backend's crate"
    );
    let _ = Redis::builder;
}

#[cfg(feature = "tls")]
mod enabled {
    use std::fs;

    use socketioxide_adapter_core::transport::{Event, Topic, Transport};
    use socketioxide_adapter_redis::{Address, Endpoint, RedisConfig, RootCa};

    use super::*;

    #[tokio::test]
    async fn a_private_authority_is_trusted_by_file_or_pem_and_sessions_come_back() {
        let redis = Redis::builder().password("p").tls().start().unwrap();
        let ca = redis.certificates().unwrap().ca.clone();
        let by_file = try_connect(&format!("{}?ca={}", redis.url(), ca.display())).await;
        let by_file = by_file.unwrap();
        let mut by_pem = Endpoint::new(Address::new("localhost", redis.port()))
            .with_tls(RootCa::Pem(fs::read(&ca).unwrap()));
        by_pem.password = Some("p".to_owned());
        let by_pem = RedisConfig::new(by_pem).connect().await.unwrap();
        let mut subscription = by_pem.subscribe(&Topic::Cluster).await.unwrap();
        let payload = vec![7; 3 << 20];
        by_file
            .publish(&Topic::Cluster, payload.clone().into())
            .await
            .unwrap();
        assert!(message(&mut subscription).await == payload);
        redis.kill().unwrap();
        redis.restart().unwrap();
        up(&by_pem, 2).await;
        up(&by_file, 2).await;
        assert!(matches!(next(&mut subscription).await, Event::Resumed(_)));
        by_file
            .publish(&Topic::Cluster, "back".into())
            .await
            .unwrap();
        assert_eq!(message(&mut subscription).await, "back");
    }

    #[tokio::test]
    async fn an_unknown_authority_is_fatal_and_says_what_to_do() {
        let redis = Redis::builder().tls().start().unwrap();
        let error = try_connect(&redis.url()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("option \"ca\""), "{error}");
    }

    #[tokio::test]
    async fn tls_and_plain_text_are_not_mixed_up_in_silence() {
        let (plain, tls) = (
            Redis::start().unwrap(),
            Redis::builder().tls().start().unwrap(),
        );
        let ca = tls.certificates().unwrap().ca.display().to_string();
        let url = format!(
            "rediss://127.0.0.1:{}?connect_timeout=1s&ca={ca}",
            plain.port()
        );
        let error = try_connect(&url).await.unwrap_err();
        assert!(error.to_string().contains("redis:// port"), "{error}");
        let url = format!("redis://127.0.0.1:{}?connect_timeout=500ms", tls.port());
        let error = try_connect(&url).await.unwrap_err();
        assert!(error.to_string().contains("redis: connect"), "{error}");
    }

    #[tokio::test]
    async fn a_ca_that_cannot_be_read_is_named() {
        for url in ["rediss://h?ca=/nowhere.pem", "rediss://h?ca=/dev/null"] {
            let error = try_connect(url).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("\"ca\""), "{error}");
        }
    }
}
