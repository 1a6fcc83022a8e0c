"""Names: which are ours, which key a name has, which keys S3 cannot take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_dualstorage.core.names import (
    MAX_KEY_BYTES,
    is_reserved,
    is_staged,
    key_of,
    name_of,
    staged_name,
    why_not_on_s3,
)

PARTS = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0\\\ufffe\uffff", exclude_categories=["Cc"]), min_size=1
).filter(lambda part: part not in {".", ".."})
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
PREFIXES = st.sampled_from(["", "media", "/media/", "a/b", "a/b/", "ünï", " "])


@given(name=NAMES, prefix=PREFIXES)
def test_a_key_leads_back_to_its_name(name: str, prefix: str) -> None:
    key = key_of(name, prefix)
    assert name_of(key, prefix) == name
    assert key.endswith(name)
    assert not key.startswith("/")


@given(name=NAMES, other=NAMES, prefix=PREFIXES)
def test_two_names_never_share_a_key(name: str, other: str, prefix: str) -> None:
    assert (key_of(name, prefix) == key_of(other, prefix)) is (name == other)


@given(key=st.text(max_size=40), prefix=PREFIXES)
def test_a_name_leads_back_to_its_key(key: str, prefix: str) -> None:
    name = name_of(key, prefix)
    assert name is None or key_of(name, prefix) == key


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("other/a.txt", "media"),
        ("mediaa.txt", "media"),
        ("media", "media"),
        ("media/", "media"),
        ("folder/", ""),
        ("", ""),
        ("a//b", ""),
        ("/a", ""),
        ("./a", ""),
        ("a/../b", ""),
        ("media/..", "media"),
        ("nul\0", ""),
    ],
)
def test_a_key_that_no_file_can_have_has_no_name(key: str, prefix: str) -> None:
    assert name_of(key, prefix) is None


@given(name=NAMES.filter(lambda name: len(name.encode()) <= MAX_KEY_BYTES))
def test_ordinary_names_can_go_to_s3(name: str) -> None:
    assert why_not_on_s3(name) is None


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("k" * 1024, "1024 bytes"),
        ("ü" * 512, "1024 bytes"),
        ("bad\udcff", "UTF-8"),
        ("tab\t", "control character"),
        ("line\nend", "control character"),
        ("del\x7f", "control character"),
        ("non\uffff", "XML"),
        ("non\ufffe", "XML"),
        ("back\\slash", "backslash"),
        ("a//b", "empty"),
        ("/a", "empty"),
        ("a/", "empty"),
        ("", "empty"),
        ("./a", "'.'"),
        ("a/../b", "'..'"),
    ],
)
def test_names_that_a_server_refuses_or_changes_are_told(key: str, why: str) -> None:
    reason = why_not_on_s3(key)
    assert reason is not None
    assert why in reason


def test_the_longest_key_is_taken() -> None:
    assert why_not_on_s3("k" * 1023) is None


@pytest.mark.parametrize(
    "name", [".dualstorage", ".dualstorage/key", ".dualstorage/a/b", staged_name("0" * 32), f"a/b/{staged_name('1')}"]
)
def test_our_own_names_are_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize(
    "name",
    ["", "a", "dualstorage", "a/.dualstorage", "a/.dualstorage/b", ".dualstorage2", ".hidden", "x.dualstorage-tmp"],
)
def test_all_other_names_are_not(name: str) -> None:
    assert not is_reserved(name)


@given(name=NAMES)
def test_a_name_is_ours_only_by_its_first_folder_or_its_staged_form(name: str) -> None:
    expected = name.split("/")[0] == ".dualstorage" or is_staged(name.rpartition("/")[2])
    assert is_reserved(name) is expected
