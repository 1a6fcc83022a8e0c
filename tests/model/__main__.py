"""``python -m tests.model [-v] [--long] [WORD ...]``: search, and print what was found."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator

from django_dualstorage.core.phases import neighbours, safe_together
from tests.model.expectations import DESIGNS, LIBERTIES, MUTANTS, Expectation, check_mutant
from tests.model.explore import Result
from tests.model.limits import LESSONS, LIMITS
from tests.model.monitors import Bad
from tests.model.scenarios import Level, pairs_of_phases, play_pair, stands_late_requests

#: Group, subject, level, search, whether the outcome is right.
Row = tuple[str, str, str, Callable[[], Result], Callable[[Result], bool]]


def rows(*, long: bool) -> Iterator[Row]:
    """Everything there is to search."""
    for expectation in (*DESIGNS, *(LIBERTIES if long else ())):
        for level in Level:
            yield _design(expectation, level, long=long)
    for mutant in MUTANTS:
        level = mutant.fails_from or Level.QUIET
        yield "mutant", mutant.design.name, level.value, _bind(check_mutant, mutant), _wanted(mutant.kind)
    for one, other in pairs_of_phases():
        safe = safe_together(one, other)
        kind = "neighbours" if other in neighbours(one) else "phases"

        def right(found: Result, safe: bool = safe) -> bool:
            return (not found.bad & Bad.REG) == safe

        for level in (Level.ERRORS, Level.LATE) if long else (Level.ERRORS,):
            if level is Level.ERRORS or stands_late_requests(one, other):
                yield kind, f"{one} x {other}", level.value, _bind(play_pair, one, other, level), right
    for limit in LIMITS:
        yield "limit", limit.name, "", limit.show, _wanted(limit.kind)
    for lesson in LESSONS:
        yield "lesson", lesson.run.name, "", lesson.show, _wanted(lesson.run.kind)
        yield "learnt", lesson.run.instead, "", lesson.show_built, _wanted_none


def main(arguments: list[str]) -> int:
    """Print the table; 1 if anything is not as the design says."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description="Search the protocol's small model.")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the shortest counter-examples")
    parser.add_argument("--long", action="store_true", help="every scenario at every level, and every liberty")
    parser.add_argument("words", nargs="*", help="only rows that contain one of these words")
    options = parser.parse_args(arguments)
    states, wrong, started = 0, 0, time.process_time()
    for group, subject, level, find, right in rows(long=options.long):
        if options.words and not any(word.lower() in f"{group} {subject} {level}".lower() for word in options.words):
            continue
        began = time.process_time()
        found = find()
        states += found.states
        verdict = "" if right(found) else "   <-- NOT AS THE DESIGN SAYS"
        wrong += bool(verdict)
        took = time.process_time() - began
        print(f"{group:10} {subject:60.60} {level:15} {found.states:8} {took:6.1f} s  {found.bad}{verdict}", flush=True)
        if options.verbose:
            for bad, trace in found.traces.items():
                print(f"           {bad}:", *trace, sep="\n               ", flush=True)
    print(f"{states} states, {time.process_time() - started:.1f} s; {wrong or 'none'} not as the design says")
    return 1 if wrong else 0


def _design(expectation: Expectation, level: Level, *, long: bool) -> Row:
    def find() -> Result:
        return expectation.check(level, long=long)

    def right(found: Result) -> bool:
        return expectation.holds(level, found)

    return "design", expectation.design.name, level.value, find, right


def _bind(search: Callable[..., Result], *values: object) -> Callable[[], Result]:
    return lambda: search(*values)


def _wanted(kind: Bad) -> Callable[[Result], bool]:
    return lambda found: found.bad & kind == kind


def _wanted_none(found: Result) -> bool:
    return not found.bad


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
