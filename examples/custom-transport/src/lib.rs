//! A complete transport over a broker of one's own: `docs/writing-a-transport.md` walks through it.
//!
//! * `hub.rs`, the program: the broker. It copies what a client sends to all clients.
//! * `protocol.rs`: what is said between the two.
//! * `transport.rs`: the transport. It is all that somebody has to write for a broker that exists.
//! * `tests/conformance.rs`: the suite, with a hub that is killed, frozen and cut.

pub mod protocol;
mod transport;

use socketioxide_adapter_core::{
    Result,
    backend::{Backend, BackendUrl, Endpoint, connecting},
};

pub use self::transport::{Hub, HubTransport, connect};

const PORT: u16 = 7000;

/// `hub://127.0.0.1:7000?prefix=chat`, for a [`Registry`](socketioxide_adapter_core::backend::Registry).
pub const BACKEND: Backend = Backend {
    name: "hub",
    schemes: &["hub"],
    connect: |url| connecting(async { connect(endpoint(url)?).await }),
};

fn endpoint(mut url: BackendUrl) -> Result<Endpoint> {
    let endpoint = Endpoint::take_from(&mut url, PORT, false)?;
    url.finish()?;
    Ok(endpoint)
}

#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-transport.md")]
mod guide {}
