//! Cases about the transport contract: opaque bytes between topics.

mod backlog;
mod cancelling;
mod capabilities;
mod closing;
mod concurrency;
mod delivery;
mod freezing;
mod limits;
mod loss;
mod order;
mod reconnect;
mod replay;
mod topics;

use super::Case;

/// All groups of this level, one per file.
pub(super) const GROUPS: &[&[Case]] = &[
    capabilities::CASES,
    delivery::CASES,
    order::CASES,
    topics::CASES,
    limits::CASES,
    backlog::CASES,
    cancelling::CASES,
    concurrency::CASES,
    closing::CASES,
    reconnect::CASES,
    freezing::CASES,
    loss::CASES,
    replay::CASES,
];
