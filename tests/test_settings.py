"""Options and the settings behind them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as site_settings
from django.test import override_settings

from django_dualstorage import wiring
from django_dualstorage.conf import OPTION_TYPES, resolve
from django_dualstorage.core.phases import LADDER, Phase
from django_dualstorage.core.providers import PROVIDERS
from django_dualstorage.env import storage_from_env
from django_dualstorage.exceptions import ConfigurationError
from django_dualstorage.storage import DualWriteStorage

if TYPE_CHECKING:
    from pytest_django import Settings

#: Each option with its default and another value, both as :func:`chosen` shows them.
DEFAULTS: dict[str, tuple[Any, Any]] = {
    "provider": ("aws", "minio"),
    "phase": (None, "mirror"),
    "s3_writes": ("inline", "deferred"),
    "read_repair": (False, True),
    "fsync": (False, True),
    "connect_timeout": (2.0, 1.5),
    "read_timeout": (10.0, 3),
    "breaker_failures": (3, 7),
    "breaker_interval": (5.0, 0.5),
    "lock_timeout": (60.0, 1),
    "grace": (900.0, 0),
}
#: Settings that no single storage can have.
SITE_WIDE: dict[str, Any] = {"PHASE_TTL": 3.0, "REPORT_INTERVAL": 60.0, "DATABASE": "default"}
#: Options that no setting stands behind.
OF_ONE_STORAGE = {"s3", "alias"}

REFERENCE = (Path(__file__).parents[1] / "docs" / "settings.rst").read_text()


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """The options in force, by the names that they have in OPTIONS."""
    options = resolve(given)
    return {
        "provider": options.provider.name,
        "phase": None if options.phase is None else options.phase.value,
        "s3_writes": "deferred" if options.deferred else "inline",
        "read_repair": options.read_repair,
        "fsync": options.fsync,
        "connect_timeout": options.timing.connect,
        "read_timeout": options.timing.read,
        "breaker_failures": options.timing.breaker_failures,
        "breaker_interval": options.timing.breaker_interval,
        "lock_timeout": options.lock_timeout,
        "grace": options.grace,
    }


def test_these_are_all_the_options_and_settings() -> None:
    assert {*DEFAULTS, *OF_ONE_STORAGE} == set(OPTION_TYPES)
    present = {name for name in dir(site_settings) if name.startswith("DUALSTORAGE_")}
    assert present == {f"DUALSTORAGE_{name.upper()}" for name in [*DEFAULTS, *SITE_WIDE]}


# -- resolve -----------------------------------------------------------------------------------------------------------


def test_the_defaults() -> None:
    assert chosen({}) == {name: default for name, (default, _) in DEFAULTS.items()}
    assert resolve({}).s3 == {}
    assert resolve({}).timing.attempts == 1


@pytest.mark.parametrize(("name", "default"), SITE_WIDE.items())
def test_the_defaults_of_the_whole_site(name: str, default: Any) -> None:
    assert getattr(site_settings, f"DUALSTORAGE_{name}") == default


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_option_changes_itself_and_nothing_else(name: str) -> None:
    default, other = DEFAULTS[name]
    assert chosen({name: other}) == {**chosen({}), name: other}
    assert chosen({name: None}) == chosen({})
    assert chosen({}) == {**chosen({}), name: default}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_setting_stands_in_for_the_option(name: str) -> None:
    _, other = DEFAULTS[name]
    with override_settings(**{f"DUALSTORAGE_{name.upper()}": other}):
        assert chosen({})[name] == other


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_option_goes_before_the_setting(name: str) -> None:
    default, other = DEFAULTS[name]
    given = "dual" if name == "phase" else default
    with override_settings(**{f"DUALSTORAGE_{name.upper()}": other}):
        assert chosen({name: given})[name] == given


def test_a_setting_moves_a_storage_that_is_there_already(settings: Settings, media_root: Path) -> None:
    storage = DualWriteStorage(location=media_root)
    before = storage.pair
    assert before.grace == 900
    settings.DUALSTORAGE_PHASE = "mirror"
    settings.DUALSTORAGE_GRACE = 5
    assert storage.options.phase is Phase.MIRROR
    assert storage.policy.phase is Phase.MIRROR
    assert storage.pair is not before
    assert storage.pair.grace == 5


def test_a_setting_does_not_move_what_the_storage_was_given(settings: Settings) -> None:
    storage = DualWriteStorage(phase="filesystem")
    settings.DUALSTORAGE_PHASE = "mirror"
    assert storage.options.phase is Phase.FILESYSTEM


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no option 'bucket_name'.*alias, .*under 's3'"):
        resolve({"bucket_name": "media"})


_WRONG_TYPES = [
    *((name, 1) for name in ("s3", "alias", "provider", "phase", "s3_writes", "read_repair", "fsync")),
    *((name, "1") for name, types in OPTION_TYPES.items() if str not in types),
    *((name, True) for name, types in OPTION_TYPES.items() if int in types),
    ("breaker_failures", 2.5),
]


@pytest.mark.parametrize(("name", "value"), _WRONG_TYPES)
def test_an_option_of_another_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=rf"^The option '{name}' must be .*, not {type(value).__name__}\.$"):
        resolve({name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, value in _WRONG_TYPES if name in DEFAULTS])
def test_a_setting_of_another_type_is_named(name: str, value: Any) -> None:
    setting = f"DUALSTORAGE_{name.upper()}"
    with (
        override_settings(**{setting: value}),
        pytest.raises(ConfigurationError, match=rf"^The setting {setting} must be .*, not {type(value).__name__}\.$"),
    ):
        resolve({})


@pytest.mark.parametrize(("name", "value"), [("PHASE_TTL", "3"), ("REPORT_INTERVAL", True), ("DATABASE", 5)])
def test_a_setting_that_no_storage_has_of_its_own_is_checked_too(name: str, value: Any) -> None:
    with (
        override_settings(**{f"DUALSTORAGE_{name}": value}),
        pytest.raises(ConfigurationError, match=rf"^The setting DUALSTORAGE_{name} must be .*, not "),
    ):
        resolve({})


def test_a_setting_that_must_have_a_value_is_named() -> None:
    with (
        override_settings(DUALSTORAGE_GRACE=None),
        pytest.raises(ConfigurationError, match="DUALSTORAGE_GRACE must be"),
    ):
        resolve({})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("provider", "gcs", "'gcs' is not a provider; there are aws,"),
        ("phase", "both", "'both' is not a phase; the phases are filesystem,"),
        ("s3_writes", "later", "'s3_writes' is 'later'; it can be inline or deferred"),
        ("connect_timeout", 0, "'connect_timeout' must be more than zero, not 0"),
        ("read_timeout", -1.5, "'read_timeout' must be more than zero, not -1.5"),
        ("breaker_failures", 0, "'breaker_failures' must be more than zero"),
        ("breaker_interval", -1, "'breaker_interval' must not be negative, and is -1"),
        ("lock_timeout", float("nan"), "'lock_timeout' must not be negative, and is nan"),
        ("grace", -1, "'grace' must not be negative"),
    ],
)
def test_a_value_that_cannot_be_used_is_told(name: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        resolve({name: value})
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        DualWriteStorage(**{name: value})


def test_the_s3_part_is_kept_as_it_is_and_never_shows_itself() -> None:
    s3 = {"bucket_name": "media", "secret_key": "sentinel"}
    options = resolve({"s3": s3})
    assert options.s3 == s3
    assert "sentinel" not in repr(options)
    assert "sentinel" not in repr(dataclasses.replace(options, fsync=True))


def test_a_site_that_has_not_installed_the_app_is_told_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wiring, "_warned_of_app", False)
    assert DualWriteStorage(tmp_path, phase="filesystem").exists("a.txt") is False
    assert caplog.text == ""
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_dualstorage"]
    for _ in range(2):
        assert DualWriteStorage(tmp_path, phase="filesystem").exists("a.txt") is False
    assert caplog.text.count("django_dualstorage is not in INSTALLED_APPS") == 1


# -- the documentation -------------------------------------------------------------------------------------------------


def _documented() -> dict[str, str]:
    """What settings.rst says of each option, by its name. GitHub shows these lists, but nothing of Sphinx's."""
    return dict(re.findall(r"^``([a-z0-9_]+)``\n((?:\n|[ ]+.*\n)+)", REFERENCE, re.MULTILINE))


def test_every_option_is_documented_and_no_other() -> None:
    own = {"location", "base_url", "file_permissions_mode", "directory_permissions_mode", "allow_overwrite"}
    assert set(_documented()) == {*OPTION_TYPES, *own}


def test_every_setting_is_documented_and_no_other() -> None:
    documented = set(re.findall(r"DUALSTORAGE_[A-Z0-9_]+", REFERENCE))
    assert documented == {name for name in dir(site_settings) if name.startswith("DUALSTORAGE_")}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_documentation_has_type_default_and_setting(name: str) -> None:
    text = _documented()[name]
    default, _ = DEFAULTS[name]
    types = " or ".join(kind.__name__ for kind in OPTION_TYPES[name])
    assert text.startswith(f"   {types}, by default ``{default!r}``. Setting: ``DUALSTORAGE_{name.upper()}``.\n\n")


@pytest.mark.parametrize("word", [*PROVIDERS, *(phase.value for phase in LADDER)])
def test_every_provider_and_phase_is_named_in_the_documentation(word: str) -> None:
    assert f"``{word}``" in REFERENCE


def test_every_variable_of_the_environment_is_documented() -> None:
    source = Path(storage_from_env.__code__.co_filename).read_text()
    asked = set(re.findall(r'"((?:USE|AWS|MINIO|DUALSTORAGE)_[A-Z0-9_]+)"', source))
    table = REFERENCE[REFERENCE.index("storage_from_env") :]
    assert asked == set(re.findall(r"^``([A-Z0-9_]+)``", table, re.MULTILINE))
