"""Globs and their order."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.core.selection import EVERYTHING, Rule, Selection, translate


@pytest.mark.parametrize(
    ("glob", "fits", "fits_not"),
    [
        ("*.tmp", ["a.tmp", "b/c/a.tmp", ".tmp"], ["a.tmp/b", "a.tmpx"]),
        ("thumbs/", ["thumbs/a", "thumbs/b/c"], ["x/thumbs/a", "thumbs", "thumbsy/a"]),
        ("/a.txt", ["a.txt"], ["b/a.txt"]),
        ("a/*.jpg", ["a/b.jpg"], ["a/b/c.jpg", "x/a/b.jpg"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c"]),
        ("**/cache/**", ["cache/a", "x/cache/a/b", "x/y/cache/z"], ["xcache/a", "cache"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "ab"]),
        ("?.txt", ["a.txt", "x/ä.txt"], ["ab.txt", ".txt"]),
        ("[a-c]1", ["a1", "c1"], ["d1", "-1"]),
        ("[!a-c]1", ["d1", "^1"], ["a1"]),
        ("[]]", ["]"], ["[", "[]]"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("a[", ["a["], ["a"]),
        ("a\nb*", ["a\nb", "a\nbc"], ["a"]),
        ("a+(b)|c.$", ["a+(b)|c.$"], ["aab|c.$"]),
    ],
)
def test_globs(glob: str, fits: list[str], fits_not: list[str]) -> None:
    pattern = re.compile(translate(glob))
    assert [name for name in fits if not pattern.fullmatch(name)] == []
    assert [name for name in fits_not if pattern.fullmatch(name)] == []


@pytest.mark.parametrize("glob", ["", "/"])
def test_empty_globs_are_refused(glob: str) -> None:
    with pytest.raises(ValueError, match="empty"):
        translate(glob)


@given(st.text(min_size=1).filter(lambda text: text.strip("/")))
def test_every_text_is_a_glob(glob: str) -> None:
    re.compile(translate(glob))


@given(st.text("ab*?[]!/.-^\\", min_size=1).filter(lambda text: not set(text) & set("*?[") and text.strip("/")))
def test_without_special_characters_a_glob_fits_itself_only(text: str) -> None:
    name = text.strip("/")
    if not text.endswith("/"):
        assert re.fullmatch(translate(text), text.removeprefix("/"))
    assert not re.fullmatch(translate(text), f"{name}x")


def test_first_rule_that_fits_decides() -> None:
    rules = [Rule(True, "a/keep.tmp"), Rule(False, "*.tmp"), Rule(True, "a/")]
    selection = Selection(rules)
    taken = [name for name in ("a/keep.tmp", "a/b.tmp", "a/b", "c", "c/keep.tmp") if selection.takes_name(name)]
    assert taken == ["a/keep.tmp", "a/b"]


def test_without_an_include_the_rest_is_taken() -> None:
    assert Selection([Rule(False, "*.tmp")]).takes_name("a")
    assert EVERYTHING.takes_name("a")


def test_only_the_empty_selection_is_everything() -> None:
    assert EVERYTHING.is_everything
    for partial in (Selection([Rule(False, "a")]), Selection(since_ns=1), Selection(names=[])):
        assert not partial.is_everything
