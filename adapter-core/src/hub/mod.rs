//! The cluster logic of one node, driven by one set of tasks and generic over nothing.
#![allow(dead_code)]

pub(crate) mod acks;
mod lanes;
pub(crate) mod membership;
pub(crate) mod receive;
pub(crate) mod requests;
