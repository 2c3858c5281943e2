"""The contract can fail: every clause catches the back end that breaks its promise."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from tests.contract import mutants

from cloudtune.client import Client
from cloudtune.errors import CloudtuneError
from cloudtune.testing.contract import BackendContract
from cloudtune.testing.contract.harness import ledger_url
from cloudtune.testing.fork_server import ForkServer, shared_fork_server
from cloudtune.testing.scripted_world import ScriptedWorld

CAUGHT = (AssertionError, CloudtuneError, pytest.fail.Exception)

# mutant, the clause that must catch it, and where it matters the clause's argument and the vendor's personality
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("RandomName", "test_01_plan_is_pure", {}),
    ("AsksWhilePlanning", "test_01_plan_is_pure", {}),
    ("OpensASocket", "test_01_plan_is_pure", {}),
    ("ReadsTheRows", "test_01_plan_is_pure", {}),
    ("ReadsTheRows", "test_01_plan_reads_no_rows", {}),
    ("LooksForTheRows", "test_01_plan_reads_no_rows", {}),
    ("HidesWhatItReads", "test_01_plan_is_pure", {}),
    ("ImportsWhilePlanning", "test_01_the_first_plan_is_pure", {}),
    ("ChecksWhilePlanning", "test_01_the_first_plan_is_pure", {}),
    ("AnotherRequest", "test_01_plan_equals_its_snapshot", {}),
    ("SendsMoreThanPlanned", "test_01_what_is_sent_is_what_was_planned", {}),
    ("KeyInPlan", "test_02_no_secret_is_told", {}),
    ("KeyInRepr", "test_02_no_secret_is_told", {}),
    ("KeyInLog", "test_02_no_secret_is_told", {}),
    ("AnyScope", "test_03_a_ref_never_means_another_account", {}),
    ("AnotherRef", "test_03_a_ref_survives_being_text", {}),
    ("Forgetful", "test_04_a_job_is_found_again_from_a_fresh_process", {}),
    ("LacksAWord", "test_05_every_word_of_the_sdk_is_known", {}),
    ("UnseenIsFailed", "test_06_an_unseen_word_is_unknown_and_not_the_end", {}),
    ("UnseenIsRunning", "test_06_an_unseen_word_is_unknown_and_not_the_end", {}),
    ("LosesTheWord", "test_06_an_unseen_word_is_unknown_and_not_the_end", {}),
    ("UnseenHasNoEnd", "test_06_an_unseen_word_with_an_end_time_ends_the_wait", {}),
    ("LosesTheWord", "test_05_every_word_of_the_sdk_is_known", {}),
    ("ResumesTheEnded", "test_07_the_end_is_final", {"end": mutants.S.FAILED}),
    ("ResumesTheEndedSilently", "test_07_the_end_is_final", {"end": mutants.S.CANCELLED}),
    ("Orphaning", "test_07_an_ended_job_is_continued_by_a_new_one", {}),
    ("CancelsOnce", "test_08_cancelling_twice_is_harmless", {}),
    ("CancelsTheEnded", "test_08_cancelling_after_the_end_does_nothing", {"end": mutants.S.SUCCEEDED}),
    ("CompletedIsRunning", "test_09_waiting_ends_in_success", {}),
    ("CancelledIsFailed", "test_09_waiting_ends_in_cancelled", {}),
    ("ExpiredIsFailed", "test_09_waiting_ends_in_expired", {}),
    ("WaitCancels", "test_09_waiting_ends_while_the_job_goes_on", {}),
    ("PausedIsRunning", "test_09_waiting_ends_where_a_pause_does_not", {}),
    ("PretendsContact", "test_09_waiting_ends_in_lost_contact", {}),
    ("Speechless", "test_10_a_failure_has_the_vendors_words", {}),
    ("UnknownIsUnknown", "test_11_an_unknown_id_is_not_found", {}),
    ("CancelsNobody", "test_11_an_unknown_id_is_not_found", {}),
    ("NoEventsOfNobody", "test_11_an_unknown_id_is_not_found", {}),
    ("DeletesOnce", "test_11_an_unknown_id_is_not_found", {}),
    ("ThrottleIsFinal", "test_12_throttling_is_waited_out", {}),
    ("ForgetsRetryAfter", "test_12_throttling_is_waited_out", {}),
    ("RetriesByItself", "test_12_throttling_is_waited_out", {}),
    ("OutageIsFinal", "test_12_outages_are_retried", {}),
    ("RetriesByItself", "test_12_outages_are_retried", {}),
    ("RefusalIsAnOutage", "test_12_a_refusal_is_final", {}),
    ("HidesTheCause", "test_12_a_refusal_is_final", {}),
    ("NewTokenEachSend", "test_13_a_lost_reply_makes_no_second", {"call": "create"}),
    ("NewNameEachSend", "test_13_a_lost_reply_makes_no_second", {"call": "create", "personality": "unique_names"}),
    ("ConflictEscapes", "test_13_a_lost_reply_makes_no_second", {"call": "create", "personality": "unique_names"}),
    ("NeverLooks", "test_13_a_lost_reply_makes_no_second", {"call": "create", "personality": "neither"}),
    ("Impatient", "test_13_a_lost_reply_makes_no_second", {"call": "create", "personality": "neither"}),
    ("NeverLooksForFiles", "test_13_a_lost_reply_makes_no_second", {"call": "upload", "personality": "neither"}),
    ("NeverLooks", "test_13_a_kill_anywhere_makes_no_second", {"failpoints": "steps", "personality": "neither"}),
    ("NewTokenEachSend", "test_13_a_kill_anywhere_makes_no_second", {"failpoints": "steps"}),
    ("AdoptsAnything", "test_13_the_same_submit_answers_with_the_same_job", {}),
    ("NoAttempts", "test_13_again_makes_one_more", {}),
    ("Unreasoned", "test_14_every_feature_is_answered", {}),
    ("Boasting", "test_14_nothing_is_ignored", {}),
    ("IgnoresTheSeed", "test_14_nothing_is_ignored", {}),
    ("IgnoresTheValidationRows", "test_14_nothing_is_ignored", {}),
    ("ChecksByAsking", "test_14_what_it_cannot_do_is_refused_at_once", {}),
    ("TakesAnyOverride", "test_14_overrides_are_checked", {}),
    ("PausesNothing", "test_15_pause", {}),
    ("StaysPaused", "test_15_resume", {}),
    ("NoBestCheckpoint", "test_15_checkpoints", {}),
    ("NewestCheckpointFirst", "test_15_checkpoints", {}),
    ("AnswersOutOfOrder", "test_15_generate", {}),
    ("OnlyTheTuned", "test_15_generate", {}),
    ("StreamsUnasked", "test_15_generate", {}),
    ("LosesAPiece", "test_15_generate", {}),
    ("LeavesOutTheWhole", "test_15_generate", {}),
    ("DeploysAgain", "test_15_deploy", {}),
    ("ModelTooSoon", "test_15_no_model_before_the_end", {}),
    ("IgnoresTheCursor", "test_16_events_go_on_from_a_cursor", {}),
    ("SkipsOneEvent", "test_16_events_go_on_from_a_cursor", {}),
    ("NewestEventFirst", "test_16_events_go_on_from_a_cursor", {}),
    ("RepeatsEvents", "test_16_an_event_told_twice_is_passed_on_once", {}),
    ("InventsEvents", "test_16_events_that_were_observed_say_so", {}),
    ("IgnoresTheMetricsCursor", "test_16_metrics_go_on_from_a_cursor", {}),
    ("OldestFirst", "test_17_list_shows_the_job_and_agrees_with_get", {}),
    ("IgnoresTheLimit", "test_17_list_shows_the_job_and_agrees_with_get", {}),
    ("ListsOnlyLiveJobs", "test_17_list_shows_the_job_and_agrees_with_get", {}),
    ("ListSaysRunning", "test_17_list_shows_the_job_and_agrees_with_get", {}),
    ("BatchInventsJobs", "test_17_list_shows_the_job_and_agrees_with_get", {}),
    ("BareImport", "test_18_a_missing_package_is_named", {}),
    ("DeletesNothing", "test_19_what_was_made_can_be_deleted", {}),
    ("DeletesTheRunning", "test_19_what_was_made_can_be_deleted", {}),
    ("Nameless", "test_19_what_was_made_can_be_got_and_named", {}),
    ("LocalTimes", "test_19_what_was_made_can_be_got_and_named", {}),
    ("Grumbling", "test_19_the_log_is_quiet", {}),
    ("DeploysOnLooking", "test_20_reading_changes_nothing", {}),
    ("UploadsOnFinding", "test_20_reading_changes_nothing", {"personality": "neither"}),
    ("RegistersOnResolving", "test_20_reading_changes_nothing", {}),
    ("TakesLongRows", "test_21_a_row_over_the_limit_is_found_before_upload", {}),
    ("CostsNothing", "test_23_an_unknown_cost_is_named_and_a_limit_kept", {}),
]


MASKED = ("KeyInLedger", "KeyInNotes", "KeyInError")
"""Mutants that hand out their key where core masks it."""


class Held(BackendContract):
    """The contract as the scripted back end with tokens is held to it."""

    __test__ = False
    expected_skips = 1
    snapshots = Path(__file__).parent / "snapshots"


Held.__name__ = "TestToken"  # whose snapshot it is


@pytest.mark.parametrize(("mutant", "clause", "details"), CASES, ids=[f"{case[0]}-{case[1][5:]}" for case in CASES])
def test_a_sloppy_backend_is_caught(
    mutant: str, clause: str, details: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(CAUGHT):
        hold(mutant, clause, details, request)


@pytest.mark.parametrize("mutant", MASKED)
def test_a_key_that_a_backend_hands_out_is_masked(mutant: str, request: pytest.FixtureRequest) -> None:
    hold(mutant, "test_02_no_secret_is_told", {}, request)


@pytest.fixture
def fork_server() -> ForkServer:
    return shared_fork_server()


def hold(mutant: str, clause: str, details: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """Run a clause with a mutant."""
    given = dict(details)
    root = request.getfixturevalue("tmp_path")
    world = ScriptedWorld(root, given.pop("personality", "token"), backend=f"{mutants.__name__}:{mutant}")
    backend = world.backend()
    given |= {"world": world, "backend": backend}
    given["client"] = Client(backend, ledger=ledger_url(world), clock=world.clock)
    test = getattr(Held(), clause)
    test(**{
        name: given[name] if name in given else request.getfixturevalue(name)
        for name in inspect.signature(test).parameters
    })  # fmt: skip


def test_every_mutant_is_tried() -> None:
    defined = {
        name for name, cls in vars(mutants).items()
        if inspect.isclass(cls) and cls.__module__ == mutants.__name__ and not name.startswith("_")
        and issubclass(cls, mutants.ScriptedBackend)
    }  # fmt: skip
    assert defined - {"Reworded", "Translating"} == {case[0] for case in CASES} | {*MASKED}


def test_every_clause_has_its_mutant() -> None:
    clauses = {name for name in dir(BackendContract) if name.startswith("test_") and not name.startswith("test_00")}
    caught = {case[1] for case in CASES}
    # What these say is kept by core alone, whatever a back end does; core's own unit tests break them.
    of_core = {
        "test_09_the_ways_are_told_apart",
        "test_14_a_model_for_another_backend_is_no_model",
        "test_14_drops_are_told",
        "test_15_export",  # the scripted vendor keeps its weights
        "test_15_what_is_not_declared_is_refused_with_the_reason",
        "test_20_reading_makes_no_ledger",
        "test_21_changed_fields_are_reported",
    }
    assert clauses - caught == of_core
