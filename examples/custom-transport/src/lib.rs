//! A complete transport over a broker of one's own: `docs/writing-a-transport.md` walks through it.
//!
//! * `hub.rs`, the program: the broker. Clients subscribe to topics, and it copies what is published to them.
//! * `protocol.rs`: what is said between the two.
//! * `transport.rs`: the transport. It is all that somebody has to write for a broker that exists.
//! * `tests/conformance.rs`: the suite, with a hub that is killed, frozen and cut.

pub mod protocol;
mod transport;

use std::sync::Arc;

use socketioxide_adapter_core::{
    Error, ErrorKind, Result,
    backend::{Backend, BackendUrl},
    transport::Transport,
};

pub use self::transport::HubTransport;

/// `hub://127.0.0.1:7000?prefix=chat`, for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "hub",
    schemes: &["hub"],
    connect: |url| {
        Box::pin(async move {
            let (address, prefix) = read(url)?;
            let transport: Arc<dyn Transport> =
                Arc::new(HubTransport::connect(&address, &prefix).await?);
            Ok(transport)
        })
    },
};

fn read(mut url: BackendUrl) -> Result<(String, String)> {
    let prefix = url.take("prefix");
    let address = url.url().host_str().zip(url.url().port());
    let address = address.map(|(host, port)| format!("{host}:{port}"));
    url.finish()?;
    let expected = "expected a host and a port, such as hub://127.0.0.1:7000";
    let address = address.ok_or_else(|| Error::new(ErrorKind::Config, "hub: url", expected))?;
    Ok((address, prefix.unwrap_or_else(|| "socketioxide".to_owned())))
}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-transport.md")]
mod guide {}
