//! The flaws of the cluster logic, and the cases that must notice them.

/// A protection that is switched off, or a mistake in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Nothing, but all frames take the same detour.
    None,
    /// The fence: a probe counts as back without the broker having brought it.
    NoFence,
    /// The receive filter: frames are taken as they come.
    NoReceiveFilter,
    /// The part of it that drops repetitions.
    DeliversTwice,
    /// The part of it that drops what comes after what followed it.
    DeliversLate,
    /// The tails, which tell where a lane stands.
    NoTails,
    /// The voids, which withdraw the numbers of what was never sent.
    NoWithdrawals,
    CountsOneTooMany,
    HeartbeatsEndWithTheFirstError,
    NoGoodbye,
    ForgetsExceptions,
    ForgetsRooms,
    MiscountsAcks,
    LosesASocket,
    MakesRoomsUp,
}

/// Every flaw with the cases that must fail, without `cluster::`.
pub(crate) const EXPECTED: &[(Flaw, &[&str])] = &[
    (
        Flaw::NoFence,
        &[
            "link::a_namespace_that_does_not_hear_itself_is_not_ready",
            "link::a_link_that_goes_deaf_is_noticed_and_made_anew",
        ],
    ),
    (
        Flaw::NoReceiveFilter,
        &[
            "membership::a_silent_node_that_comes_back_is_the_same_and_its_losses_are_told",
            "loss::a_loss_in_the_middle_is_told_exactly",
            "loss::a_loss_at_the_end_is_told_although_nothing_follows",
            "loss::the_loss_of_a_first_message_is_told",
            "loss::losses_of_several_nodes_are_told_apart",
            "loss::a_frame_that_comes_twice_is_delivered_once",
            "loss::a_frame_that_comes_late_is_not_delivered_after_what_followed_it",
            "loss::a_frame_of_unknown_fate_is_sent_again_and_delivered_once",
            "loss::many_losses_at_once_are_told_exactly",
            "link::a_link_that_goes_deaf_is_noticed_and_made_anew",
        ],
    ),
    (
        Flaw::DeliversTwice,
        &[
            "loss::a_frame_that_comes_twice_is_delivered_once",
            "loss::a_frame_of_unknown_fate_is_sent_again_and_delivered_once",
        ],
    ),
    (
        Flaw::DeliversLate,
        &["loss::a_frame_that_comes_late_is_not_delivered_after_what_followed_it"],
    ),
    (
        Flaw::NoTails,
        &[
            "loss::a_loss_at_the_end_is_told_although_nothing_follows",
            "loss::the_loss_of_a_first_message_is_told",
            "loss::many_losses_at_once_are_told_exactly",
        ],
    ),
    (
        Flaw::NoWithdrawals,
        &[
            "loss::what_the_broker_refuses_is_told_by_the_sender_alone",
            "loss::what_a_broker_refuses_that_takes_nothing_is_told_by_the_sender_alone",
            "loss::what_is_not_sent_in_time_is_told_by_the_sender_alone",
        ],
    ),
    (
        Flaw::CountsOneTooMany,
        &[
            "membership::a_silent_node_that_comes_back_is_the_same_and_its_losses_are_told",
            "loss::a_loss_in_the_middle_is_told_exactly",
            "loss::a_loss_at_the_end_is_told_although_nothing_follows",
            "loss::losses_of_several_nodes_are_told_apart",
            "loss::a_frame_that_comes_late_is_not_delivered_after_what_followed_it",
            "loss::many_losses_at_once_are_told_exactly",
            "link::a_link_that_goes_deaf_is_noticed_and_made_anew",
        ],
    ),
    (
        Flaw::HeartbeatsEndWithTheFirstError,
        &[
            "membership::heartbeats_go_on_after_errors",
            "membership::a_frozen_broker_makes_nobody_leave",
        ],
    ),
    (
        Flaw::NoGoodbye,
        &[
            "membership::a_node_that_says_goodbye_has_left_at_once",
            "shutdown::what_is_queued_is_sent_before_the_goodbye",
        ],
    ),
    (
        Flaw::ForgetsExceptions,
        &[
            "broadcast::rooms_and_exceptions_select_on_every_node",
            "broadcast::a_sender_is_left_out_or_not_as_the_operator_says",
        ],
    ),
    (
        Flaw::ForgetsRooms,
        &[
            "broadcast::rooms_and_exceptions_select_on_every_node",
            "broadcast::a_sender_is_left_out_or_not_as_the_operator_says",
            "broadcast::a_socket_that_is_gone_is_no_error",
            "sockets::a_join_is_never_overtaken_by_the_emit_behind_it",
            "sockets::joins_and_leaves_reach_the_selected_sockets_of_all_nodes",
            "sockets::a_remote_socket_can_be_joined_asked_and_disconnected",
            "namespaces::namespaces_do_not_mix",
        ],
    ),
    (
        Flaw::MiscountsAcks,
        &[
            "acks::every_socket_of_every_node_answers_and_the_stream_ends",
            "acks::a_broadcast_to_nobody_ends_at_once",
            "acks::an_answer_that_overtakes_its_count_is_kept",
            "acks::a_stream_that_is_dropped_disturbs_no_other",
        ],
    ),
    (
        Flaw::LosesASocket,
        &[
            "broadcast::an_emit_to_a_remote_socket_reaches_it_alone",
            "sockets::a_disconnect_reaches_the_selected_sockets_of_all_nodes",
            "sockets::every_socket_is_found_with_its_node",
            "queries::a_query_that_is_dropped_disturbs_no_other",
            "queries::many_queries_at_once_get_their_own_answers",
            "queries::a_node_without_a_link_does_not_take_itself_for_the_only_one",
            "namespaces::namespaces_do_not_mix",
            "namespaces::a_dynamic_namespace_joins_with_its_first_client",
            "trust::clusters_with_other_prefixes_do_not_notice_each_other",
            "versions::a_newer_node_without_a_version_in_common_is_told_and_not_waited_for",
            "versions::an_older_node_without_a_version_in_common_is_told_and_not_waited_for",
        ],
    ),
    (
        Flaw::MakesRoomsUp,
        &[
            "broadcast::a_socket_that_is_gone_is_no_error",
            "sockets::joins_and_leaves_reach_the_selected_sockets_of_all_nodes",
            "sockets::rooms_are_those_of_all_nodes",
            "sockets::a_remote_socket_can_be_joined_asked_and_disconnected",
        ],
    ),
];

/// Some flaws with fault cases that must fail, without `faults::`: the ledger at the sockets notices them too.
pub(crate) const UNDER_FAULTS: &[(Flaw, &[&str])] = &[
    (
        Flaw::NoReceiveFilter,
        &["link::one_node_cut_off", "link::flapping"],
    ),
    (Flaw::DeliversTwice, &["broker::frozen_until_it_is_noticed"]),
    (
        Flaw::CountsOneTooMany,
        &["link::one_node_cut_off", "link::most_nodes_cut_off"],
    ),
    (Flaw::NoGoodbye, &["node::one_leaves"]),
];
