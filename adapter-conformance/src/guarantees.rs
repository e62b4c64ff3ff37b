//! What the suite has shown of a transport, promise by promise, for the table in the documentation.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};
use socketioxide_adapter_core::transport::{Capabilities, Delivery, Replay};

use crate::suite::Outcome;

/// Names the folder that takes a row per lab.
const FOLDER: &str = "CONFORMANCE_ROWS";

/// One promise, and the cases that judge it: names, or `level::concern::*`.
pub(crate) struct Guarantee {
    promise: &'static str,
    cases: &'static [&'static str],
}

const GUARANTEES: &[Guarantee] = &[
    Guarantee {
        promise: "Nothing is lost or doubled while connected",
        cases: &[
            "transport::delivery::*",
            "transport::concurrency::*",
            "cluster::broadcast::an_emit_reaches_every_socket_of_every_node_once",
            "cluster::broadcast::eight_nodes_hear_each_other_once",
        ],
    },
    Guarantee {
        promise: "What one node publishes keeps its order",
        cases: &[
            "transport::order::sequential_publishes_keep_their_order",
            "transport::order::pipelined_publishes_keep_the_order_of_their_first_poll",
            "transport::order::a_small_payload_does_not_overtake_a_large_one",
            "transport::order::each_publisher_keeps_its_order_among_others",
            "cluster::broadcast::the_emits_of_each_node_keep_their_order",
            "cluster::sockets::a_join_is_never_overtaken_by_the_emit_behind_it",
        ],
    },
    Guarantee {
        promise: "All nodes see what several nodes publish in one order",
        cases: &["transport::order::all_nodes_see_all_publishers_in_one_order"],
    },
    Guarantee {
        promise: "No socket gets a message twice, or after a later one",
        cases: &[
            "cluster::loss::a_frame_that_comes_twice_is_delivered_once",
            "cluster::loss::a_frame_that_comes_late_is_not_delivered_after_what_followed_it",
            "cluster::loss::a_frame_of_unknown_fate_is_sent_again_and_delivered_once",
            "transport::replay::a_second_outage_without_a_payload_between_brings_nothing_back",
            "faults::*",
        ],
    },
    Guarantee {
        promise: "No loss is silent: each is told, and counted exactly",
        cases: &[
            "cluster::loss::*",
            "transport::loss::restarts_under_load_lose_nothing_silently",
            "transport::loss::cuts_under_load_lose_nothing_silently",
            "transport::loss::a_node_cut_off_alone_is_told_the_truth",
            "transport::loss::connections_torn_at_any_byte_lose_nothing_silently",
            "faults::*",
        ],
    },
    Guarantee {
        promise: "What a node missed while it was cut off comes back",
        cases: &[
            "transport::loss::a_node_cut_off_gets_back_what_it_missed",
            "transport::replay::what_was_missed_comes_back_in_order",
            "transport::replay::an_outage_amid_the_replay_loses_nothing",
            "faults::link::replayed_slowly",
        ],
    },
    Guarantee {
        promise: "A restart of the broker loses nothing that was accepted",
        cases: &["transport::loss::restarts_under_load_lose_nothing_that_was_accepted"],
    },
    Guarantee {
        promise: "What the broker no longer has is told, and delivery goes on",
        cases: &[
            "transport::replay::what_is_no_longer_retained_is_told_exactly",
            "transport::replay::a_wiped_log_is_told_and_delivery_goes_on",
            "faults::link::trimmed_while_away",
        ],
    },
    Guarantee {
        promise: "An accepted publish is with the broker",
        cases: &["transport::freezing::a_frozen_broker_confirms_nothing"],
    },
    Guarantee {
        promise: "Every call ends by its deadline, whatever the broker does",
        cases: &[
            "transport::freezing::calls_end_by_their_deadline_and_tell_the_truth",
            "transport::closing::*",
            "cluster::outage::*",
            "cluster::shutdown::*",
        ],
    },
    Guarantee {
        promise: "A link that died or went deaf is made anew by itself",
        cases: &["transport::reconnect::*", "cluster::link::*"],
    },
    Guarantee {
        promise: "A slow reader costs bounded memory and nobody else's messages",
        cases: &[
            "transport::backlog::*",
            "faults::network::a_slow_consumer",
            "faults::node::a_client_that_does_not_read",
        ],
    },
    Guarantee {
        promise: "Requests and acknowledgements end, and name who is missing",
        cases: &["cluster::acks::*", "cluster::queries::*"],
    },
    Guarantee {
        promise: "Joins, goodbyes and deaths are noticed, an outage is none",
        cases: &["cluster::membership::*", "faults::node::*"],
    },
    Guarantee {
        promise: "Clusters, namespaces and topics do not mix",
        cases: &[
            "transport::topics::*",
            "cluster::namespaces::*",
            "cluster::trust::clusters_with_other_prefixes_do_not_notice_each_other",
        ],
    },
    Guarantee {
        promise: "Strangers, forgeries, noise and other versions change nothing",
        cases: &["cluster::trust::*", "cluster::versions::*"],
    },
];

impl Guarantee {
    fn covers(&self, case: &str) -> bool {
        self.cases.iter().any(|pattern| matches(pattern, case))
    }
}

fn matches(pattern: &str, case: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(group) => case.starts_with(group),
        None => pattern == case,
    }
}

/// The outcomes of the cases that ran.
#[derive(Debug, Default)]
pub(crate) struct Found(Mutex<BTreeMap<&'static str, Outcome>>);

impl Found {
    pub(crate) fn note(&self, case: &'static str, outcome: &Outcome) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.insert(case, outcome.clone());
    }

    /// Writes the row of a lab, if a folder is set that wants it and every case has an outcome: a part of the suite shows
    /// nothing.
    pub(crate) fn write(
        &self,
        capabilities: &Capabilities,
        cases: impl Iterator<Item = &'static str>,
    ) -> io::Result<()> {
        let Some(folder) = env::var_os(FOLDER) else {
            return Ok(());
        };
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !cases.into_iter().all(|case| found.contains_key(case)) {
            return Ok(());
        }
        let lab = lab_name();
        let row = row(&lab, capabilities, &found);
        fs::create_dir_all(&folder)?;
        let file = PathBuf::from(folder).join(format!("{}.json", lab.replace('/', ".")));
        fs::write(file, format!("{row:#}\n"))
    }
}

fn row(lab: &str, capabilities: &Capabilities, found: &BTreeMap<&str, Outcome>) -> Value {
    let guarantees = GUARANTEES.iter().map(|guarantee| {
        let (mut passed, mut failed) = (0, 0);
        let mut inapplicable = BTreeSet::new();
        for (_, outcome) in found.iter().filter(|(case, _)| guarantee.covers(case)) {
            match outcome {
                Outcome::Passed => passed += 1,
                Outcome::Failed(_) => failed += 1,
                Outcome::Ignored(reason) => {
                    inapplicable.insert(reason.trim_start_matches("not applicable: "));
                }
            }
        }
        json!({
            "promise": guarantee.promise,
            "cases": guarantee.cases,
            "passed": passed,
            "failed": failed,
            "inapplicable": inapplicable,
        })
    });
    json!({
        "lab": lab,
        "capabilities": {
            "delivery": match capabilities.delivery {
                Delivery::AtLeastOnce => "at least once",
                _ => "at most once",
            },
            "replay": match capabilities.replay {
                Replay::WithinRetention => "within retention",
                _ => "none",
            },
            "confirms": capabilities.confirms,
            "total_order": capabilities.total_order,
            "max_payload": capabilities.max_payload,
        },
        "guarantees": guarantees.collect::<Vec<_>>(),
    })
}

/// `package/test`, from where cargo put the program: its file name ends with a hash.
fn lab_name() -> String {
    let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let package = Path::new(&package).file_name().unwrap_or_default();
    let program = env::current_exe().unwrap_or_default();
    let program = program.file_stem().unwrap_or_default().to_string_lossy();
    let test = program.rsplit_once('-').map_or(&*program, |(test, _)| test);
    format!("{}/{test}", package.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Suite;

    #[test]
    fn every_pattern_names_a_case() {
        for guarantee in GUARANTEES {
            for pattern in guarantee.cases {
                let known = Suite::names().any(|case| matches(pattern, case));
                assert!(known, "{pattern} of \"{}\"", guarantee.promise);
            }
        }
    }

    #[test]
    fn a_promise_counts_what_passed_and_what_failed_and_why_the_rest_was_not_tried() {
        let case = |claim| format!("transport::replay::{claim}");
        let names = [
            case("what_was_missed_comes_back_in_order"),
            case("an_outage_amid_the_replay_loses_nothing"),
            "transport::loss::a_node_cut_off_gets_back_what_it_missed".into(),
        ];
        let outcomes = [
            Outcome::Passed,
            Outcome::Failed("lost".into()),
            Outcome::Ignored("not applicable: no gates".into()),
        ];
        let found = names.iter().map(String::as_str).zip(outcomes).collect();
        let capabilities = Capabilities::new(Delivery::AtLeastOnce).with_confirms(true);
        let row = row("folder/test", &capabilities, &found);
        let promise = "What a node missed while it was cut off comes back";
        let guarantees = row["guarantees"].as_array().unwrap();
        let judged = guarantees
            .iter()
            .find(|it| it["promise"] == promise)
            .unwrap();
        assert_eq!(
            (&judged["passed"], &judged["failed"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(judged["inapplicable"], json!(["no gates"]));
        assert_eq!(row["capabilities"]["delivery"], "at least once");
        assert_eq!(row["capabilities"]["confirms"], true);
    }
}
