//! Which tests show which row of what stores must do (checks 1 to 27) and must not suffer (threats K01 to K17).
//!
//! The rows' tests stand where what they test stands, under names that say what is promised. This is their index, and a
//! test that every one of them is there: whoever renames one finds it here.

use larder_tests::rows::{Row, is_run, is_there, missing};

const ROWS: &[Row<'_>] = &[
    (
        "c01",
        &[
            "suite/reads.rs missing_is_none",
            "suite/reads.rs empty_values_are_hits",
            "crates/larder-cache/tests/verbs.rs a_null_is_a_hit_and_an_absent_value_a_miss",
        ],
    ),
    (
        "c02",
        &[
            "suite/lifetimes.rs default_is_the_configured_one",
            "suite/lifetimes.rs forever_has_no_end",
            "suite/lifetimes.rs zero_removes",
            "suite/lifetimes.rs extremes_are_clamped",
        ],
    ),
    ("c03", &["suite/lifetimes.rs longer_than_thirty_days"]),
    (
        "c04",
        &[
            "suite/lifetimes.rs less_than_a_second",
            "crates/larder-memcached/tests/server.rs short_lifetimes_end_on_every_node",
        ],
    ),
    ("c05", &["suite/conditions.rs absent", "suite/concurrency.rs one_absent_put_wins"]),
    ("c06", &["suite/conditions.rs zero_follows_the_condition"]),
    (
        "c07",
        &[
            "suite/lifetimes.rs touch_gives_a_new_lifetime",
            "suite/lifetimes.rs touch_of_absent_is_false",
            "suite/lifetimes.rs touch_with_zero_removes",
            "suite/lifetimes.rs touch_with_forever_persists",
            "suite/lifetimes.rs expired_is_absent_to_every_verb",
        ],
    ),
    (
        "c08",
        &[
            "suite/counters.rs adding_to_nothing",
            "suite/counters.rs negative_and_zero",
            "suite/counters.rs no_integer",
            "suite/counters.rs adding_keeps_the_lifetime",
            "suite/concurrency.rs additions_sum_up",
        ],
    ),
    ("c09", &["suite/counters.rs racing_with_the_end"]),
    (
        "c10",
        &[
            "suite/batches.rs get_many_keeps_the_order",
            "suite/batches.rs empty_batches",
            "suite/batches.rs put_many_answers_for_each",
            "suite/batches.rs remove_many_counts",
        ],
    ),
    (
        "c11",
        &[
            "crates/larder-cache/tests/verbs.rs batches_take_one_call_each_and_none_when_empty",
            "crates/larder-redis/tests/commands.rs every_operation_is_one_round_trip",
            "crates/larder-redis/tests/conformance.rs batches_are_one_round_trip_each",
            "crates/larder-memcached/tests/wire.rs what_it_costs",
            "crates/larder-sql/tests/conformance_postgres.rs batches_are_one_round_trip_each",
            "suite/batches.rs large_batches",
            "crates/larder-sql/tests/sqlite.rs a_batch_is_a_few_commits",
        ],
    ),
    (
        "c12",
        &[
            "crates/larder-cache/tests/compute.rs the_leader_dropped_at_every_poll_leaves_nobody_hanging_and_it_computes_once",
            "crates/larder-cache/tests/compute.rs what_cannot_be_stored_is_given_all_the_same",
            "crates/larder-cache/tests/verbs.rs a_null_is_a_hit_and_an_absent_value_a_miss",
            "crates/larder-cache/tests/compute.rs a_value_set_during_a_computation_stays",
        ],
    ),
    (
        "c13",
        &[
            "crates/larder-cache/tests/compute.rs an_error_is_given_to_every_caller_and_nothing_is_stored",
        ],
    ),
    (
        "c14",
        &[
            "suite/sizes.rs too_large_takes_the_old_away",
            "crates/larder-cache/tests/verbs.rs what_is_too_large_is_an_error_and_the_old_value_is_gone",
        ],
    ),
    (
        "c15",
        &[
            "crates/larder-cache/tests/verbs.rs what_cannot_be_serialized_is_an_error_also_in_memory",
            "suite/foreign.rs garbage_is_a_miss",
            "crates/larder-cache/tests/packed.rs what_cannot_be_read_is_filled_and_written_over",
        ],
    ),
    (
        "c16",
        &[
            "crates/larder-cache/tests/verbs.rs a_memory_hit_decodes_nothing_and_every_reader_shares_one_value",
        ],
    ),
    (
        "c17",
        &[
            "crates/larder-cache/tests/verbs.rs keys_that_cannot_be_are_errors_on_every_call",
            "suite/keys.rs long_keys",
            "suite/keys.rs binary_keys",
            "suite/keys.rs injection_is_text",
        ],
    ),
    (
        "c18",
        &[
            "suite/namespaces.rs they_do_not_share_keys",
            "suite/namespaces.rs clearing_spares_others",
            "suite/namespaces.rs similar_names_are_different",
        ],
    ),
    (
        "c19",
        &[
            "crates/larder-cache/tests/keys.rs versions_are_apart",
            "crates/larder-cache/tests/keys.rs moving_to_a_version_keeps_the_lifetime_and_the_tags",
        ],
    ),
    (
        "c20",
        &[
            "crates/larder-memory/tests/bounds.rs a_flood_of_entries_stays_within_the_bytes",
            "suite/sizes.rs the_bound_is_kept",
            "crates/larder-cache/tests/verbs.rs what_is_read_often_stays_when_room_is_made",
            "crates/larder-file/tests/files.rs the_bounds_hold_at_every_moment",
            "crates/larder-file/tests/files.rs who_was_used_least_recently_makes_way_and_marks_come_last",
        ],
    ),
    (
        "c21",
        &[
            "crates/larder-file/tests/umask.rs only_the_owner_may_read",
            "crates/larder-file/tests/files.rs foreign_files_are_never_touched",
            "crates/larder-file/tests/files.rs a_directory_that_is_taken_away_is_made_again",
            "crates/larder-file/tests/files.rs every_flipped_byte_is_a_miss",
            "crates/larder-file/tests/files.rs a_touch_is_never_seen_half",
            "suite/concurrency.rs nobody_sees_half",
        ],
    ),
    (
        "c22",
        &[
            "crates/larder-sql/tests/sqlite.rs sweeping_removes_what_nobody_can_read",
            "crates/larder-sql/tests/postgres.rs many_writers_of_the_same_keys_see_neither_deadlocks_nor_errors",
            "crates/larder-sql/tests/sqlite.rs what_was_used_lately_is_kept_when_room_is_made",
        ],
    ),
    ("c23", &["suite/lifetimes.rs remaining_has_three_answers"]),
    (
        "c24",
        &[
            "crates/larder-cache/tests/outages.rs reads_are_misses_and_sets_are_done_without_effect",
            "crates/larder-cache/tests/outages.rs a_strict_handle_tells_every_error",
            "crates/larder-cache/tests/outages.rs a_store_that_hangs_costs_one_budget_and_then_nothing",
            "benches/tests/outage.rs an_outage_fails_no_call_and_sends_probes_only",
        ],
    ),
    (
        "c25",
        &[
            "crates/larder-cache/src/breaker.rs opens_after_the_threshold_and_closes_after_one_good_probe",
            "crates/larder-cache/tests/outages.rs an_outage_of_many_calls_sends_probes_only",
        ],
    ),
    (
        "c26",
        &[
            "crates/larder-cache/tests/locks.rs a_second_owner_waits_and_gives_up_in_time",
            "crates/larder-cache/tests/locks.rs an_expired_lock_can_be_had_and_its_former_holder_notices",
            "crates/larder-cache/tests/locks.rs a_token_moves_a_lock_to_another_process",
        ],
    ),
    (
        "c27",
        &[
            "suite/paging.rs prefixes_are_literal",
            "suite/paging.rs everything_is_found",
            "crates/larder-file/tests/files.rs pages_are_bounded_and_complete",
        ],
    ),
    (
        "K01",
        &[
            "crates/larder-memcached/tests/wire.rs keys_on_the_wire_are_our_own_text",
            "crates/larder-redis/tests/wire.rs keys_on_the_wire_are_our_own_text",
            "crates/larder-core/tests/keys.rs wire_names_are_plain_and_short",
            "suite/keys.rs injection_is_text",
        ],
    ),
    (
        "K02",
        &[
            "crates/larder-memcached/tests/server.rs values_up_to_the_servers_limit",
            "suite/lifetimes.rs longer_than_thirty_days",
            "crates/larder-memcached/tests/server.rs the_server_ends_an_item_soon_after_its_record",
        ],
    ),
    (
        "K03",
        &[
            "crates/larder-memcached/tests/faults.rs no_reply_reaches_another_request",
            "crates/larder-redis/tests/faults.rs no_reply_reaches_another_key_whatever_is_cut_and_dropped",
            "suite/cancellation.rs dropped_futures_harm_nobody",
        ],
    ),
    (
        "K04",
        &[
            "crates/larder-sql/tests/faults.rs operations_that_are_dropped_leave_connections_whole_and_no_transaction",
        ],
    ),
    (
        "K05",
        &[
            "crates/larder-sql/src/naming.rs a_tables_name_is_a_name",
            "suite/sizes.rs nearly_too_large_is_stored",
        ],
    ),
    (
        "K06",
        &[
            "crates/larder-core/tests/allocations.rs random_and_harmed_bytes",
            "crates/larder-core/tests/envelope.rs hostile_records_are_read_or_refused",
            "crates/larder-cache/src/packed/squeeze.rs k06_hostile_bytes_are_no_value",
            "crates/larder-core/tests/allocations.rs a_million_tags_of_one_byte",
            "fuzz/tests/stored.rs envelopes",
            "tests/tests/damaged.rs k06_damage_in_every_store_is_a_miss_and_told_with_its_count",
        ],
    ),
    (
        "K07",
        &[
            "crates/larder-cache/src/packed/squeeze.rs k07_bombs_stop_at_the_ceiling",
            "crates/larder-cache/tests/packed.rs k07_a_stored_bomb_is_a_miss",
            "tests/tests/bombs.rs k07_a_bomb_on_a_real_redis_is_a_miss_in_bounded_memory",
            "tests/tests/bombs.rs k07_a_bomb_on_a_real_memcached_is_a_miss_in_bounded_memory",
        ],
    ),
    (
        "K08",
        &[
            "crates/larder-cache/tests/packed.rs k08_what_was_planted_is_a_miss",
            "crates/larder-core/tests/envelope.rs sealed_every_flip_is_damage",
            "crates/larder-redis/tests/server.rs sealed_records_are_for_those_who_know_the_secret",
        ],
    ),
    (
        "K09",
        &[
            "crates/larder-core/tests/golden.rs an_entry_with_tags",
            "suite/foreign.rs other_versions_are_a_miss",
            "crates/larder-redis/tests/server.rs reading_damage_does_not_remove_it",
            "tests/tests/deploys.rs k09_ten_thousand_requests_while_another_format_is_written_over_theirs",
        ],
    ),
    (
        "K10",
        &[
            "crates/larder-redis/tests/server.rs two_applications_on_one_server_do_not_meet",
            "suite/namespaces.rs they_do_not_share_keys",
            "tests/tests/tiers.rs k10_two_applications_on_one_server_hear_nothing_of_each_other",
            "crates/larder-cache/tests/tiers/main.rs k10_a_nodes_own_messages_do_not_disturb_it",
        ],
    ),
    (
        "K11",
        &[
            "suite/namespaces.rs clearing_spares_others",
            "crates/larder-file/tests/files.rs foreign_files_are_never_touched",
            "crates/larder-redis/tests/commands.rs clearing_is_one_command_and_what_was_there_is_swept_in_the_background",
        ],
    ),
    (
        "K12",
        &[
            "crates/larder-cache/tests/tags.rs evicted_tag_records_never_bring_an_entry_back",
            "suite/marks.rs lost_records_make_nothing_valid",
            "crates/larder-memcached/tests/server.rs lost_records_never_make_the_old_valid",
        ],
    ),
    (
        "K13",
        &[
            "crates/larder-redis/tests/faults.rs a_full_server_refuses_writes_and_serves_the_rest",
            "crates/larder-redis/tests/faults.rs a_primary_that_becomes_a_replica_and_a_primary_again",
            "crates/larder-redis/tests/cluster.rs the_whole_suite_on_a_cluster_without_a_command_for_two_slots",
            "tests/tests/redis_full.rs k13_a_full_server_is_swallowed_by_caches_and_told_by_sessions",
        ],
    ),
    (
        "K14",
        &[
            "crates/larder-sql/tests/sqlite.rs thirty_two_writers_in_two_processes_are_never_told_that_it_is_busy",
        ],
    ),
    (
        "K15",
        &[
            "crates/larder-file/tests/kills.rs no_wrong_byte_after_a_kill",
            "crates/larder-file/tests/files.rs temporaries_of_the_dead_are_swept_after_an_hour",
        ],
    ),
    (
        "K16",
        &[
            "crates/larder-file/tests/kills.rs processes_count_together",
            "crates/larder-file/tests/files.rs two_handles_write_one_directory_with_fsync_too",
        ],
    ),
    (
        "K17",
        &[
            "suite/namespaces.rs clearing_in_one_instant",
            "suite/concurrency.rs no_fill_survives_a_clear",
        ],
    ),
];

#[test]
fn every_row_of_the_stores_has_its_tests() {
    assert_eq!(missing(ROWS), [""; 0], "tests that were renamed or are gone");
    let rows: Vec<&str> = ROWS.iter().map(|(row, _)| *row).collect();
    let checks = (1..=27).map(|n| format!("c{n:02}"));
    let expected: Vec<String> = checks.chain((1..=17).map(|n| format!("K{n:02}"))).collect();
    assert_eq!(rows, expected, "one row each");
    assert!(!is_there("suite/reads.rs no_such_check"), "what is not there is missed");
    assert!(!is_there("suite/reads.rs missing_is"), "half a name is none");
    assert!(!is_there("tests/tests/rows.rs is_there"), "what is no test shows nothing");
}

#[test]
fn a_test_is_what_is_run_as_one_under_its_whole_name() {
    let source = r#"
        fn helper() {}

        #[test]
        // Why it is so.
        fn whole() {}

        #[tokio::test(flavor = "multi_thread")]
        pub async fn generic<T>() {}

        #[test]
        #[ignore = "slow"]
        fn left_out() {}

        #[test]
        #[cfg_attr(windows, ignore)]
        fn left_out_there() {}

        // fn spoken_of() is no function.
    "#;
    assert!(is_run(source, "whole") && is_run(source, "generic"));
    for other in ["helper", "who", "left_out", "left_out_there", "spoken_of", "gone"] {
        assert!(!is_run(source, other), "{other}");
    }
}
