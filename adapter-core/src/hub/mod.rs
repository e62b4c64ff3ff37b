//! The cluster logic of one node, driven by one set of tasks and generic over nothing.

pub(crate) mod acks;
pub(crate) mod membership;
pub(crate) mod receive;
pub(crate) mod requests;
