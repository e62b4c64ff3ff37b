//! Cases about a whole cluster, through `ClusterAdapter`.

use super::Case;

/// All groups of this level.
pub(super) const GROUPS: &[&[Case]] = &[];
