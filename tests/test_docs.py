"""What the documentation names exists, and its code is right. The build itself is ``tox run -e docs``."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management.base import BaseCommand
from django.db import connection

from django_dualstorage import records
from django_dualstorage.conf import DualStorageConf
from django_dualstorage.core import steps
from django_dualstorage.core.differences import Difference
from django_dualstorage.core.phases import LADDER, Phase, safe_together
from django_dualstorage.core.providers import PROVIDERS
from django_dualstorage.core.report import Outcome, Report
from django_dualstorage.core.steps import Step
from django_dualstorage.management import base
from django_dualstorage.management.commands import dualstorage_backfill, dualstorage_repair, dualstorage_verify
from django_dualstorage.operations.verify import Verification, Wanted
from django_dualstorage.storage import DualWriteStorage
from tests.support.commands import dualstorage

ROOT = Path(__file__).parent.parent
README = ROOT / "README.rst"
PAGES = sorted((ROOT / "docs").glob("*.rst"))
TEXTS = [README, *PAGES]


def _name(path: Path) -> str:
    return path.name


_FILE = re.compile(r"``((?:django_dualstorage|tests|docs|demo|benchmarks)/[\w./-]*|[\w-]+\.(?:toml|ini|md))``")


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.rst").read_text()


def section(text: str, title: str) -> str:
    """What stands between a title and the next of the same rank."""
    found = re.search(rf"^{re.escape(title)}\n-+\n(.*?)(?=^[^\n]+\n-{{3,}}\n|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def literals(text: str) -> set[str]:
    return set(re.findall(r"``(.+?)``", text))


def blocks(text: str, language: str) -> Iterator[str]:
    """The code blocks of that language, without their indentation."""
    for found in re.finditer(rf"^( *)\.\. code-block:: {language}\n((?:\1 +.*\n|\s*\n)+)", text + "\n", re.MULTILINE):
        lines = found[2].strip("\n").split("\n")
        indent = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        yield "\n".join(line[indent:] for line in lines) + "\n"


def run(text: str, word: str) -> None:
    """Run the one Python block that has ``word`` in it."""
    (block,) = (block for block in blocks(text, "python") if word in block)
    exec(block, {})


# -- references --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_every_file_that_a_page_names_exists(path: Path) -> None:
    named = set(_FILE.findall(path.read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_every_relative_link_leads_to_a_file(path: Path) -> None:
    targets = set(re.findall(r"`[^`]*<([^>`]+)>`_", path.read_text()))
    relative = sorted(target for target in targets if "://" not in target)
    assert [target for target in relative if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_page_that_a_page_refers_to_exists(path: Path) -> None:
    named = set(re.findall(r":doc:`(?:[^`<]*<)?([^`>]+)>?`", path.read_text()))
    assert [name for name in sorted(named) if not (path.parent / f"{name}.rst").exists()] == []


def test_the_table_of_contents_has_every_page_and_no_other() -> None:
    tree = page("index").partition("toctree::")[2]
    assert sorted(re.findall(r"^   (\w+)$", tree, re.MULTILINE)) == sorted(
        path.stem for path in PAGES if path.stem != "index"
    )


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_every_setting_that_a_page_names_exists(path: Path) -> None:
    known = {f"DUALSTORAGE_{name}" for name in vars(DualStorageConf) if name.isupper()}
    # Not settings of Django: for the tests and for CI.
    named = set(re.findall(r"\bDUALSTORAGE_[A-Z0-9_]*[A-Z0-9]\b", path.read_text())) - {"DUALSTORAGE_LONG"}
    assert sorted(named - known) == []


# -- code --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_every_python_block_compiles(path: Path) -> None:
    for block in blocks(path.read_text(), "python"):
        entries = block.lstrip().startswith('"')  # of OPTIONS
        ast.parse(f"{{{block}}}" if entries else block, path.name)


@pytest.mark.parametrize("path", TEXTS, ids=_name)
def test_every_json_block_is_json(path: Path) -> None:
    for block in blocks(path.read_text(), "json"):
        json.loads(block)


@pytest.mark.parametrize(
    "path", [README, *(ROOT / "docs" / f"{name}.rst" for name in ("quickstart", "settings"))], ids=_name
)
def test_the_settings_that_a_newcomer_copies_can_be_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USE_S3", "USE_MINIO", "USE_DO_SPACES", "AWS_STORAGE_BUCKET_NAME", "DUALSTORAGE_PHASE"):
        monkeypatch.delenv(name, raising=False)
    found = [block for block in blocks(path.read_text(), "python") if "STORAGES" in block]
    assert found
    for block in found:
        settings: dict[str, Any] = {"INSTALLED_APPS": []}  # startproject writes no STORAGES
        exec(block, settings)
        entry = settings["STORAGES"]["default"]
        assert settings["STORAGES"].keys() == {"default", "staticfiles"}
        assert entry["BACKEND"] == "django_dualstorage.storage.DualWriteStorage"
        assert DualWriteStorage(**entry.get("OPTIONS", {}))
        assert settings.get("DUALSTORAGE_PHASE", "mirror") == "mirror"


@pytest.mark.django_db
def test_the_statements_about_the_tables_run() -> None:
    run(page("phases"), "set_phase")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE dualstorage_storagestate SET phase = 'mirror'")
        for block in blocks(page("phases"), "sql"):
            cursor.execute(block)
        cursor.execute("SELECT alias, phase FROM dualstorage_storagestate")
        assert cursor.fetchall() == [("default", "dual")]
        assert records.Records("default", None, str, str).known().phase is Phase.DUAL


@pytest.mark.django_db
def test_the_names_that_only_s3_has_are_told(
    media_root: Path, default_options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    default_options["phase"] = "mirror"
    for name in ("kept.txt", "lost.txt"):
        default_storage.save(name, ContentFile(b"content"))
    (media_root / "lost.txt").unlink()
    assert "dualstorage_verify --json" in page("phases")
    found = json.loads(dualstorage("verify", "--json").out)["discrepancies"]
    assert [row["name"] for row in found if row["kind"] == "missing-locally"] == ["lost.txt"]
    assert dualstorage("backfill", "--reverse", "--prefix", "lost.txt").code == 0
    assert (media_root / "lost.txt").read_bytes() == b"content"
    run(page("phases"), "journal.count")
    assert capsys.readouterr().out == "0\n"


# -- the README --------------------------------------------------------------------------------------------------------


def test_the_readme_begins_with_the_two_commands() -> None:
    text = README.read_text()
    commands = re.findall(r"^    (\S.*)$", text, re.MULTILINE)
    assert commands[:2] == ["pip install tox && tox run -e demo", "pip install tox && tox run"]
    assert "tox run -e demo -- --serve" in text


def test_the_readme_says_what_is_not_there() -> None:
    planned = section(README.read_text(), "What 0.1 has, and what it has not").partition("Planned and not here")[2]
    for word in ("cut over", "roll back", "prune", "status", "provision", "cost", "admin", "media links"):
        assert word in planned


# -- commands.rst ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", [dualstorage_backfill, dualstorage_repair, dualstorage_verify], ids=lambda module: module.__name__[19:]
)
def test_the_commands_page_names_every_option(module: Any) -> None:
    name = module.__name__.rpartition(".")[2]
    django_s = _options(BaseCommand(), name)
    common, own = page("commands").split(f"{name}\n---")
    for option in _options(module.Command(), name) - django_s:
        assert re.search(rf"^``{option}( [A-Z]+)?``$", common.partition("\ndualstorage_")[0] + own, re.MULTILINE), (
            option
        )


def _options(command: BaseCommand, name: str) -> set[str]:
    parser = command.create_parser("manage.py", name)
    return {text for action in parser._actions for text in action.option_strings if text.startswith("--")}


@pytest.mark.parametrize("outcome", Outcome, ids=str)
def test_the_commands_page_explains_every_outcome(outcome: Outcome) -> None:
    found = re.search(rf"^``{outcome}`` +(yes|no) ", section(page("commands"), "Outcomes"), re.MULTILINE)
    assert found
    assert (found[1] == "yes") == outcome.is_problem


@pytest.mark.parametrize("kind", Difference, ids=str)
def test_the_commands_page_explains_every_kind_of_difference(kind: Difference) -> None:
    found = re.search(rf"^``{kind}`` +(yes|no) ", section(page("commands"), "dualstorage_verify"), re.MULTILINE)
    assert found
    assert (found[1] == "yes") == kind.is_problem


def test_the_commands_page_names_every_key_of_a_verification() -> None:
    with closing(Verification(Wanted())) as result:
        assert result.as_json().keys() <= literals(" ".join(page("commands").split()))


def test_the_commands_page_names_every_exit_code() -> None:
    codes = re.findall(r"^(\d+) ", section(page("commands"), "Exit codes"), re.MULTILINE)
    stable = (base.FINE, base.DIFFERENCES, base.USAGE, base.REFUSED, base.UNUSABLE, base.INTERRUPTED)
    assert tuple(map(int, codes)) == stable


def test_the_json_of_the_commands_page_has_the_keys_of_a_report() -> None:
    (example,) = blocks(page("commands"), "json")
    assert json.loads(example).keys() == Report().as_json().keys()


# -- phases.rst --------------------------------------------------------------------------------------------------------


def test_the_ladder_has_every_phase_in_its_order() -> None:
    rows = re.findall(r"^   \* - ``(.+)``$", section(page("phases"), "The ladder"), re.MULTILINE)
    assert rows == [phase.value for phase in LADDER]


def test_the_table_of_neighbours_is_that_of_the_code() -> None:
    rows = re.findall(r"^``([\w-]+)`` +((?:(?:yes|no) *){6})$", page("phases"), re.MULTILINE)
    assert {name: cells.split() for name, cells in rows} == {
        one.value: ["yes" if safe_together(one, other) else "no" for other in LADDER] for one in LADDER
    }


# -- protocol.rst ------------------------------------------------------------------------------------------------------


def test_the_protocol_page_names_every_step() -> None:
    assert {step.value for step in Step} <= literals(page("protocol"))


@pytest.mark.parametrize(
    ("title", "order"),
    [
        ("Save", steps.SAVE),
        ("Delete", steps.DELETE),
        ("Backfill and repair", (*steps.RECONCILE_PUT[:-1], Step.DELETE, Step.CLEAR)),
    ],
    ids=["save", "delete", "reconcile"],
)
def test_the_tables_of_steps_have_the_order_of_the_code(title: str, order: tuple[Step, ...]) -> None:
    rows = re.findall(r"^``(\w+)``  ", section(page("protocol"), title), re.MULTILINE)
    assert rows == [step.value for step in order]


@pytest.mark.parametrize(
    "order",
    [
        steps.SAVE_OVER_S3_ONLY,
        steps.DELETE_STRICT_S3_ONLY,
        steps.RECONCILE_HOME,
        steps.RECONCILE_QUARANTINE,
        steps.SAVE_DEFERRED,
        steps.DELETE_DEFERRED,
        steps.SAVE_LOCAL,
        steps.DELETE_LOCAL,
        steps.SAVE_S3,
        steps.DELETE_S3,
    ],
    ids=lambda order: "-".join(step.value for step in order),
)
def test_the_other_operations_have_the_order_of_the_code(order: tuple[Step, ...]) -> None:
    text = re.sub(r" \([^)]*\)", "", " ".join(page("protocol").split()))
    assert ", ".join(f"``{step.value}``" for step in order) in text


# -- architecture.rst --------------------------------------------------------------------------------------------------


def test_the_architecture_page_says_where_every_module_is() -> None:
    named = {name for name in literals(page("architecture")) if name.startswith("django_dualstorage/")}
    modules = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "django_dualstorage").rglob("*.py"))
        if path.stem not in {"__init__", "apps"} and path.parent.name != "migrations"
    ]
    folders = tuple(name for name in named if name.endswith("/"))
    assert [name for name in modules if name not in named and not name.startswith(folders)] == []


def test_the_layers_are_those_of_the_import_contract() -> None:
    # Without tomllib, which Python 3.10 lacks.
    contract = (ROOT / "pyproject.toml").read_text().partition("[tool.importlinter]")[2]
    layers = re.search(r"^layers = \[\n(.*?)^\]", contract, re.MULTILINE | re.DOTALL)
    assert layers
    drawn = re.findall(r"^   (\w+(?: : \w+)*)(?:  .*)?$", section(page("architecture"), "Layers"), re.MULTILINE)
    assert drawn == re.findall(r'"(.+)"', layers[1])
    for name in re.findall(r'^name = "(.+)"$', contract, re.MULTILINE):
        assert f"**{name}**" in page("architecture")


def test_the_quickstart_names_every_provider() -> None:
    assert set(PROVIDERS) <= literals(page("quickstart"))
