//! The broker-independent core of [`socketioxide-adapter`](https://docs.rs/socketioxide-adapter).

mod adapter;
pub mod backend;
mod cluster;
mod config;
mod endpoint;
mod error;
mod events;
mod hub;
mod id;
pub mod memory;
mod root_ca;
pub mod socket;
mod stats;
pub mod transport;
pub mod wire;

pub use self::{
    adapter::{ClusterAckStream, ClusterAdapter, InitRes},
    cluster::{Cluster, NodeInfo},
    config::{ClusterConfig, OnMissing, OutagePolicy, PublishMode},
    error::{Error, ErrorKind, Outcome, Result},
    events::{ClusterEvent, ClusterEvents, LeaveReason},
    hub::Answer,
    id::{NodeId, RequestId},
    stats::ClusterStats,
};
