//! One cluster adapter for socketioxide, any message broker.

pub use socketioxide_adapter_core as core;
