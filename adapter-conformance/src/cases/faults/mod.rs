//! Cases about faults: whole clusters under load whose broker or network fails, judged by the ledger at real sockets.

mod broker;
mod drill;
mod link;
mod member;
mod network;
mod node;
mod outage;
mod peace;
mod publisher;

use super::Case;

/// All groups of this level, one per file.
pub(super) const GROUPS: &[&[Case]] = &[
    broker::CASES,
    outage::CASES,
    link::CASES,
    network::CASES,
    node::CASES,
];
