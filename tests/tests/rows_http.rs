//! Which tests show which row of what response caches must do (checks 57 to 101) and must not suffer (threats P01 to P28
//! and B01 to B12). As in `rows.rs`, whoever renames a test finds it here.

use larder_tests::rows::{Row, missing};

const ROWS: &[Row<'_>] = &[
    (
        "c57",
        &[
            "tests/tests/reading_along.rs those_who_wait_read_along_from_the_beginning",
            "tests/tests/reading_along.rs c57_nobody_waits_for_a_client_that_reads_slowly_or_leaves",
        ],
    ),
    ("c58", &["tests/tests/single_flight.rs d05_what_cannot_be_stored_is_never_queued_for"]),
    (
        "c59",
        &[
            "tests/tests/single_flight.rs c59_no_more_than_so_many_wait_and_the_others_ask_for_themselves",
            "tests/tests/fills.rs beyond_so_many_fills_the_handler_is_asked_and_nothing_is_stored",
        ],
    ),
    (
        "c60",
        &[
            "tests/tests/content.rs other_contents_types_and_targets_are_other_entries_and_the_same_is_one_call",
            "tests/tests/content.rs without_the_layer_every_query_passes",
            "tests/tests/keys.rs p18_methods_with_meaning_of_their_own_never_share_an_entry",
        ],
    ),
    (
        "c61",
        &[
            "tests/tests/conditional.rs c61_head_is_answered_from_a_stored_get",
            "tests/tests/single_flight.rs head_requests_neither_wait_nor_are_waited_for",
        ],
    ),
    (
        "c62",
        &[
            "tests/tests/keys.rs c62_queries_are_keyed_as_they_are",
            "tests/tests/keys.rs p03_queries_that_differ_in_one_byte_never_share_an_entry",
        ],
    ),
    ("c63", &["tests/tests/catalogue.rs no_poison_of_the_catalogue_reaches_a_victim"]),
    ("c64", &["tests/tests/storability.rs p12_restrictive_directives_win_in_every_letter_case"]),
    ("c65", &["tests/tests/storability.rs p10_vary_any_is_never_stored"]),
    (
        "c66",
        &["tests/tests/variants.rs c66_absent_empty_and_literal_values_are_variants_of_their_own"],
    ),
    ("c67", &["tests/tests/storability.rs p08_a_response_that_sets_a_cookie_is_never_stored"]),
    ("c68", &["crates/larder-http-rules/tests/cases.rs set_cookie_under_every_directive_set"]),
    (
        "c69",
        &[
            "tests/tests/credentials.rs p07_authorized_responses_are_shared_only_when_they_say_so",
            "crates/larder-http-rules/tests/cases.rs matrix",
        ],
    ),
    ("c70", &["tests/tests/storability.rs c70_lifetimes_have_their_order"]),
    ("c71", &["tests/tests/storability.rs c71_age_grows_and_never_goes_back"]),
    (
        "c72",
        &[
            "tests/tests/bad_input.rs what_else_cannot_be_read_stores_nothing_that_it_may_forbid",
            "crates/larder-http-rules/tests/cases.rs store_freshness",
        ],
    ),
    (
        "c73",
        &[
            "tests/tests/storability.rs p15_errors_are_never_stored_unless_the_route_names_them_and_then_briefly",
            "tests/tests/storability.rs p19_parts_and_c73_not_modified_and_c91_interim_responses_are_no_entries",
        ],
    ),
    (
        "c74",
        &[
            "tests/tests/bodies.rs b03_a_gibibyte_passes_through_a_mebibyte",
            "tests/tests/bodies.rs b01_a_client_that_leaves_mid_body_leaves_a_whole_entry_or_none",
        ],
    ),
    (
        "c75",
        &[
            "tests/tests/bodies.rs c75_length_and_coding_survive_a_hit",
            "tests/tests/bodies.rs b05_trailers_come_on_miss_hit_and_bypass",
            "tests/tests/storability.rs p28_fields_of_one_connection_are_not_stored_and_the_others_survive",
        ],
    ),
    (
        "c76",
        &[
            "tests/tests/invalidation.rs c76_unsafe_methods_invalidate_every_variant_of_their_target",
            "tests/tests/invalidation.rs c76_errors_and_safe_methods_invalidate_nothing",
            "tests/tests/invalidation.rs c76_locations_of_the_same_origin_are_invalidated_and_no_others",
            "tests/tests/content.rs a_change_of_the_url_drops_what_is_stored_for_all_its_contents",
            "tests/tests/content.rs no_other_method_has_part_in_what_is_stored_for_a_query",
        ],
    ),
    ("c77", &["tests/tests/invalidation.rs cache_groups_fall_together_within_their_origin"]),
    (
        "c78",
        &[
            "tests/tests/cache_status.rs c78_only_if_cached_is_obeyed_and_no_other_directive_of_a_stranger",
            "crates/larder-http-rules/tests/cases.rs store_directives",
        ],
    ),
    (
        "c79",
        &[
            "tests/tests/stale.rs stale_while_revalidate_answers_at_once_and_asks_once",
            "tests/tests/stale.rs what_forbids_stale_use_is_obeyed",
        ],
    ),
    (
        "c80",
        &[
            "tests/tests/stale.rs stale_if_error_stands_in_for_every_kind_of_failure",
            "tests/tests/stale.rs an_error_is_an_error_where_nothing_allows_stale_use",
        ],
    ),
    ("c81", &["tests/tests/stale.rs a_refresh_that_fails_is_tried_again_after_a_second"]),
    (
        "c82",
        &[
            "tests/tests/validation.rs a_stale_response_that_is_confirmed_answers_and_is_fresh_again",
            "tests/tests/heads.rs one_that_agrees_brings_what_is_stored_up_to_date",
        ],
    ),
    (
        "c83",
        &[
            "tests/tests/conditional.rs c83_fresh_hits_answer_conditions_without_the_handler",
            "crates/larder-http-rules/tests/cases.rs conditionals",
        ],
    ),
    (
        "c84",
        &[
            "tests/tests/ranges.rs single_ranges_are_cut_out_of_what_is_stored",
            "tests/tests/ranges.rs what_is_no_range_gets_the_whole_and_what_does_not_exist_416",
            "tests/tests/ranges.rs if_range_decides_whether_a_part_fits_what_the_client_has",
        ],
    ),
    ("c85", &["crates/larder-http-rules/tests/cases.rs store_targeted"]),
    (
        "c86",
        &[
            "tests/tests/cache_status.rs c86_cache_status_says_what_happened",
            "tests/tests/cache_status.rs c86_members_of_other_caches_stay_and_nothing_is_told_unless_asked_for",
            "tests/tests/explain.rs nobody_else_sees_anything",
        ],
    ),
    (
        "c87",
        &[
            "crates/larder-http-rules/tests/cases.rs searches",
            "tests/tests/queries.rs whatever_responses_say_nobody_gets_what_another_query_made",
        ],
    ),
    ("c88", &["tests/tests/queries.rs only_what_a_route_names_is_left"]),
    (
        "c89",
        &[
            "tests/tests/purging.rs a_url_goes_with_all_its_variants_and_nothing_else",
            "tests/tests/purging.rs a_soft_purge_leaves_what_may_stand_in",
            "tests/tests/content.rs purging_a_url_counts_what_is_stored_for_its_contents",
        ],
    ),
    ("c90", &["tests/tests/purging.rs a_tag_removes_or_makes_stale"]),
    (
        "c91",
        &[
            "tests/tests/storability.rs p19_parts_and_c73_not_modified_and_c91_interim_responses_are_no_entries",
        ],
    ),
    (
        "c92",
        &[
            "tests/tests/layers.rs c92_a_vary_that_an_inner_layer_adds_is_obeyed",
            "tests/tests/variants.rs computed_inputs_that_could_mix_variants_are_not_stored",
        ],
    ),
    ("c93", &["tests/tests/variants.rs c93_earlier_variants_stay_when_vary_changes"]),
    (
        "c94",
        &[
            "tests/tests/shadow.rs everybody_gets_the_handlers_own_and_what_agrees_is_not_told",
            "tests/tests/shadow.rs a_hit_that_would_have_been_wrong_is_told_where",
        ],
    ),
    (
        "c95",
        &[
            "tests/tests/grpc_calls/statuses.rs b05_metadata_and_trailers_come_back_as_they_were_on_miss_hit_and_bypass",
            "tests/tests/grpc_calls/statuses.rs b10_of_17_statuses_in_six_places_only_ok_behind_one_message_is_stored",
        ],
    ),
    (
        "c96",
        &[
            "tests/tests/layers.rs c96_directives_are_merged_and_never_weaken_the_handlers_own",
            "crates/larder-http-rules/tests/cases.rs merges",
        ],
    ),
    ("c97", &["tests/tests/layers.rs c97_never_cache_says_everything_that_keeps_caches_away"]),
    ("c98", &["tests/tests/layers.rs c98_vary_is_added_to_without_repetition"]),
    ("c99", &["tests/tests/preconditions.rs c99_and_c101_known_validators_spare_the_handler"]),
    (
        "c100",
        &[
            "tests/tests/preconditions.rs c100_a_body_gets_a_tag_that_is_its_own",
            "tests/tests/preconditions.rs c100_a_stream_is_not_held_back",
            "tests/tests/preconditions.rs c100_what_must_not_have_a_tag_has_none",
        ],
    ),
    ("c101", &["tests/tests/preconditions.rs c99_and_c101_known_validators_spare_the_handler"]),
    (
        "P01",
        &[
            "tests/tests/keys.rs p01_two_authorities_never_share_an_entry",
            "tests/tests/keys.rs p01_a_request_without_an_authority_is_answered_and_not_stored",
        ],
    ),
    ("P02", &["tests/tests/keys.rs p02_a_target_that_disagrees_with_host_is_passed_by"]),
    (
        "P03",
        &[
            "tests/tests/keys.rs p03_queries_that_differ_in_one_byte_never_share_an_entry",
            "tests/tests/keys.rs p03_two_targets_share_only_when_they_are_equal",
        ],
    ),
    (
        "P04",
        &["tests/tests/queries.rs what_a_route_ignores_reaches_neither_the_key_nor_the_handler"],
    ),
    (
        "P05",
        &[
            "tests/tests/keys.rs p04_and_p05_forwarded_names_are_key_parts_and_overrides_pass_by",
            "tests/tests/catalogue.rs no_poison_of_the_catalogue_reaches_a_victim",
            "crates/larder-http-rules/tests/parts.rs every_override_header_bypasses",
        ],
    ),
    (
        "P06",
        &[
            "tests/tests/credentials.rs p06_requests_with_cookies_neither_read_nor_fill",
            "tests/tests/promises.rs requests_share_an_entry_only_as_promised",
        ],
    ),
    (
        "P07",
        &[
            "tests/tests/credentials.rs p07_authorized_responses_are_shared_only_when_they_say_so",
            "tests/tests/credentials.rs p07_every_credential_keeps_its_bearer_apart",
            "crates/larder-http-rules/tests/cases.rs matrix",
        ],
    ),
    ("P08", &["tests/tests/storability.rs p08_a_response_that_sets_a_cookie_is_never_stored"]),
    ("P09", &["tests/tests/credentials.rs p09_a_vary_that_names_a_credential_is_not_stored"]),
    ("P10", &["tests/tests/storability.rs p10_vary_any_is_never_stored"]),
    (
        "P11",
        &[
            "tests/tests/variants.rs p11_freshness_never_overrules_the_variant",
            "tests/tests/variants.rs p11_reuse_implies_equal_selecting_fields",
        ],
    ),
    (
        "P12",
        &[
            "tests/tests/storability.rs p12_restrictive_directives_win_in_every_letter_case",
            "crates/larder-http-rules/tests/cases.rs directives_in_every_letter_case",
        ],
    ),
    (
        "P13",
        &[
            "tests/tests/bad_input.rs freshness_that_cannot_be_read_or_contradicts_itself_is_none",
            "crates/larder-http-rules/tests/cases.rs store_directives",
            "fuzz/tests/rules.rs words",
        ],
    ),
    (
        "P14",
        &[
            "tests/tests/session_mark.rs p14_a_touched_session_is_never_stored_in_either_layer_order",
            "tests/tests/sessions.rs p14_and_c119_every_use_of_a_session_keeps_the_response_out_of_the_cache_in_every_layer_order",
        ],
    ),
    (
        "P15",
        &[
            "tests/tests/storability.rs p15_errors_are_never_stored_unless_the_route_names_them_and_then_briefly",
            "tests/tests/bad_input.rs over_the_wire_giants_and_floods_reach_nobody_else",
        ],
    ),
    ("P16", &["tests/tests/storability.rs p16_empty_pages_and_broken_redirects_are_not_stored"]),
    (
        "P17",
        &[
            "tests/tests/storability.rs p17_nothing_in_a_request_makes_the_unstorable_storable",
            "crates/larder-http-rules/tests/properties.rs a_request_header_never_makes_storable",
        ],
    ),
    (
        "P18",
        &[
            "tests/tests/keys.rs p18_methods_with_meaning_of_their_own_never_share_an_entry",
            "tests/tests/content.rs no_other_method_has_part_in_what_is_stored_for_a_query",
            "tests/tests/content.rs no_field_makes_one_content_pass_for_another",
        ],
    ),
    (
        "P19",
        &[
            "tests/tests/ranges.rs several_ranges_come_in_parts",
            "tests/tests/ranges.rs a_part_that_lies_about_its_length_is_not_stored",
            "tests/tests/bad_input.rs bad_requests_get_something_sound_and_leave_what_is_stored_alone",
        ],
    ),
    ("P20", &["tests/tests/keys.rs p20_paths_are_keyed_as_raw_bytes_and_no_rule_looks_at_them"]),
    (
        "P21",
        &[
            "crates/larder-core/tests/keys.rs different_lists_are_different_keys",
            "crates/larder-http-rules/tests/properties.rs override_key_parts_are_injective",
            "crates/larder-http-rules/tests/properties.rs selectors_are_injective",
        ],
    ),
    ("P22", &["tests/tests/variants.rs p22_variants_have_a_ceiling_and_the_oldest_goes"]),
    ("P23", &["crates/larder-http-rules/tests/parts.rs malformed_negotiation_is_one_class"]),
    (
        "P24",
        &[
            "tests/tests/validation.rs validators_go_out_byte_for_byte_and_the_clients_own_do_not",
            "tests/tests/stale.rs a_range_or_a_head_of_something_stale_refreshes_all_of_it_or_nothing",
        ],
    ),
    (
        "P25",
        &[
            "tests/tests/storability.rs p25_a_304_that_nobody_asked_for_changes_nothing_that_is_stored",
            "tests/tests/validation.rs tags_outlive_a_validation_and_an_invalidation_during_one_wins",
        ],
    ),
    (
        "P26",
        &[
            "tests/tests/keys.rs p26_a_get_with_content_and_a_pipelined_one_behind_it_are_two_requests",
            "tests/tests/content.rs one_content_in_chunks_or_with_its_length_or_in_frames_is_the_same",
        ],
    ),
    ("P27", &["tests/tests/invalidation.rs p27_no_method_or_header_purges"]),
    (
        "P28",
        &[
            "tests/tests/storability.rs p28_fields_of_one_connection_are_not_stored_and_the_others_survive",
            "tests/tests/storability.rs p28_a_response_keeps_two_hundred_fields_as_they_are",
        ],
    ),
    (
        "B01",
        &[
            "tests/tests/bodies.rs b01_a_body_that_fails_at_any_byte_is_never_stored",
            "tests/tests/bodies.rs b01_a_body_that_fails_at_any_frame_is_never_stored",
            "tests/tests/bodies.rs b01_a_length_that_does_not_match_is_never_stored",
        ],
    ),
    (
        "B02",
        &[
            "tests/tests/reading_along.rs b08_a_body_that_breaks_off_breaks_off_for_all_and_is_not_stored",
            "tests/tests/single_flight.rs d06_an_error_is_its_own_clients_and_the_others_run_at_once",
        ],
    ),
    (
        "B03",
        &[
            "tests/tests/bodies.rs b03_a_gibibyte_passes_through_a_mebibyte",
            "tests/tests/bodies.rs b03_nothing_is_allocated_on_the_word_of_a_length",
        ],
    ),
    (
        "B04",
        &[
            "tests/tests/bodies.rs b04_events_come_as_they_are_made",
            "tests/tests/bodies.rs b04_an_endless_body_is_given_up_at_the_deadline_and_goes_on",
        ],
    ),
    (
        "B05",
        &[
            "tests/tests/bodies.rs b05_trailers_come_on_miss_hit_and_bypass",
            "tests/tests/bodies.rs b05_a_cookie_in_the_trailers_is_not_replayed",
        ],
    ),
    (
        "B06",
        &["tests/tests/reading_along.rs c57_nobody_waits_for_a_client_that_reads_slowly_or_leaves"],
    ),
    (
        "B07",
        &[
            "tests/tests/bodies.rs b07_floods_of_tiny_and_empty_frames_are_bounded",
            "tests/tests/content.rs a_flood_of_tiny_frames_is_none_that_is_cached_and_loses_nothing",
        ],
    ),
    (
        "B08",
        &[
            "tests/tests/variants.rs b08_an_encoded_response_is_given_only_to_those_who_take_it",
            "tests/tests/layers.rs b08_compression_on_either_side_gives_everybody_what_they_take",
        ],
    ),
    ("B09", &["crates/larder-memory/tests/bounds.rs a_flood_of_entries_stays_within_the_bytes"]),
    (
        "B10",
        &[
            "tests/tests/grpc_calls/statuses.rs b10_of_17_statuses_in_six_places_only_ok_behind_one_message_is_stored",
            "crates/larder-grpc/src/descriptor.rs b10_only_unary_methods_without_side_effects_are_taken_from_a_descriptor_set",
        ],
    ),
    (
        "B11",
        &[
            "tests/tests/grpc_calls/keys.rs b11_method_message_encoding_and_declared_metadata_tell_calls_apart",
            "tests/tests/grpc_calls/neighbours.rs b11_compressed_answers_go_only_to_callers_that_take_them",
        ],
    ),
    (
        "B12",
        &[
            "tests/tests/grpc_calls/fills.rs b12_a_leader_of_a_millisecond_gets_deadline_exceeded_and_its_followers_the_answer",
        ],
    ),
];

#[test]
fn every_row_of_response_caches_has_its_tests() {
    assert_eq!(missing(ROWS), [""; 0], "tests that were renamed or are gone");
    let rows: Vec<&str> = ROWS.iter().map(|(row, _)| *row).collect();
    let checks = (57..=101).map(|n| format!("c{n}"));
    let poisons = (1..=28).map(|n| format!("P{n:02}"));
    let expected: Vec<String> =
        checks.chain(poisons).chain((1..=12).map(|n| format!("B{n:02}"))).collect();
    assert_eq!(rows, expected, "one row each");
}
