"""The fault catalogue's index: fault -> the tests that inject it and hold the promised outcome.

The ids are those of the catalogue's tables (A receiving, B hostile network and data, C jobs,
D delivery, E host and operations). A fault without a mechanism in this version names the reason.
"""

from typing import Final

HOST = "tests/faults/test_host.py"
RECEIVE = "tests/faults/test_receive.py"
WORK = "tests/faults/test_work.py"
KILLS = "tests/faults/test_kill_points.py"
FUZZ = "tests/faults/test_fuzz.py"
UPKEEP = "tests/faults/test_upkeep.py"
POSTGRES = "tests/faults/test_postgresql.py"
STORE = "tests/integration/store/test_faults.py"
FLOW = "tests/integration/node/test_flow.py"
ENGINE = "tests/integration/node/test_engine.py"
COORDINATOR = "tests/integration/node/test_coordinator.py"
SERVICE = "tests/integration/node/test_service.py"
DEFLATED = "tests/integration/network/test_deflated.py"
ENDURANCE = "tests/faults/test_endurance.py"
CHARSETS = "tests/conformance/test_charsets_of_results.py"
HOSTILE = "tests/integration/network/test_hostile_peers.py"
RECEIVER = "tests/integration/network/test_receiver.py"
DOOR = "tests/integration/network/test_receiver_with_store.py"
DELIVERY = "tests/integration/network/test_delivery.py"
SENDING = "tests/integration/network/test_sending.py"
COMMITMENT = "tests/integration/network/test_commitment.py"
WAITING = "tests/integration/network/test_idle_associations.py"
TLS = "tests/integration/network/test_tls_receiving.py"
KILL = "tests/acceptance/test_kill.py"
INTAKE = "tests/unit/node/store/test_intake.py"
TAKE_OVER = "tests/unit/node/store/test_take_over.py"
HEADER = "tests/unit/node/store/test_header.py"
JOBS = "tests/unit/node/store/test_jobs.py"
OPENING = "tests/unit/node/store/test_store.py"
SCHEMA = "tests/unit/node/store/test_schema.py"
LOG = "tests/unit/node/test_log.py"
CONFIG = "tests/unit/node/config/test_load.py"
OUTBOX = "tests/unit/node/scu/test_delivery.py"
VOLUME = "tests/unit/pipelines/dicom/test_volume.py"
STACK = "tests/unit/pipelines/geometry/test_stack.py"
PACK = "tests/unit/models/test_pack.py"

FAULTS: Final[dict[str, tuple[str, ...]]] = {
    "A1": (
        f"{STORE}::test_a1_nothing_acknowledged_is_lost_by_kill_9",
        f"{KILL}::test_a1_a_receiver_that_is_killed_again_and_again_loses_nothing_it_acknowledged",
        f"{KILLS}::test_a_kill_at_each_step_boundary_loses_and_doubles_nothing",
    ),
    "A2": (f"{STORE}::test_a2_name_then_bytes_then_answer_and_row_after_both",),
    "A3": (
        f"{STORE}::test_a3_nothing_acknowledged_is_lost_by_a_power_cut",
        f"{STORE}::test_a3_a_node_that_answers_before_it_syncs_is_caught_by_this_test",
        f"{TAKE_OVER}::test_it_gets_its_row_with_sender_and_time",
        f"{TAKE_OVER}::test_what_is_not_whole_is_removed",
    ),
    "A4": (
        f"{STORE}::test_a4_a_really_full_disk_leaves_no_partial_file_and_a_sound_database",
        f"{STORE}::test_a4_a7_a_disk_that_fails_refuses_and_recovers_by_itself",
    ),
    "A5": (f"{DOOR}::test_a_disk_below_its_floor_refuses_objects_and_answers_echoes",),
    "A6": (
        f"{STORE}::test_a6_a_locked_database_refuses_in_time_and_loses_nothing_that_was_answered",
        f"{RECEIVER}::test_a_database_that_is_away_stops_stores_but_not_echoes",
    ),
    "A7": (
        f"{HOST}::test_a7_a_disk_that_turns_read_only_refuses_says_why_and_recovers",
        f"{STORE}::test_a7_a_folder_that_cannot_be_synced_is_never_acknowledged",
        f"{STORE}::test_a7_a_folder_of_files_that_cannot_be_synced_delays_the_row_and_then_refuses",
    ),
    "A8": (
        f"{STORE}::test_a8_the_same_object_on_two_associations_at_once_is_one_row_and_one_file",
        f"{STORE}::test_a8_a_kill_between_file_and_row_leaves_room_for_the_next_try",
        f"{FLOW}::test_a_study_that_is_sent_again_produces_nothing_new",
    ),
    "A9": (
        f"{INTAKE}::test_other_bytes_under_a_taken_uid_are_kept_beside_and_flagged",
        f"{INTAKE}::test_a_conflict_holds_the_jobs_that_wait_with_the_first",
        f"{COORDINATOR}::test_a_conflict_holds_the_job",
    ),
    "A10": (f"{FLOW}::test_order_does_not_matter",),
    "A11": (
        f"{FLOW}::test_two_series_interleaved_make_two_jobs",
        f"{FLOW}::test_one_series_over_four_associations_makes_one_job",
    ),
    "A12": (
        f"{FLOW}::test_a_broken_association_waits_and_goes_on_when_the_rest_comes",
        f"{FLOW}::test_a_broken_association_is_made_good_by_a_repeat_alone",
        f"{FLOW}::test_a_series_with_a_gap_is_held_and_shown_and_replaced_when_the_slice_comes",
    ),
    "A13": (f"{FLOW}::test_a_late_slice_makes_a_new_revision_with_a_result_of_its_own",),
    "A14": (
        f"{RECEIVE}::test_a14_a_study_of_thousands_of_slices_stays_small_and_others_are_served",
        f"{ENDURANCE}::test_a14_an_object_of_any_size_takes_no_memory_and_others_are_served",
    ),
    "A15": (
        f"{RECEIVE}::test_a15_a_series_that_contradicts_itself_is_kept_and_starts_nothing_silently",
        f"{RECEIVE}::test_a15_odd_but_legal_texts_are_acknowledged_and_kept_byte_for_byte",
        f"{CHARSETS}::test_a_name_leaves_in_every_result_with_the_characters_it_came_with",
        f"{CHARSETS}::test_a_wrong_declaration_still_gives_sound_results",
    ),
    "B1": (f"{HOSTILE}::test_garbage_is_cut_and_others_are_served",),
    "B2": (
        f"{HOSTILE}::test_a_request_that_drips_is_cut_at_its_deadline",
        f"{HOSTILE}::test_p_data_that_drips_is_cut_at_its_deadline",
        f"{HOSTILE}::test_silence_frees_its_slot",
    ),
    "B3": (f"{TLS}::test_silent_connections_to_the_tls_port_delay_nobody",),
    "B4": (
        f"{TLS}::test_storescu_without_a_certificate_that_we_believe_is_refused",
        f"{TLS}::test_plain_text_on_the_tls_port_and_tls_on_the_plain_port_are_closed",
        f"{TLS}::test_a_handshake_that_drips_is_cut_at_its_deadline",
        "tests/integration/network/test_sending_tls.py"
        "::test_a_peer_that_we_do_not_believe_gets_nothing",
    ),
    "B5": (
        f"{RECEIVER}::test_an_unknown_ae_title_is_rejected_for_good",
        f"{RECEIVER}::test_an_address_that_no_peer_has_is_closed_before_any_byte",
    ),
    "B6": (f"{HOSTILE}::test_garbage_is_cut_and_others_are_served",),
    "B7": (
        f"{DEFLATED}::test_a_bomb_over_dicom_is_refused_and_the_node_answers_on",
        "tests/unit/node/store/test_deflate.py"
        "::test_a_bomb_is_stopped_at_its_limit_without_taking_memory",
    ),
    "B8": (
        f"{HEADER}::test_deeply_nested_sequences_are_refused_and_not_a_crash",
        f"{HEADER}::test_pixel_data_that_claims_more_than_there_is_is_refused",
        f"{ENGINE}::test_memory_is_limited_for_the_job_and_running_out_is_worth_another_try",
    ),
    "B9": (
        f"{VOLUME}::test_what_cannot_be_a_volume_is_refused_in_a_sentence",
        f"{ENGINE}::test_a_rejected_input_is_held_at_once_with_the_reason",
    ),
    "B10": (f"{RECEIVE}::test_b10_no_value_of_an_object_reaches_a_path",),
    "B11": (f"{FUZZ}::test_b11_damaged_bytes_meet_only_the_mapped_errors",),
    "B12": (
        f"{LOG}::test_no_patient_is_named_while_broken_data_is_read",
        f"{LOG}::test_a_crash_is_logged_and_no_patient_is_named",
        "tests/integration/cli/test_operator_commands.py::test_no_command_names_a_patient",
    ),
    "B13": (
        f"{ENDURANCE}::test_b13_a_crowd_of_associations_keeps_nobody_out_and_leaves_nothing",
        "tests/integration/network/test_protocol.py"
        "::test_hundreds_of_idle_connections_do_not_keep_a_peer_out",
        f"{WAITING}::test_hundreds_of_associations_leave_no_descriptor_and_no_thread",
        f"{RECEIVER}::test_associations_from_one_address_are_limited",
    ),
    "C1": (f"{ENGINE}::test_a_child_that_dies_is_run_again_and_gives_one_result",),
    "C2": (
        f"{KILL}::test_c2_a_node_that_is_killed_while_a_job_runs_delivers_its_result_once",
        f"{ENGINE}::test_no_child_outlives_the_engine",
    ),
    "C3": (f"{WORK}::test_c3_schedulers_that_race_on_one_study_start_one_job",),
    "C4": (
        f"{ENGINE}::test_a_runaway_is_killed_at_its_limit_and_the_next_attempt_has_a_clean_child",
    ),
    "C5": (
        f"{ENGINE}::test_a_child_that_always_dies_is_held_after_its_attempts",
        f"{ENGINE}::test_memory_is_limited_for_the_job_and_running_out_is_worth_another_try",
    ),
    "C6": (f"{WORK}::test_c6_an_urgent_job_starts_before_a_hundred_normal_ones",),
    "C7": (
        f"{KILL}::test_c7_a_node_that_is_asked_to_stop_gives_a_long_job_back",
        f"{ENGINE}::test_a_long_job_is_given_back_without_using_an_attempt",
    ),
    "C8": (f"{POSTGRES}::test_c8_a_server_that_dies_while_a_job_runs_costs_no_attempt",),
    "C9": ("reason: this version has no Dask executor; jobs run in child processes of the node",),
    "C10": (
        f"{WORK}::test_c10_a_worker_that_slept_beyond_its_lease_records_nothing",
        f"{ENGINE}::test_a_stale_worker_cannot_record_a_result",
    ),
    "C11": (f"{ENGINE}::test_a_job_of_another_version_of_the_pipeline_is_not_run_by_this_one",),
    "C12": (
        f"{PACK}::test_a_changed_weight_is_refused",
        f"{PACK}::test_a_missing_file_is_refused",
    ),
    "C13": (
        f"{FLOW}::test_a_study_that_is_sent_again_produces_nothing_new",
        f"{JOBS}::test_a_reprocess_is_a_new_job_with_the_next_revision_each_time",
        f"{UPKEEP}::test_e4_a_backup_made_while_receiving_restores_and_takes_a_resend_as_known",
    ),
    "C14": (
        f"{STACK}::test_a_voxel_keeps_its_place_in_every_patient_position",
        f"{STACK}::test_what_is_not_one_volume_is_refused_in_a_sentence",
        f"{STACK}::test_a_tilted_gantry_is_told_from_a_shift_between_two_slices",
        f"{VOLUME}::test_the_bright_marker_stays_where_it_is_in_every_position",
    ),
    "D1": (
        f"{DELIVERY}::test_a_peer_that_is_down_gets_everything_once_when_it_is_back",
        f"{DELIVERY}::test_a_silent_peer_is_left_and_tried_again",
        f"{SENDING}::test_a_peer_that_hangs_in_its_answer_is_left_at_the_deadline",
    ),
    "D2": (
        f"{WORK}::test_d2_a_link_that_is_cut_while_results_are_sent_delivers_each_content_once",
    ),
    "D3": (
        f"{SENDING}::test_each_status_of_a_peer_has_its_outcome",
        f"{DELIVERY}::test_refusals_are_held_and_the_others_arrive",
        f"{DELIVERY}::test_a_full_peer_is_tried_until_it_has_room",
    ),
    "D4": (
        f"{DELIVERY}::test_a_response_that_never_comes_does_not_stop_the_queue",
        f"{KILLS}::test_a_kill_at_each_step_boundary_loses_and_doubles_nothing",
    ),
    "D5": (
        f"{COMMITMENT}::test_what_the_peer_lacks_is_sent_again_and_nothing_else",
        f"{COMMITMENT}::test_a_peer_that_never_reports_is_asked_three_times_and_then_left_alone",
        f"{COMMITMENT}::test_a_report_of_somebody_else_changes_nothing",
        f"{COMMITMENT}::test_a_report_on_another_association_counts_once",
    ),
    "D6": (
        f"{DELIVERY}::test_a_peer_that_aborts_in_the_middle_gets_the_rest_afterwards",
        f"{KILLS}::test_a_kill_at_each_step_boundary_loses_and_doubles_nothing",
    ),
    "D7": (
        f"{DELIVERY}::test_refusals_are_held_and_the_others_arrive",
        f"{SENDING}::test_each_status_of_a_peer_has_its_outcome",
    ),
    "D8": (
        f"{FLOW}::test_a_start_is_refused_while_results_wait_for_a_destination_that_is_gone",
    ),
    "D9": (
        f"{OUTBOX}::test_a_month_without_the_destination_loses_nothing",
        f"{UPKEEP}::test_d9_what_is_not_delivered_is_never_purged_however_old",
    ),
    "E1": (
        f"{HOST}::test_e1_a_clock_that_jumps_completes_nothing_early_and_repeats_no_result",
        f"{HOST}::test_e1_a_clock_set_back_delays_a_retry_by_no_more_than_its_pause",
    ),
    "E2": (
        f"{HOST}::test_e2_a_node_without_descriptors_refuses_and_recovers",
        f"{HOST}::test_e2_a_volume_without_inodes_refuses_and_recovers",
    ),
    "E3": (
        f"{HOST}::test_e3_a_lost_write_ahead_log_never_hides_what_was_acknowledged",
        f"{HOST}::test_e3_without_its_database_a_node_does_not_start_and_the_files_bring_all_back",
        f"{OPENING}::test_a_database_that_is_there_but_empty_is_never_begun_anew_beside_objects",
        f"{OPENING}::test_a_damaged_database_stops_the_start_with_what_to_do",
    ),
    "E4": (
        f"{UPKEEP}::test_e4_a_backup_made_while_receiving_restores_and_takes_a_resend_as_known",
    ),
    "E5": (
        f"{CONFIG}::test_every_problem_of_a_file_comes_at_once_in_the_order_of_its_lines",
        f"{RECEIVER}::test_a_port_in_use_is_told_before_anything_runs",
        f"{OPENING}::test_network_file_systems_are_refused",
    ),
    "E6": (
        f"{SCHEMA}::test_every_released_schema_with_data_becomes_the_newest",
        f"{SCHEMA}::test_a_database_of_a_newer_node_is_refused_with_what_to_do",
    ),
    "E7": (
        f"{SERVICE}::test_a_dead_part_is_told",
        f"{SERVICE}::test_the_watchdog_time_comes_from_the_service_manager",
    ),
    "E8": (
        f"{KILLS}::test_kills_at_random_moments_lose_and_double_nothing",
        f"{ENDURANCE}::test_e8_a_soak_with_kills_and_cut_links_ends_with_every_study_delivered_once",
    ),
}  # fmt: skip
