//! The port mapper of Erlang, and the ports of one node.

use std::{
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use crate::{error::Result, port, process::Process};

const EPMD_LIMIT: Duration = Duration::from_secs(10);

/// The ports of one node, all on 127.0.0.1 and its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) amqp: u16,
    /// Where `rabbitmqctl` talks to the node.
    pub(super) distribution: u16,
    /// Where `rabbitmqctl` asks for that port.
    pub(super) epmd: u16,
}

impl Ports {
    pub(super) fn free() -> Result<Self> {
        Ok(Self {
            amqp: port::free()?,
            distribution: port::free()?,
            epmd: port::free()?,
        })
    }

    /// Starts a port mapper of our own. Without it the node would start one for the whole machine, which outlives it.
    pub(super) fn start_epmd(self, install: &str, dir: &Path) -> Result<Process> {
        let port = self.epmd;
        let mut command = Command::new("epmd");
        command
            .args(["-port", &port.to_string()])
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        let mut epmd = Process::spawn(command, install, &dir.join("epmd.log"))?;
        let ready = |_: &str| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        epmd.wait_until(EPMD_LIMIT, ready)?;
        Ok(epmd)
    }
}
