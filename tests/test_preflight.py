"""What can be told of a file by its name and size, and the ETag of its bytes."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import unicodedata
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_dualstorage.core.differences import NEXT, Difference, Evidence, Side, at_fault
from django_dualstorage.core.etags import EtagDigest
from django_dualstorage.core.names import MAX_KEY_BYTES, why_not_on_s3
from django_dualstorage.core.preflight import fold_hash, folded, look_at, twins
from django_dualstorage.management.commands import dualstorage_backfill
from django_dualstorage.operations import preflight, spool
from django_dualstorage.operations.preflight import survey
from django_dualstorage.storage import DualWriteStorage
from tests.support.asserts import never_stop
from tests.support.backfills import write
from tests.support.commands import dualstorage

#: Names that differ little: upper and lower, composed and not, letters whose case changes their number.
NAMES = st.text(st.sampled_from("aA\u00e9\u00c9e\u0301\u00df\u1e9esS\u0130i\u0307/."), min_size=1, max_size=6)


def kinds(name: str, size: int = 1, location: str = "") -> set[Difference]:
    return {found.kind for found in look_at(name, size, location)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain/name.jpg", set()),
        ("a\\b", {Difference.BAD_NAME}),
        ("new\nline", {Difference.BAD_NAME}),
        ("x" * (MAX_KEY_BYTES + 1), {Difference.BAD_NAME}),
        (".htaccess", {Difference.HIDDEN}),
        ("a/.git/config", {Difference.HIDDEN}),
        ("a.b/c", set()),
        ("a/b~", {Difference.TEMPORARY}),
        ("a/.DS_Store", {Difference.TEMPORARY}),
        ("a/Thumbs.db", {Difference.TEMPORARY}),
        ("upload.PART", {Difference.TEMPORARY}),
        ("a.tmp/b", set()),
        ("departed", set()),
    ],
)
def test_names_that_are_worth_knowing(name: str, expected: set[Difference]) -> None:
    assert kinds(name) == expected
    assert kinds(name, 0) == {*expected, Difference.EMPTY}


def test_key_is_measured_with_its_location() -> None:
    name = "x" * (MAX_KEY_BYTES - 3)
    assert kinds(name) == set()
    assert kinds(name, location="media") == {Difference.BAD_NAME}


@given(st.text(min_size=1, max_size=20))
@settings(max_examples=50)
def test_bad_names_are_those_that_the_s3_side_refuses(name: str) -> None:
    assert (Difference.BAD_NAME in kinds(name)) == (why_not_on_s3(name) is not None)


@given(NAMES)
def test_folding_is_blind_to_case_and_composition(name: str) -> None:
    for other in (name.lower(), unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)):
        if other == name.lower() and folded(other) != folded(name):
            assert "\u0130" in name  # whose lower case is two letters, and not its case folding
            continue
        assert folded(other) == folded(name)
        assert fold_hash(other) == fold_hash(name)
    assert -(2**63) <= fold_hash(name) < 2**63


@given(st.lists(NAMES, unique=True, max_size=8))
def test_every_twin_but_the_first_is_told_once_and_nobody_else(names: list[str]) -> None:
    found = list(twins(names))
    groups = {folded(name) for name in names}
    assert len(found) == len(names) - len(groups)
    assert len({one.name for one in found}) == len(found)
    for one in found:
        others = [name for name in names if name != one.name]
        same = [name for name in others if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", one.name)]
        if one.kind is Difference.NFC_TWIN:
            assert same
        else:
            assert any(folded(name) == folded(one.name) for name in others)


@given(st.binary(max_size=2000), st.integers(1, 700), st.lists(st.integers(1, 500), max_size=20))
def test_etag_is_that_of_the_parts_however_the_bytes_come(content: bytes, part: int, cuts: list[int]) -> None:
    parts = [content[at : at + part] for at in range(0, len(content), part)] or [b""]
    joined = b"".join(hashlib.md5(piece).digest() for piece in parts)
    expected = f'"{hashlib.md5(joined).hexdigest()}-{len(parts)}"'
    digest = EtagDigest.like(expected, len(content), part)
    assert digest is not None
    whole = EtagDigest.like(f'"{"0" * 32}"', len(content), part)
    assert whole is not None
    at = 0
    for cut in [*cuts, len(content)]:
        digest.update(content[at : at + cut])
        whole.update(content[at : at + cut])
        at += cut
    assert digest.etag() == expected
    assert whole.etag() == f'"{hashlib.md5(content).hexdigest()}"'


@pytest.mark.parametrize("etag", ["", '"x"', f'"{"0" * 32}-3"', f'"{"0" * 32}-0"', "0" * 32])
def test_etags_of_which_the_rule_is_not_known(etag: str) -> None:
    assert EtagDigest.like(etag, 10, 10) is None


@pytest.mark.parametrize(
    ("of_disk", "of_s3", "side"),
    [
        ("e", "x", Side.S3),
        ("x", "e", Side.UNKNOWN),
        ("x", "y", Side.UNKNOWN),
        (None, "e", Side.UNKNOWN),
        (None, None, Side.UNKNOWN),
    ],
)
def test_who_is_at_fault(of_disk: str | None, of_s3: str | None, side: Side) -> None:
    found, why = at_fault(Evidence("e", of_disk, of_s3))
    assert found is side
    assert ("both unknown" in why) == (side is Side.UNKNOWN)


def test_every_kind_says_what_to_do_next() -> None:
    assert set(NEXT) == set(Difference)


# -- on a tree ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_dry_run_says_what_cannot_or_should_not_be_moved(default_storage: DualWriteStorage) -> None:
    for name in ("a.jpg", "A.jpg", "b/caf\u00e9", "b/cafe\u0301", "b/.hidden", "b/back\\slash", "c/x.tmp"):
        write(default_storage, name, b"" if name == "a.jpg" else b"content")
    os.mkfifo(os.path.join(default_storage.location, "pipe"))
    expected = {
        "bad-name": 1,
        "special": 1,
        "nfc-twin": 1,
        "case-twin": 1,
        "hidden": 1,
        "temporary": 1,
        "empty": 1,
    }
    assert json.loads(dualstorage("backfill", "--dry-run", "--json").out)["preflight"] == expected
    out = dualstorage("backfill", "--dry-run", "--prefix", "b/").out
    assert "1 nfc-twin: nothing on Linux and S3" in out
    assert "First of them: b/caf" in out
    assert "case-twin" not in out
    assert json.loads(dualstorage("backfill", "--dry-run", "--json", "--exclude", "*").out)["preflight"] == {}


@pytest.mark.django_db
def test_dry_run_surveys_what_was_selected_and_no_more(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(default_storage, ".old")
    write(default_storage, ".young", mtime=time.time_ns())
    write(default_storage, "A.young", mtime=time.time_ns())
    write(default_storage, "a.young")
    monkeypatch.setattr(dualstorage_backfill, "referenced_names", lambda storage: iter([".old", "A.young", "gone"]))

    def surveyed(*args: str) -> object:
        return json.loads(dualstorage("backfill", "--dry-run", "--json", *args).out)["preflight"]

    assert surveyed() == {"hidden": 2, "case-twin": 1}
    assert surveyed("--since", "1d") == {"hidden": 1}
    assert surveyed("--referenced-only") == {"hidden": 1}
    assert surveyed("--referenced-only", "--since", "1d") == {}


def test_names_that_rows_have_are_asked_for_in_bunches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_NAMES", 3)
    with closing(spool.Spool()) as temporary:
        temporary.refer((str(number), "", "", "") for number in (1, 3, 3, 6, 9))
        assert temporary.referenced([str(number) for number in range(8)]) == {"1", "3", "6"}
        assert temporary.referenced([]) == set()


@pytest.mark.django_db
def test_survey_that_was_stopped_is_not_shown_as_whole(
    default_storage: DualWriteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(4):
        write(default_storage, f".{number}")
    monkeypatch.setattr(preflight, "_BATCH", 2)
    look = preflight._look

    def stop_after(chunk: Any, location: str) -> Any:
        signal.raise_signal(signal.SIGINT)
        return look(chunk, location)

    monkeypatch.setattr(preflight, "_look", stop_after)
    ran = dualstorage("backfill", "--dry-run")
    assert ran.code == 130
    assert "hidden" not in ran.out
    assert "but not what on the disk cannot" in ran.out
    found = json.loads((ran := dualstorage("backfill", "--dry-run", "--json")).out)
    assert (ran.code, found["interrupted"], found["preflight"]) == (130, True, {})


def test_survey_ends_when_asked_to(default_storage: DualWriteStorage) -> None:
    write(default_storage, ".hidden")
    stop = never_stop()
    assert [kind for kind, _, _ in survey(default_storage, stop)] == [Difference.HIDDEN]
    stop.ask()
    assert list(survey(default_storage, stop)) == []
