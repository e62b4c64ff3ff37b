//! The command line: where the bus is, how many nodes to run, and on which ports.

use std::ops::Range;

pub(crate) const USAGE: &str = "\
Usage: cargo run --example chat -- [OPTIONS]

  --bus URL     the message bus, for example redis://127.0.0.1:6379   [memory://chat]
  --nodes N     nodes to run in this process, from 1 to 16            [3]
  --port P      port of the first node; the others follow             [3000]
  --host HOST   address to listen on; 0.0.0.0 to try it on a phone    [127.0.0.1]
  --help        this text";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) bus: String,
    pub(crate) host: String,
    port: u16,
    nodes: u16,
}

impl Options {
    /// Reads the arguments; `None` when help is asked for.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut options = Self {
            bus: "memory://chat".into(),
            host: "127.0.0.1".into(),
            port: 3000,
            nodes: 3,
        };
        while let Some(name) = args.next() {
            if name == "--help" || name == "-h" {
                return Ok(None);
            }
            if !["--bus", "--nodes", "--port", "--host"].contains(&name.as_str()) {
                return Err(format!("unknown option {name}"));
            }
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--bus" => options.bus = value,
                "--host" => options.host = value,
                "--nodes" => options.nodes = number(&name, &value, 1..17)?,
                _ => options.port = number(&name, &value, 1..65_500)?,
            }
        }
        Ok(Some(options))
    }

    pub(crate) const fn ports(&self) -> Range<u16> {
        self.port..self.port + self.nodes
    }

    /// The scheme of the bus: all of its URL that a page needs to know.
    pub(crate) fn bus_name(&self) -> String {
        self.bus.split(':').next().unwrap_or_default().to_owned()
    }

    /// The bus for people to read. A URL can hold a password before its `@`.
    pub(crate) fn bus_without_secrets(&self) -> String {
        match (self.bus.split_once("://"), self.bus.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
            _ => self.bus.clone(),
        }
    }

    /// A host that a browser on this machine can open.
    pub(crate) fn visible_host(&self) -> &str {
        match self.host.as_str() {
            "0.0.0.0" | "::" => "localhost",
            host => host,
        }
    }
}

fn number(name: &str, value: &str, allowed: Range<u16>) -> Result<u16, String> {
    let number = value.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| {
        format!(
            "{name} must be a number from {} to {}",
            allowed.start,
            allowed.end - 1
        )
    })
}
