//! Free ports that stay free while the broker is down.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Error, Result};

/// Below the range from which Linux takes the source ports of outgoing connections (32,768 and up). A port from that
/// range can be taken by any client while the broker is down, even by a client that tries to reach the broker: a
/// connection to a dead local port can connect to itself.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port of 127.0.0.1 that nobody listens on right now. Somebody else may still be faster: the caller retries.
pub(crate) fn free() -> Result<u16> {
    (0..200)
        .map(|_| fastrand::u16(RANGE))
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| Error::new("no free port on 127.0.0.1"))
}
