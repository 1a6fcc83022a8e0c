"""What ``open()`` gives is a Python file: each script is run on one of Python's own, and on the storage's."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.subjects import IO, PATHS, Subject, content_of, having

#: Which server it is makes no difference to how a file is read.
SUBJECTS = [subject for subject in having(IO) if subject.server != "moto"]
LINES = b"one\ntwo\r\nthree\rfour\n\nlast without end"
every_subject = pytest.mark.parametrize("subject", SUBJECTS, indirect=True, ids=str)


def attempt(script: Callable[[Any], Any], opener: Callable[..., Any], *args: Any) -> Any:
    """What a script returns, or the kind of its error; opening may fail, too."""
    try:
        with opener(*args) as file:
            return script(file)
    except (ValueError, TypeError, OSError) as error:
        return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ in {"builtins", "io"})


def readinto(file: Any) -> tuple[int, bytes]:
    if isinstance(getattr(file, "file", file), io.TextIOBase):
        raise io.UnsupportedOperation("text")  # there as AttributeError, here too
    buffer = bytearray(b"." * 10)
    return file.readinto(buffer), bytes(buffer)


def after_close(use: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def script(file: Any) -> Any:
        file.read(1)
        file.close()
        return use(file)

    return script


READS: dict[str, Callable[[Any], Any]] = {
    "read all": lambda f: f.read(),
    "read some": lambda f: [f.read(3), f.read(0), f.read(100), f.read(1), f.read()],
    "read minus one": lambda f: f.read(-1),
    "readline": lambda f: [f.readline(), f.readline(2), f.readline(), f.read()],
    "readlines from the middle": lambda f: [f.read(6), f.readlines()],
    "readlines with a hint": lambda f: [f.readlines(5), f.read()],
    "seek and tell": lambda f: [f.seek(4), f.tell(), f.read(3), f.tell(), f.seek(0, 2), f.read(), f.seek(0), f.read(2)],
    "seek from the end": lambda f: [f.seek(-5, io.SEEK_END), f.read()],
    "seek from here": lambda f: [f.read(4), f.seek(-2, io.SEEK_CUR), f.read(4), f.seek(3, io.SEEK_CUR), f.read(4)],
    "seek beyond the end": lambda f: [f.seek(1000), f.tell(), f.read(), f.seek(2), f.read(3)],
    "seek before the beginning": lambda f: f.seek(-1),
    "seek by an unknown rule": lambda f: f.seek(0, 7),
    "readinto": lambda f: [readinto(f), readinto(f)],
    "what it can do": lambda f: [f.readable(), f.writable(), f.seekable(), f.closed, f.isatty()],
    "write": lambda f: f.write(b"x"),
    "read when closed": after_close(lambda f: f.read()),
    "seek when closed": after_close(lambda f: f.seek(0)),
    "readline when closed": after_close(lambda f: f.readline()),
    "closed, and closed again": after_close(lambda f: [f.close(), f.closed]),
}


@pytest.fixture
def lines(storage: Any) -> str:
    """A file that every test may read and none changes."""
    name = "lines.txt"
    if not storage.exists(name):
        storage.save(name, ContentFile(LINES))
    return name


@every_subject
@pytest.mark.parametrize("script", READS)
def test_reads_bytes_as_python_does(storage: Any, lines: str, tmp_path: Path, script: str) -> None:
    (tmp_path / "plain").write_bytes(LINES)
    expected = attempt(READS[script], open, tmp_path / "plain", "rb")
    assert attempt(READS[script], storage.open, lines) == expected


@every_subject
@pytest.mark.parametrize("script", READS)
def test_reads_text_as_python_does(storage: Any, lines: str, tmp_path: Path, script: str) -> None:
    (tmp_path / "plain").write_bytes(LINES)
    expected = attempt(READS[script], open, tmp_path / "plain")
    assert attempt(READS[script], storage.open, lines, "r") == expected


@every_subject
def test_iterates_over_lines_and_chunks(storage: Any, box: str) -> None:
    name = storage.save(f"{box}/a.txt", ContentFile(LINES))
    with storage.open(name) as file:
        file.read(5)
        # Django's files iterate from the beginning, and over any line end.
        assert list(file) == [b"one\n", b"two\r\n", b"three\r", b"four\n", b"\n", b"last without end"]
        assert list(file.chunks(10)) == [LINES[start : start + 10] for start in range(0, len(LINES), 10)]
        assert file.multiple_chunks(10)
        assert not file.multiple_chunks()
        assert file.size == len(file) == len(LINES)


@every_subject
def test_a_big_file_is_read_in_any_order(storage: Any, box: str) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(100_000))
    name = storage.save(f"{box}/big.bin", ContentFile(data))
    with storage.open(name) as file:
        for start in (0, 4, 300_000, 299_990, 399_996, 8, 80_000):
            file.seek(start)
            assert file.read(5000) == data[start : start + 5000]
        file.seek(100_000)
        assert file.read() == data[100_000:]


@every_subject
def test_it_opens_again_after_a_close(storage: Any, box: str) -> None:
    name = storage.save(f"{box}/a.txt", ContentFile(LINES))
    file = storage.open(name)
    assert file.read(3) == b"one"
    assert file.open().read(3) == b"one"
    file.close()
    assert file.closed
    with file.open("rb") as again:
        assert again is file
        assert again.read() == LINES
        assert again.size == len(LINES)


@every_subject
def test_the_name_tells_where_the_file_is(storage: Any, subject: Subject, box: str) -> None:
    name = storage.save(f"{box}/a.txt", ContentFile(LINES))
    for mode in ("rb", "r", "r+b"):
        with storage.open(name, mode) as file:
            assert file.name == (f"{storage.location}/{name}" if PATHS in subject.has else name)
            assert set(file.mode) == set(mode)


def write_in(mode: str) -> Callable[[Any], Any]:
    def text(data: str) -> Any:
        return data.encode() if "b" in mode else data

    def script(file: Any) -> Any:
        found = [file.tell(), file.write(text("Hello\n")), file.tell()]
        file.writelines([text("a\n"), text("b\n")])
        file.flush()
        if "+" in mode:
            file.seek(0)
            found.append(file.read(4))
            file.seek(0)
            file.write(text("J"))
            file.seek(0, io.SEEK_END)
            found += [file.tell(), file.truncate(file.tell() - 1)]
        return [*found, file.readable(), file.writable()]

    return script


MODES = ["wb", "w", "w+b", "w+", "ab", "a", "a+b", "a+", "xb", "x", "x+b", "r+b", "r+", "rb+"]


@every_subject
@pytest.mark.parametrize("exists", [True, False], ids=["existing", "new"])
@pytest.mark.parametrize("mode", MODES)
def test_writes_as_python_does(storage: Any, box: str, tmp_path: Path, mode: str, exists: bool) -> None:
    plain, name = tmp_path / "plain", f"{box}/a.txt"
    storage.save(f"{box}/other.txt", ContentFile(b""))  # django's own needs the folder
    if exists:
        plain.write_bytes(LINES)
        storage.save(name, ContentFile(LINES))
    expected = attempt(write_in(mode), open, plain, mode)
    assert attempt(write_in(mode), storage.open, name, mode) == expected
    assert storage.exists(name) == plain.exists()
    if plain.exists():
        assert content_of(storage, name) == plain.read_bytes()
    assert sorted(storage.listdir(box)[1]) == (["a.txt", "other.txt"] if plain.exists() else ["other.txt"])


@every_subject
def test_what_was_written_can_be_opened_again(storage: Any, box: str) -> None:
    name = f"{box}/a.txt"
    storage.save(name, ContentFile(b"old"))
    file = storage.open(name)
    file.close()
    with file.open("wb"):
        file.write(b"new")
    assert content_of(storage, name) == b"new"
    with file.open("ab"):
        file.write(b"er")
    with file.open("rb"):
        assert file.read() == b"newer"


@every_subject
def test_appending_ends_up_at_the_end_wherever_one_seeks(storage: Any, box: str) -> None:
    name = storage.save(f"{box}/a.txt", ContentFile(b"0123"))
    with storage.open(name, "a+b") as file:
        file.seek(0)
        file.write(b"45")
        file.seek(1)
        assert file.read() == b"12345"
    assert content_of(storage, name) == b"012345"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 90_000)),
        st.tuples(st.just("readline"), st.integers(-1, 300)),
        st.tuples(st.just("seek"), st.integers(0, 260_000)),
        st.tuples(st.just("seek end"), st.integers(-200_000, 10)),
        st.tuples(st.just("tell"), st.just(0)),
        st.tuples(st.just("readinto"), st.integers(0, 70_000)),
    ),
    max_size=8,
)


def walk(file: Any, steps: list[tuple[str, int]]) -> list[Any]:
    found: list[Any] = []
    for what, number in steps:
        if what == "seek end":
            found.append(file.seek(number, io.SEEK_END))
        elif what == "readinto":
            buffer = bytearray(number)
            found += [file.readinto(buffer), bytes(buffer)]
        elif what == "tell":
            found.append(file.tell())
        else:
            found.append(getattr(file, what)(number))
    return found


WALKED = [one for one in SUBJECTS if one.name in {"dual-seaweed", "s3-seaweed"}]
_DATA = b"".join(b"line %d\n" % number * (number % 7) for number in range(8000))[:250_000]


@pytest.mark.parametrize("subject", WALKED, indirect=True, ids=str)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_walk_through_a_file_is_pythons(storage: Any, steps: list[tuple[str, int]]) -> None:
    name = f"walked-{uuid.uuid5(uuid.NAMESPACE_URL, 'one for all examples')}.bin"
    if not storage.exists(name):
        storage.save(name, ContentFile(_DATA))
    with storage.open(name) as file:
        assert walk(file, steps) == walk(io.BytesIO(_DATA), steps)
