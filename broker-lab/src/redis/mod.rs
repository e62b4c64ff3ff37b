//! Redis (or Valkey) servers: one, a primary with sentinels, or a cluster.

mod admin;
mod cluster;
mod sentinel;
mod server;

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

pub use self::{
    admin::Reply,
    cluster::{RedisCluster, RedisClusterBuilder},
    sentinel::{RedisSentinel, RedisSentinelBuilder},
    server::{ClientKind, Redis, RedisBuilder},
};

/// How long several servers may take to agree.
const AGREE: Duration = Duration::from_secs(30);

/// Asks until `condition` holds.
fn agree(what: &str, condition: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + AGREE;
    while !condition() {
        if Instant::now() >= deadline {
            return Err(Error::new(format!("not within {AGREE:?}: {what}")));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A folder with certificates that several servers share.
fn shared_certificates() -> Result<(tempfile::TempDir, crate::tls::Certificates)> {
    let dir = tempfile::Builder::new().prefix("redis-lab-tls-").tempdir();
    let dir = dir.map_err(|error| Error::io("temporary folder", &error))?;
    let certificates = crate::tls::Certificates::generate(dir.path())?;
    Ok((dir, certificates))
}
