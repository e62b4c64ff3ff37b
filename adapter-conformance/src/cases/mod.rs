//! The one table of all cases.

mod cluster;
mod faults;
mod memory;
mod transport;

use std::{fmt, future::Future, pin::Pin};

use socketioxide_adapter_core::transport::{Capabilities, Replay};

use crate::{Ability, Lab, check::Verdict, context::Context};

/// A property that every transport must have, as far as it applies.
pub(crate) struct Case {
    /// `level::concern::claim`.
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(Context) -> Pin<Box<dyn Future<Output = Verdict> + Send>>,
}

/// What a case needs to apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// The lab can cause this fault. The case has the broker for itself.
    Fault(Ability),
    /// `Capabilities::confirms`.
    Confirms,
    /// `Capabilities::total_order`.
    TotalOrder,
    /// `Capabilities::replay` gives something back.
    Replay,
    /// The lab has gates.
    Gate,
    /// The lab has an endpoint that a proxy can stand in front of.
    Proxy,
    /// Nothing runs beside the case: it measures the process.
    Alone,
}

impl Need {
    fn is_met(self, lab: &dyn Lab, capabilities: &Capabilities) -> bool {
        match self {
            Self::Fault(ability) => lab
                .faults()
                .is_some_and(|faults| faults.abilities().contains(&ability)),
            Self::Confirms => capabilities.confirms,
            Self::TotalOrder => capabilities.total_order,
            Self::Replay => capabilities.replay != Replay::None,
            Self::Gate => lab.has_gates(),
            Self::Proxy => lab.endpoint().is_some(),
            Self::Alone => true,
        }
    }
}

/// Why a need is not met.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(ability) => write!(f, "the lab cannot {ability}"),
            Self::Confirms => f.write_str("the transport does not confirm"),
            Self::TotalOrder => f.write_str("the transport has no total order"),
            Self::Replay => f.write_str("the transport replays nothing"),
            Self::Gate => f.write_str("the lab cannot cut one node off"),
            Self::Proxy => f.write_str("the lab's broker is not behind one TCP address"),
            Self::Alone => f.write_str("other cases run"),
        }
    }
}

impl Case {
    /// The first need that is not met.
    pub(crate) fn unmet(&self, lab: &dyn Lab, capabilities: &Capabilities) -> Option<Need> {
        let mut needs = self.needs.iter();
        needs.find(|need| !need.is_met(lab, capabilities)).copied()
    }

    /// Whether it uses faults, after which the broker must be restored.
    pub(crate) fn breaks_the_broker(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::Fault(_)))
    }

    /// Whether it is of the level whose length can be chosen.
    pub(crate) fn is_about_faults(&self) -> bool {
        self.name.starts_with("faults::")
    }

    /// Whether no other case may run meanwhile.
    pub(crate) fn runs_alone(&self) -> bool {
        self.breaks_the_broker() || self.needs.contains(&Need::Alone)
    }
}

/// Every case there is.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    transport::GROUPS
        .iter()
        .chain(cluster::GROUPS)
        .chain(faults::GROUPS)
        .copied()
        .flatten()
}

/// Declares the cases of one file: `cases!("level::concern": claim, claim [Need::Confirms], …)`. A case that is not listed
/// is dead code, which the build refuses.
macro_rules! cases {
    ($group:literal: $($claim:ident $([$($need:expr),+])?),+ $(,)?) => {
        pub(crate) const CASES: &[$crate::cases::Case] = &[$(
            $crate::cases::Case {
                name: concat!($group, "::", stringify!($claim)),
                needs: &[$($($need),+)?],
                run: |context| Box::pin($claim(context)),
            }
        ),+];
    };
}
use cases;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_have_three_parts() {
        let names: Vec<&str> = all().map(|case| case.name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        assert!(names.iter().all(|name| name.split("::").count() == 3));
    }
}
