"""The protocol stands every interleaving of the small model, and the model can tell when it would not.

The short form runs in CI; ``DUALSTORAGE_LONG=1`` searches every scenario at every level.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

import pytest

from django_dualstorage.core import steps
from django_dualstorage.core.phases import Phase, neighbours, policy_of, safe_together
from django_dualstorage.core.steps import Step
from tests.model.__main__ import main
from tests.model.designs import BUILT, RECONCILE, RECONCILE_FROM_S3, STRICT, Reconciliation, design_of, without
from tests.model.expectations import DESIGNS, LIBERTIES, MUTANTS, Expectation, check_mutant
from tests.model.explore import Result
from tests.model.limits import LESSONS, LIMITS, Lesson, Run
from tests.model.monitors import Bad, hear, remember_nothing
from tests.model.scenarios import CORE, ONLY_S3, Level, pairs_of_phases, play, play_pair, stands_late_requests
from tests.model.state import Event, What

LONG: Final = os.environ.get("DUALSTORAGE_LONG") == "1"
only_long = pytest.mark.skipif(not LONG, reason="set DUALSTORAGE_LONG=1")

_PASSING: Final = tuple(each for each in DESIGNS if each.fails_from is None)
_FAILING: Final = tuple(each for each in DESIGNS if each.fails_from is not None)
_PAIRS: Final = tuple(pairs_of_phases())
_WITH_S3_ONLY: Final = tuple(
    pair for pair in _PAIRS if safe_together(*pair) and all(policy_of(phase).sees_s3_only_files for phase in pair)
)


def _names(expectations: tuple[Expectation, ...]) -> list[str]:
    return [each.design.name for each in expectations]


def _told(found: Result) -> str:
    """The shortest counter-examples, for the failure report."""
    return "\n".join(f"{bad}:\n    " + "\n    ".join(trace) for bad, trace in found.traces.items())


# -- designs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", Level, ids=lambda level: level.value)
@pytest.mark.parametrize("expectation", _PASSING, ids=_names(_PASSING))
def test_a_sound_design_stands_every_interleaving(expectation: Expectation, level: Level) -> None:
    found = expectation.check(level, long=LONG)
    assert not found.bad, _told(found)


@pytest.mark.parametrize("level", Level, ids=lambda level: level.value)
@pytest.mark.parametrize("expectation", _FAILING, ids=_names(_FAILING))
def test_a_known_bad_design_fails_from_its_level_on_and_not_before(expectation: Expectation, level: Level) -> None:
    found = expectation.check(level, long=LONG)
    assert expectation.holds(level, found), f"expected {expectation.at(level)}, found {found.bad}\n{_told(found)}"


@only_long
@pytest.mark.parametrize("level", Level, ids=lambda level: level.value)
@pytest.mark.parametrize("expectation", LIBERTIES, ids=_names(LIBERTIES))
def test_an_order_that_does_not_matter_may_be_chosen_freely(expectation: Expectation, level: Level) -> None:
    found = expectation.check(level, long=True)
    assert not found.bad, _told(found)


# -- the checker itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS, ids=_names(MUTANTS))
def test_a_mistake_in_the_built_design_is_caught(mutant: Expectation) -> None:
    found = check_mutant(mutant)
    assert found.bad & mutant.kind == mutant.kind, f"expected {mutant.kind}, found {found.bad}"
    assert all(found.traces[kind] for kind in (Bad.REG, Bad.LIN, Bad.CONV) if kind & mutant.kind)


def test_the_built_design_is_made_of_the_steps_that_the_code_announces() -> None:
    assert (BUILT.save, BUILT.delete) == (steps.SAVE, steps.DELETE)
    assert (BUILT.save_deferred, BUILT.delete_deferred) == (steps.SAVE_DEFERRED, steps.DELETE_DEFERRED)
    assert RECONCILE.ways == (
        steps.RECONCILE_PUT,
        steps.RECONCILE_DELETE,
        steps.RECONCILE_NOTHING,
    )
    assert RECONCILE_FROM_S3.ways == (steps.RECONCILE_HOME, steps.RECONCILE_QUARANTINE, steps.RECONCILE_NOTHING)
    assert BUILT.save_over_s3_only == STRICT.save_over_s3_only == steps.SAVE_OVER_S3_ONLY
    assert (BUILT.delete_s3_only, STRICT.delete_s3_only) == ((), steps.DELETE_STRICT_S3_ONLY)
    assert (design_of(Phase.FILESYSTEM).save, design_of(Phase.FILESYSTEM).delete) == (
        steps.SAVE_LOCAL,
        steps.DELETE_LOCAL,
    )
    assert (design_of(Phase.S3).save, design_of(Phase.S3).delete) == (steps.SAVE_S3, steps.DELETE_S3)


@pytest.mark.parametrize("dropped", [Step.STAGE, Step.STAMP])
def test_a_save_that_sends_what_it_has_not_prepared_is_refused(dropped: Step) -> None:
    with pytest.raises(ValueError, match=dropped.name):
        replace(BUILT, save=without(steps.SAVE, dropped))


def test_a_reconciliation_whose_ways_part_before_they_have_read_is_refused() -> None:
    with pytest.raises(ValueError, match="before READ"):
        Reconciliation(steps.RECONCILE_PUT, without(steps.RECONCILE_DELETE, Step.LOCK), steps.RECONCILE_NOTHING)


def test_a_detour_that_does_more_than_bring_a_file_home_is_refused() -> None:
    with pytest.raises(ValueError, match="COMMIT"):
        replace(STRICT, delete_s3_only=without(steps.DELETE_STRICT_S3_ONLY, Step.UNLINK))


def test_a_create_over_a_file_is_not_linearizable() -> None:
    memory, bad = hear(remember_nothing(0), Event(What.CREATE, 1, 7))
    assert not bad
    assert hear(memory, Event(What.DONE, 1, 7))[1] is Bad.LIN
    assert hear(memory, Event(What.VOID, 1, 7))[1] is Bad.NOTHING


def test_a_read_of_a_superseded_version_is_neither_regular_nor_linearizable() -> None:
    memory = remember_nothing(0)
    for event in (Event(What.WRITE, 1, 7), Event(What.DONE, 1, 7), Event(What.READ, 100, -1)):
        memory, bad = hear(memory, event)
        assert not bad
    assert hear(memory, Event(What.GOT, 100, 7))[1] is Bad.NOTHING
    assert hear(memory, Event(What.GOT, 100, 0))[1] == Bad.REG | Bad.LIN


def test_reads_that_go_back_beside_a_running_save_are_regular_but_not_linearizable() -> None:
    memory = remember_nothing(0)
    history = [Event(What.WRITE, 1, 7)]
    history += [Event(What.READ, 100, -1), Event(What.GOT, 100, 7), Event(What.READ, 101, -1)]
    for event in history:
        memory, bad = hear(memory, event)
        assert not bad
    assert hear(memory, Event(What.GOT, 101, 0))[1] == Bad.LIN


def test_a_killed_save_takes_effect_before_the_kill_or_never() -> None:
    memory = remember_nothing(0)
    history = [Event(What.WRITE, 1, 7), Event(What.KILLED, 1, 7)]
    history += [Event(What.READ, 100, -1), Event(What.GOT, 100, 0), Event(What.READ, 101, -1)]
    for event in history:
        memory, bad = hear(memory, event)
        assert not bad
    assert hear(memory, Event(What.GOT, 101, 7))[1] == Bad.LIN


def test_a_search_counts_the_same_states_every_time() -> None:
    assert play(BUILT, CORE[0], Level.LATE).states == play(BUILT, CORE[0], Level.LATE).states > 1000


# -- phases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), _PAIRS, ids=[f"{one} x {other}" for one, other in _PAIRS])
def test_two_phases_are_safe_together_exactly_if_the_ladder_says_so(one: Phase, other: Phase) -> None:
    safe = safe_together(one, other)
    found = play_pair(one, other, Level.ERRORS, until=Bad.REG)
    assert (not found.bad & Bad.REG) == safe, _told(found)
    if other in neighbours(one):
        assert safe


@pytest.mark.parametrize(("one", "other"), _WITH_S3_ONLY, ids=[f"{one} x {other}" for one, other in _WITH_S3_ONLY])
def test_two_phases_that_see_what_only_s3_has_are_safe_together_on_it(one: Phase, other: Phase) -> None:
    level = Level.ERRORS if LONG else Level.QUIET
    found = play_pair(one, other, level, until=Bad.REG, files=ONLY_S3)
    assert not found.bad & Bad.REG, _told(found)


@only_long
@pytest.mark.parametrize(
    ("one", "other"),
    [pair for pair in _PAIRS if safe_together(*pair) and stands_late_requests(*pair)],
    ids=lambda phase: str(phase),
)
def test_late_requests_and_repair_do_no_harm_while_the_disk_is_the_truth(one: Phase, other: Phase) -> None:
    found = play_pair(one, other, Level.LATE)
    assert not found.bad, _told(found)


# -- what is not promised ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", LIMITS, ids=[limit.name for limit in LIMITS])
def test_a_known_limit_is_still_one(limit: Run) -> None:
    assert limit.show().bad & limit.kind == limit.kind


@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.run.name for lesson in LESSONS])
def test_a_rule_that_is_left_out_is_missed_and_the_built_design_has_it(lesson: Lesson) -> None:
    assert lesson.show().bad & lesson.run.kind == lesson.run.kind
    found = lesson.show_built()
    assert not found.bad, _told(found)


# -- the table ---------------------------------------------------------------------------------------------------------


def test_the_table_prints_counter_examples_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-v", "M4"]) == 0
    printed = capsys.readouterr().out
    assert "LIN" in printed
    assert ": still no local file => nothing" in printed


def test_strict_differs_from_the_built_design_in_whom_it_tells_and_what_it_defers() -> None:
    strict = replace(STRICT, name="", raises=False, delete_s3_only=())
    assert strict == replace(BUILT, name="", save_deferred=(), delete_deferred=())
