"""requirements.lock is complete, and .venv holds exactly what it lists. No network is needed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.metadata import Distribution, distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from tests.architecture.lock import (
    Environment,
    Pins,
    current_environment,
    find_differences,
    find_gaps,
    read_pins,
    supported_environments,
)
from tests.architecture.repository import text

PROJECT = canonicalize_name("orchestrator")
NOT_LOCKED = {PROJECT, canonicalize_name("pip")}
"""The checkout itself, and the installer, which comes with Python."""

LINUX = next(one for one in supported_environments() if one["sys_platform"] == "linux")


@pytest.fixture(scope="module")
def installed() -> dict[NormalizedName, Distribution]:
    return {canonicalize_name(one.metadata["Name"]): one for one in distributions()}


def project_requirements() -> list[Requirement]:
    """What pyproject.toml requires: to run, to develop, and to build."""
    document = tomllib.loads(text("pyproject.toml"))
    project = document["project"]
    lines = [*project["dependencies"], *document["build-system"]["requires"]]
    return [Requirement(line) for group in (lines, *project["optional-dependencies"].values()) for line in group]


def test_every_requirement_is_in_the_lock(installed: dict[NormalizedName, Distribution]) -> None:
    """Of the project, of each locked package, and of each extra that one of them requests."""
    pins = read_pins(text("requirements.lock"))
    wishes = {
        name: [Requirement(line) for line in installed[name].requires or ()] for name in pins if name in installed
    }

    gaps = {gap for one in supported_environments() for gap in find_gaps(project_requirements(), pins, wishes, one)}

    assert not gaps, "requirements.lock is not closed, run scripts/lock: " + "; ".join(sorted(gaps))


def test_what_is_installed_is_what_the_lock_lists(installed: dict[NormalizedName, Distribution]) -> None:
    versions = {name: Version(one.version) for name, one in installed.items() if name not in NOT_LOCKED}

    differences = list(find_differences(versions, read_pins(text("requirements.lock")), current_environment()))

    assert not differences, "delete .venv and run scripts/setup: " + "; ".join(differences)


# The checks themselves, on locks that are wrong


def pins(*lines: str) -> Pins:
    return read_pins("\n".join(lines))


def gaps(lock: Pins, wishes: Mapping[str, list[str]], *roots: str, environment: Environment = LINUX) -> list[str]:
    named = {canonicalize_name(name): [Requirement(line) for line in lines] for name, lines in wishes.items()}
    return list(find_gaps([Requirement(root) for root in roots], lock, named, environment))


def test_a_closed_lock_has_no_gap() -> None:
    """The case that broke set-up, when it is right: an extra of an extra's package."""
    wishes = {
        "forms": ["pydantic[email]>=2"],
        "pydantic": ["typing-extensions", 'email-validator>=2; extra == "email"', 'tzdata; extra == "timezone"'],
        "email-validator": ["dnspython>=2"],
    }
    lock = pins("Forms==1", "pydantic==2.14", "typing_extensions==4", "email-validator==2.4", "dnspython==2.9")

    assert gaps(lock, wishes, "forms>=1", "pydantic") == []


def test_a_missing_dependency_is_a_gap() -> None:
    assert gaps(pins("forms==1"), {"forms": ["pydantic>=2"]}) == [
        "forms requires pydantic>=2, which is not in the lock"
    ]


def test_a_missing_requirement_of_the_project_is_a_gap() -> None:
    assert gaps({}, {}, "rich>=13") == ["the project requires rich>=13, which is not in the lock"]


def test_a_missing_package_of_a_requested_extra_is_a_gap() -> None:
    wishes = {"forms": ["pydantic[email]"], "pydantic": ['email-validator>=2; extra == "email"']}

    assert gaps(pins("forms==1", "pydantic==2"), wishes) == [
        'pydantic[email] requires email-validator>=2; extra == "email", which is not in the lock'
    ]


def test_an_extra_that_nobody_requests_is_none() -> None:
    assert gaps(pins("pydantic==2"), {"pydantic": ['email-validator; extra == "email"']}, "pydantic") == []


def test_extras_that_request_each_other_come_to_an_end() -> None:
    wishes = {"a": ['a[two]; extra == "one"', 'a[one]; extra == "two"', 'b; extra == "two"']}

    assert gaps(pins("a==1"), wishes, "a[one]") == ['a[two] requires b; extra == "two", which is not in the lock']


@pytest.mark.parametrize(("locked", "is_gap"), [("2.13", True), ("2.14", False), ("3.0", True)])
def test_a_version_that_does_not_satisfy_is_a_gap(locked: str, is_gap: bool) -> None:
    found = gaps(pins("forms==1", f"pydantic=={locked}"), {"forms": ["pydantic<3,>=2.14"]})

    assert found == ([f"forms requires pydantic<3,>=2.14, the lock has {locked}"] if is_gap else [])


def test_a_requirement_whose_marker_is_false_is_none() -> None:
    old = {**LINUX, "python_version": "3.11"}
    wishes = {"forms": ['winreg; sys_platform == "win32"', 'backport; python_version < "3.12"']}

    assert gaps(pins("forms==1"), wishes, environment={**LINUX, "python_version": "3.12"}) == []
    assert gaps(pins("forms==1"), wishes, environment=old) == [
        'forms requires backport; python_version < "3.12", which is not in the lock'
    ]


def test_a_pin_whose_marker_is_false_satisfies_nothing() -> None:
    """``pip`` skips such a line; a requirement without that marker is then open."""
    lock = pins("forms==1", "colorama==0.4 ; sys_platform == 'win32'")

    assert gaps(lock, {"forms": ["colorama"]}) == ["forms requires colorama, which is not in the lock"]
    assert gaps(lock, {"forms": ['colorama; sys_platform == "win32"']}) == []


def test_hashes_and_names_of_the_lock_are_read() -> None:
    lock = read_pins(
        "Ruamel_Yaml==1.2 ; python_version >= '3' \\\n    --hash=sha256:ab \\\n    --hash=sha256:cd\nb==2 \\\n --hash=sha256:e\n"
    )

    assert {name: str(pin.version) for name, pin in lock.items()} == {"ruamel-yaml": "1.2", "b": "2"}


@pytest.mark.parametrize("line", ["pydantic>=2", "pydantic", "pydantic==2\npydantic==3"])
def test_a_lock_that_pins_nothing_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="pydantic"):
        read_pins(line)


def test_an_installation_that_differs_is_found() -> None:
    versions = {canonicalize_name(name): Version(version) for name, version in {"a": "1", "b": "1", "x": "9"}.items()}
    lock = pins("a==1", "b==2", "c==3", "d==4; sys_platform == 'win32'")

    assert list(find_differences(versions, lock, LINUX)) == [
        "b 1 is installed, the lock has 2",
        "c 3 is in the lock and not installed",
        "x 9 is installed and not in the lock",
    ]
