//! The broker-independent core of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).

pub mod backend;
mod error;
mod hub;
mod id;
pub mod memory;
pub mod transport;
pub mod wire;

pub use self::{
    error::{Error, ErrorKind, Outcome, Result},
    id::{NodeId, RequestId},
};
