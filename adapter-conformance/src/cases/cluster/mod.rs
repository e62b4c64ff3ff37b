//! Cases about a whole cluster: real servers with real sockets, through `ClusterAdapter`.

mod acks;
mod broadcast;
mod forge;
mod link;
mod loss;
mod membership;
mod namespaces;
mod outage;
mod queries;
mod shutdown;
mod sockets;
pub(in crate::cases) mod stage;
pub(in crate::cases) mod tap;
mod trust;
mod versions;

use super::Case;

/// All groups of this level, one per file.
pub(super) const GROUPS: &[&[Case]] = &[
    broadcast::CASES,
    acks::CASES,
    sockets::CASES,
    queries::CASES,
    namespaces::CASES,
    membership::CASES,
    loss::CASES,
    link::CASES,
    outage::CASES,
    shutdown::CASES,
    trust::CASES,
    versions::CASES,
];
