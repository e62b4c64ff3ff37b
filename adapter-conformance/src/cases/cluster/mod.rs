//! Cases about a whole cluster: real servers with real sockets, through `ClusterAdapter`.

mod acks;
mod broadcast;
mod queries;
mod sockets;
pub(in crate::cases) mod stage;
pub(in crate::cases) mod tap;

use super::Case;

/// All groups of this level, one per file.
pub(super) const GROUPS: &[&[Case]] = &[
    broadcast::CASES,
    acks::CASES,
    sockets::CASES,
    queries::CASES,
];
