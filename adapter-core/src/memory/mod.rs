//! The embedded bus `memory://name`: every cluster of this process that uses one name is connected.
//!
//! It behaves like a broker, only without one: a node's link can be cut, the bus can be stopped, started, frozen and
//! thawed, and [`Faults`] makes the way between the nodes as bad as a test wants, repeatably, from a seed. Without faults
//! it spawns no task and reads no clock, so it is deterministic under tokio's paused time.
//!
//! ```
//! use socketioxide_adapter_core::{
//!     memory::MemoryBus,
//!     transport::{Event, Topic, Transport},
//! };
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> socketioxide_adapter_core::Result<()> {
//! let bus = MemoryBus::new();
//! let (one, two) = (bus.connect(), bus.connect());
//! let mut inbox = two.subscribe(&Topic::Cluster).await?;
//! let receipt = one.publish(&Topic::Cluster, "hello".into()).await?;
//! assert_eq!(receipt.receivers, Some(1));
//! assert_eq!(inbox.recv().await, Some(Event::Message("hello".into())));
//! # Ok(()) }
//! ```

mod bus;
mod courier;
mod faults;
mod names;
mod state;
mod transport;

#[cfg(test)]
mod tests;

pub use self::{bus::MemoryBus, faults::Faults, names::BACKEND, transport::MemoryTransport};
