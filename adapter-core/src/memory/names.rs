//! From `memory://name` to the bus of that name.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{MemoryBus, bus::Core};
use crate::{
    backend::{Backend, BackendUrl},
    error::{Error, ErrorKind, Result},
    transport::{BufferLimits, Transport},
};

/// The backend behind `memory://name`.
///
/// All transports of the process that connect to one name share one bus; when the last one is gone, so is the bus.
/// Options: `max_messages` and `max_bytes`, what each subscription may hold for a slow reader (defaults as in
/// [`BufferLimits`]).
pub const BACKEND: Backend = Backend {
    name: "memory",
    schemes: &["memory"],
    connect: |url| Box::pin(std::future::ready(connect(url))),
};

/// The one global of this crate: a URL is all that two clusters of a process have in common. It keeps no bus alive.
static NAMES: Mutex<Option<HashMap<String, Weak<Core>>>> = Mutex::new(None);

fn connect(mut url: BackendUrl) -> Result<Arc<dyn Transport>> {
    let defaults = BufferLimits::default();
    let limits = BufferLimits::new(
        take_limit(&mut url, "max_messages")?.unwrap_or(defaults.messages),
        take_limit(&mut url, "max_bytes")?.unwrap_or(defaults.bytes),
    );
    let location = url.url();
    let name = location.host_str().unwrap_or_default().to_owned();
    let only_a_name = matches!(location.path(), "" | "/")
        && location.port().is_none()
        && location.fragment().is_none()
        && location.username().is_empty()
        && location.password().is_none();
    url.finish()?;
    if !only_a_name {
        return Err(config("only a name can follow the scheme: memory://name"));
    }
    let bus = {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.get_or_insert_default();
        names.retain(|_, bus| bus.strong_count() > 0);
        let known = names.get(&name).and_then(Weak::upgrade);
        known.map_or_else(
            || {
                let bus = MemoryBus::new();
                names.insert(name, Arc::downgrade(bus.core()));
                bus
            },
            MemoryBus::from_core,
        )
    };
    Ok(Arc::new(bus.connect_with(limits)))
}

fn take_limit(url: &mut BackendUrl, key: &'static str) -> Result<Option<usize>> {
    let limit: Option<std::num::NonZeroUsize> = url.take_parsed(key, "a number from 1")?;
    Ok(limit.map(Into::into))
}

fn config(message: &'static str) -> Error {
    Error::new(ErrorKind::Config, "memory: connect", message)
}
