"""Lists the promises of docs/reliability.md and the tests that check each of them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise, and the ids of its tests: path and function, without parameters."""

    name: str
    text: str
    tests: tuple[str, ...]


_FAULTS = "tests/faults/"

PROMISES = (
    Promise(
        "R1",
        "The inference process may be killed at any moment. No connection closes, each frame that it held "
        "has exactly one outcome, no client gets the boxes of another, and afterwards the service is as "
        "fast as before.",
        (
            _FAULTS + "test_inference_death.py::"
            "test_streams_and_posts_live_through_deaths_of_the_inference_process",
            _FAULTS + "test_inference_death.py::test_as_much_is_served_after_a_death_as_before",
            _FAULTS + "test_inference_death.py::test_a_restart_is_a_pause_for_posts_and_no_error",
            _FAULTS + "test_others_answers.py::test_nobody_is_answered_with_the_boxes_of_others",
            _FAULTS + "test_others_answers.py::test_clients_notice_answers_of_others",
            _FAULTS + "test_ring_machine.py::test_the_ring_holds_in_any_order_of_events",
            _FAULTS + "test_ring_machine.py::test_the_machine_finds_answers_that_go_to_the_wrong_frame",
            "tests/e2e/test_recovery.py::test_streams_outlive_the_inference_process",
            "tests/e2e/test_recovery.py::test_streams_outlive_the_fork_server_of_the_inference_process",
            "tests/e2e/test_recovery.py::test_in_mode_all_no_frame_is_lost_with_the_inference_process",
        ),
    ),
    Promise(
        "R1b",
        "A process that hangs, during a model run or otherwise, is killed and replaced; probes report it.",
        (
            _FAULTS + "test_inference_death.py::test_a_process_that_hangs_is_replaced",
            "tests/e2e/test_recovery.py::test_an_inference_process_that_hangs_is_replaced",
            "tests/e2e/test_hung_processes.py::"
            "test_a_stopped_inference_process_is_replaced_within_seconds_and_health_says_so",
            "tests/e2e/test_hung_processes.py::"
            "test_a_stopped_worker_is_replaced_and_probes_never_wait_for_it",
            "tests/e2e/test_hung_processes.py::test_a_stopped_supervisor_costs_nobody_an_answer_and_is_told",
            "tests/unit/test_run_limit.py::test_runs_that_became_slower_raise_it",
            "tests/unit/test_run_limit.py::test_the_loop_posts_the_limit_that_its_runs_suggest",
            "tests/integration/test_decoder_processes.py::"
            "test_stopped_decoders_are_replaced_when_work_waits_for_them",
        ),
    ),
    Promise(
        "R1d",
        "One of several engines may be killed at any moment. The others serve on, the frames that it held "
        "have exactly one outcome each, and it comes back by itself.",
        (
            _FAULTS + "test_engines.py::test_one_of_two_engines_dies_under_load_and_the_other_one_serves_on",
            "tests/integration/test_engines.py::test_one_of_two_engines_serves_while_the_other_one_restarts",
            "tests/unit/test_engine_set.py::test_the_death_of_an_engine_costs_its_frames_and_nothing_else",
        ),
    ),
    Promise(
        "R1c",
        "An image that crashes the inference process is identified after two deaths, answered 422 and not "
        "run again. A stream of such frames, or a client that sends such images, is refused for a while.",
        (
            _FAULTS + "test_inference_death.py::test_an_image_that_ends_the_process_is_found_and_blocked",
            _FAULTS + "test_inference_death.py::"
            "test_a_stream_whose_frames_end_the_process_is_refused_and_the_others_go_on",
            _FAULTS + "test_inference_death.py::test_a_client_that_varies_its_crashing_image_is_refused",
            "tests/unit/test_suspects.py::test_a_frame_is_blocked_by_its_second_death_when_it_was_alone",
        ),
    ),
    Promise(
        "R2",
        "If the device has no memory for a batch, the frames of the batch run alone, and batches are "
        "smaller for a minute. If the device is lost (a CUDA error that persists), a new process takes "
        "over.",
        (
            _FAULTS + "test_device_faults.py::"
            "test_without_memory_for_a_batch_smaller_ones_run_and_the_larger_come_back",
            _FAULTS + "test_device_faults.py::"
            "test_a_lost_device_gets_a_new_process_and_no_frame_a_wrong_result",
            "tests/unit/test_memory_relief.py::"
            "test_larger_batches_come_back_once_they_have_run_in_a_lane_of_their_own",
            "tests/unit/test_memory_relief.py::test_a_lost_device_ends_the_process",
        ),
    ),
    Promise(
        "S13",
        "The service checks what the inference process sends. A process that sends invalid data is "
        "replaced, and no client sees these data.",
        (_FAULTS + "test_others_answers.py::test_nonsense_from_the_inference_process_reaches_nobody",),
    ),
    Promise(
        "R3",
        "A model file that cannot be served is refused at the start with its name and the cause. Replacing "
        "or deleting the file later changes nothing until the next start.",
        (
            "tests/unit/test_detector_refusals.py::test_a_bad_file_is_refused_by_name_with_a_fix_within_moments",
            "tests/e2e/test_lifecycle.py::test_a_model_that_is_none_is_refused_with_its_own_code",
            "tests/e2e/test_model_file.py::test_the_model_of_the_start_is_served_on",
            "tests/e2e/test_model_file.py::test_a_bad_model_at_the_first_start_still_ends_it_with_4",
        ),
    ),
    Promise(
        "R4",
        "Clients that are slow, silent or gone are cut off in time, take little memory, and slow no other "
        "client down.",
        (
            _FAULTS + "test_slow_clients.py::"
            "test_slow_silent_and_vanished_clients_are_cut_off_and_hurt_nobody",
            "tests/integration/test_slow_readers.py::"
            "test_clients_that_never_read_their_results_hold_little_memory",
            "tests/integration/test_hostile_bodies.py::"
            "test_unfinished_forms_share_one_budget_and_what_they_held_is_given_back",
        ),
    ),
    Promise(
        "R5",
        "When clients send more than the device can run, they get fresh results, and refusals that say "
        "when to try again; polite streams keep being served.",
        (
            _FAULTS + "test_greedy.py::test_polite_clients_keep_their_latency_beside_a_greedy_one",
            "tests/e2e/test_overload.py::test_a_flood_gets_fresh_results_and_its_neighbours_lose_nothing",
            "tests/e2e/test_overload.py::"
            "test_every_stream_of_many_is_served_although_their_turns_are_further_apart_than_a_frame_may_age",
        ),
    ),
    Promise(
        "R6",
        "Thousands of idle streams take some kilobytes each, and their memory is reused.",
        (_FAULTS + "test_slow_clients.py::test_idle_streams_cost_little_and_are_forgotten",),
    ),
    Promise(
        "R7",
        "A full disk stops sampling but not detection, and no accepted sample is lost.",
        (
            "tests/integration/test_sampling_faults.py::"
            "test_a_full_disk_refuses_new_samples_and_keeps_every_accepted_one",
            "tests/e2e/test_full_disk.py::test_a_full_tmpdir_ends_no_process",
        ),
    ),
    Promise(
        "R8",
        "Outages of the store for samples, of any kind, and kills lose no accepted sample.",
        (
            "tests/integration/test_sampling_faults.py::"
            "test_kills_at_random_moments_and_every_fault_lose_nothing_that_was_accepted",
            "tests/integration/test_sampling_faults.py::test_each_fault_alone_only_delays",
            "tests/integration/test_sampling_faults.py::test_what_an_outage_left_is_sent_by_the_next_start",
        ),
    ),
    Promise(
        "R9",
        "A drain finishes accepted work and tells streams when to reconnect.",
        (
            "tests/e2e/test_lifecycle.py::"
            "test_a_drain_finishes_what_was_accepted_and_tells_streams_when_to_return",
            "tests/e2e/test_lifecycle.py::test_health_says_draining_while_requests_are_still_served",
            "tests/deploy/test_replicas.py::"
            "test_a_replica_that_drains_fails_no_post_and_sends_its_streams_elsewhere",
        ),
    ),
    Promise(
        "R10",
        "Memory, descriptors, threads, tasks and processes do not grow with the number of frames. The "
        "negative control leaks 1,024 bytes per frame, which the same check must detect.",
        (
            _FAULTS + "test_leaks.py::test_memory_does_not_grow_with_frames_and_a_leak_would_show",
            "tests/integration/test_webrtc_comings_and_goings.py::"
            "test_sessions_that_come_and_go_leave_nothing_behind",
        ),
    ),
    Promise(
        "R11",
        "Clocks that jump by an hour or a day, forwards or backwards, end no stream and fail no frame.",
        (_FAULTS + "test_restarts.py::test_clocks_that_jump_disturb_no_stream",),
    ),
    Promise(
        "R12",
        "Connections that take every file descriptor do not keep probes from being answered, and later "
        "clients can connect.",
        (
            _FAULTS + "test_descriptors.py::"
            "test_probes_are_answered_while_silent_connections_take_every_descriptor",
            "tests/e2e/test_descriptors.py::test_sockets_beyond_the_limit_neither_stop_probes_nor_spin",
        ),
    ),
    Promise(
        "R13",
        "Killed processes leave no shared memory and no child processes behind, and `/dev/shm` may be small.",
        (
            _FAULTS + "test_leaks.py::test_killed_processes_leave_no_shared_memory_and_no_children",
            _FAULTS + "test_leaks.py::test_a_small_dev_shm_is_enough",
            "tests/e2e/test_recovery.py::test_nothing_is_left_behind_when_the_supervisor_is_killed",
        ),
    ),
    Promise(
        "R14",
        "A process that keeps dying is restarted after growing pauses; `/livez` answers meanwhile.",
        (_FAULTS + "test_restarts.py::test_a_process_that_dies_at_its_start_is_restarted_ever_later",),
    ),
    Promise(
        "R15",
        "`/health` is 200 only while frames can be served: not while a model loads, restarts or drains, "
        "and not, for ten seconds at most, after the queue of POSTs has been full for five seconds.",
        (
            _FAULTS + "test_readiness.py::test_while_posts_find_no_room_the_replica_is_not_ready_and_alive",
            "tests/unit/test_queue_pressure.py::test_whatever_the_load_it_leaves_late_and_never_for_long",
            _FAULTS + "test_restarts.py::test_a_process_that_dies_at_its_start_is_restarted_ever_later",
            "tests/e2e/test_lifecycle.py::test_health_says_draining_while_requests_are_still_served",
            "tests/deploy/test_chart_workload.py::test_probes_ask_the_right_questions",
        ),
    ),
    Promise(
        "R16",
        "A rollout or a node drain takes down one replica at a time, after it has drained.",
        ("tests/deploy/test_chart_scaling.py::test_disruptions_take_one_replica_at_a_time",),
    ),
    Promise(
        "R17",
        "Work whose client has disconnected never reaches the model, and leaves neither a task nor a slot "
        "behind.",
        (
            _FAULTS + "test_cancelled.py::test_posts_whose_clients_have_gone_never_reach_the_model",
            _FAULTS + "test_cancelled.py::test_many_cancelled_posts_leave_no_task_and_no_slot",
        ),
    ),
    Promise(
        "R18",
        "Over slow, narrow and broken networks results stay as fresh as the network allows; no queue "
        "builds up.",
        (
            _FAULTS + "test_network.py::test_a_long_way_costs_its_round_trip_and_no_more",
            _FAULTS + "test_network.py::test_a_narrow_way_makes_no_queue",
            _FAULTS + "test_network.py::test_a_link_that_the_kernel_makes_narrow_makes_no_queue",
            _FAULTS + "test_network.py::test_connections_that_are_reset_cost_the_others_nothing",
            "tests/integration/test_webrtc_network.py::"
            "test_after_a_lost_packet_output_resumes_and_the_delay_returns_to_what_it_was",
        ),
    ),
    Promise(
        "R19",
        "`/livez` answers within 300 ms throughout all of these tests. The negative control stops the "
        "process that answers.",
        (_FAULTS + "test_restarts.py::test_the_rider_sees_a_worker_that_stands_still",),
    ),
    Promise(
        "R20",
        "A stream may change the size of its frames at any time; a video may also change its codec and its "
        "track, and audio may start beside it.",
        (
            _FAULTS + "test_stream_changes.py::test_frames_of_a_stream_may_change_their_size",
            _FAULTS + "test_stream_changes.py::test_a_video_may_change_its_size",
            _FAULTS + "test_stream_changes.py::"
            "test_a_video_goes_on_in_another_codec_from_another_track_and_beside_sound",
        ),
    ),
    Promise(
        "R21",
        "Ten clients that post large images, JPEGs of 33 megapixels, PNGs, progressive JPEGs and HEICs of "
        "12, and WebPs of 8, take at most 80 MB of memory. It is given back within seconds. Images that take "
        "more to decode are refused: [0069](decisions/0069-memory-of-large-images.md).",
        (
            _FAULTS + "test_large_images.py::test_ten_clients_with_the_largest_images_take_little_memory",
            "tests/unit/test_sampled_pixels.py::test_a_large_jpeg_is_resized_to_the_same_pixels",
            "tests/unit/test_png_strips.py::test_a_large_png_is_resized_to_the_same_pixels",
            "tests/unit/test_decode_limits.py::test_what_takes_too_much_memory_is_refused_with_a_way_out",
            "tests/unit/test_dispatcher.py::test_an_answered_image_is_not_left_to_the_garbage_collector",
        ),
    ),
)


@cache
def _functions(path: str) -> frozenset[str]:
    file = ROOT / path
    if not file.exists():
        return frozenset()
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds))


def exists(test: str) -> bool:
    """Return whether a test with this id exists."""
    path, _, name = test.partition("::")
    return name in _functions(path)
