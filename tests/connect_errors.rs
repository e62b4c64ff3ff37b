//! What `connect` says when it cannot: one line that tells what to do and keeps every secret.

#![allow(clippy::unwrap_used, reason = "helpers of a test")]

use socketioxide_adapter::{ErrorKind, connect};

const SECRET: &str = "s3cr3t";

/// The kind and the text of the error that connecting to `url` gives, after what every such error must hold.
async fn refused(url: &str) -> (ErrorKind, String) {
    let error = connect(url).await.map(drop).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text:?} is more than one line");
    assert!(!format!("{text}{error:?}").contains(SECRET), "{error:?}");
    (error.kind(), text)
}

/// As [`refused`], for what is wrong with the URL itself.
async fn misconfigured(url: &str) -> String {
    let (kind, text) = refused(url).await;
    assert_eq!(kind, ErrorKind::Config, "{text}");
    text
}

#[tokio::test]
async fn what_is_no_url_is_told_what_one_looks_like() {
    for url in ["", SECRET, "127.0.0.1:6379", "//s3cr3t@127.0.0.1"] {
        let text = misconfigured(url).await;
        assert!(text.contains("redis://127.0.0.1:6379"), "{url}: {text}");
    }
}

#[tokio::test]
async fn an_unknown_scheme_is_told_the_known_ones() {
    let text = misconfigured("kafka://user:s3cr3t@127.0.0.1").await;
    assert!(text.contains("unknown scheme \"kafka\""), "{text}");
    for scheme in socketioxide_adapter::registry().schemes() {
        assert!(text.contains(scheme), "{scheme} is not in {text}");
    }
}

#[tokio::test]
async fn an_unknown_option_of_the_memory_bus_is_named() {
    let text = misconfigured("memory://bus?size=s3cr3t").await;
    assert!(text.contains("unknown option \"size\""), "{text}");
}

#[cfg(not(feature = "redis"))]
#[tokio::test]
async fn a_backend_that_was_not_compiled_in_names_its_feature() {
    for scheme in ["redis", "rediss", "redis+unix", "redis+sentinel", "valkey"] {
        let text = misconfigured(&format!("{scheme}://user:s3cr3t@127.0.0.1:1")).await;
        let expected = format!("scheme {scheme:?} needs the cargo feature \"redis\"");
        assert!(text.contains(&expected), "{text}");
    }
}

#[cfg(not(feature = "redis-cluster"))]
#[tokio::test]
async fn a_cluster_that_was_not_compiled_in_names_its_feature() {
    let text = misconfigured("redis+cluster://:s3cr3t@127.0.0.1:1,127.0.0.1:2").await;
    let expected = "scheme \"redis+cluster\" needs the cargo feature \"redis-cluster\"";
    assert!(text.contains(expected), "{text}");
}

#[cfg(not(any(feature = "nats", feature = "jetstream")))]
#[tokio::test]
async fn nats_that_was_not_compiled_in_names_its_feature() {
    for (scheme, feature) in [
        ("nats", "nats"),
        ("nats+tls", "nats"),
        ("nats+jetstream", "jetstream"),
        ("nats+jetstream+tls", "jetstream"),
    ] {
        let text = misconfigured(&format!("{scheme}://user:s3cr3t@127.0.0.1:1")).await;
        let expected = format!("scheme {scheme:?} needs the cargo feature {feature:?}");
        assert!(text.contains(&expected), "{text}");
    }
}

#[cfg(all(feature = "redis", not(feature = "tls")))]
#[tokio::test]
async fn tls_that_was_not_compiled_in_names_its_feature() {
    let text = misconfigured("rediss://user:s3cr3t@127.0.0.1:1").await;
    assert!(text.contains("feature \"tls\""), "{text}");
}

#[cfg(feature = "redis")]
mod redis {
    use std::net::TcpListener;

    use socketioxide_broker_lab::Redis;

    use super::*;

    #[tokio::test]
    async fn an_unknown_option_names_the_nearest_one() {
        let text = misconfigured("redis://user:s3cr3t@127.0.0.1:1?prefx=s3cr3t").await;
        assert!(text.contains("unknown option \"prefx\""), "{text}");
        assert!(text.contains("did you mean \"prefix\"?"), "{text}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_with_the_question_to_ask() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let url = format!("redis://user:s3cr3t@{closed}?connect_timeout=300ms");
        let (kind, text) = refused(&url).await;
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
        assert!(text.contains(&closed.to_string()), "{text}");
        assert!(text.contains("is Redis running there?"), "{text}");
    }

    #[tokio::test]
    async fn a_host_that_does_not_exist_is_named() {
        let (kind, text) =
            refused("redis://:s3cr3t@no-such-host.invalid?connect_timeout=300ms").await;
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
        assert!(text.contains("no-such-host.invalid:6379"), "{text}");
    }

    #[tokio::test]
    async fn a_wrong_password_and_a_missing_one_are_told_apart() {
        let server = Redis::builder().password("open sesame").start().unwrap();
        let (kind, text) = refused(&server.url_as("", SECRET)).await;
        assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
        assert!(text.contains("wrong user name or password"), "{text}");
        let (kind, text) = refused(&format!("redis://127.0.0.1:{}", server.port())).await;
        assert_eq!(kind, ErrorKind::Unauthorized, "{text}");
        assert!(text.contains("a password is required"), "{text}");
    }
}
