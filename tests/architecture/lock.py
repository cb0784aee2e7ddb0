"""Check that requirements.lock is closed: installing exactly its lines, and resolving nothing, gives a complete installation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

Environment = Mapping[str, str]
"""The values of the marker variables, as in ``packaging.markers.default_environment()``."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of the lock."""

    version: Version
    marker: Marker | None

    def applies(self, environment: Environment) -> bool:
        """Return whether pip installs this line in an environment."""
        return self.marker is None or self.marker.evaluate(dict(environment))


Pins = Mapping[NormalizedName, Pin]
Wishes = Mapping[NormalizedName, Iterable[Requirement]]
"""What each package requires: the ``Requires-Dist`` lines of its metadata."""


def read_pins(lock: str) -> dict[NormalizedName, Pin]:
    """Return the pins of a requirements file in which each package has one version and its hashes.

    Raises:
        ValueError: a line pins no version, or a package has two lines.
    """
    pins: dict[NormalizedName, Pin] = {}
    for line in lock.replace("\\\n", " ").splitlines():
        text = line.partition(" --hash")[0].strip()
        if not text or text.startswith("#"):
            continue
        requirement = Requirement(text)
        specifiers = list(requirement.specifier)
        if len(specifiers) != 1 or specifiers[0].operator != "==":
            raise ValueError(f"{text!r} pins no version")
        name = canonicalize_name(requirement.name)
        if name in pins:
            raise ValueError(f"{name} has two lines")
        pins[name] = Pin(Version(specifiers[0].version), requirement.marker)
    return pins


def current_environment() -> dict[str, str]:
    """Return the values of the marker variables here."""
    return {name: str(value) for name, value in default_environment().items()}


def supported_environments() -> list[Environment]:
    """Return the environments that the lock is made for, as far as markers can tell them apart."""
    platforms = (
        {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
        {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
    )
    versions = ("3.11", "3.12", "3.13", "3.14")
    return [
        {**current_environment(), **platform, "python_version": version, "python_full_version": f"{version}.0"}
        for platform in platforms
        for version in versions
    ]


def find_gaps(roots: Iterable[Requirement], pins: Pins, wishes: Wishes, environment: Environment) -> Iterator[str]:
    """Yield what the lock lacks in one environment: for each requirement that it does not satisfy, one sentence.

    The requirements are the roots, those of each locked package, and those of each extra that any of them requests.

    Args:
        roots: what the project itself requires.
        pins: the lock.
        wishes: the requirements of the locked packages; a package that is not among them has none.
        environment: markers are evaluated for it.
    """
    applying = {name: pin for name, pin in pins.items() if pin.applies(environment)}
    open_requirements = [("the project", "", requirement) for requirement in roots]
    open_requirements += [(name, "", wish) for name in applying for wish in wishes.get(name, ())]
    extras_seen: set[tuple[str, str]] = set()
    while open_requirements:
        requirer, extra, requirement = open_requirements.pop()
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        origin = f"{requirer}[{extra}]" if extra else requirer
        pin = applying.get(name)
        if pin is None:
            yield f"{origin} requires {requirement}, which is not in the lock"
            continue
        if not requirement.specifier.contains(pin.version, prereleases=True):
            yield f"{origin} requires {requirement}, the lock has {pin.version}"
        for requested in requirement.extras - {seen for owner, seen in extras_seen if owner == name}:
            extras_seen.add((name, requested))
            open_requirements += [(name, requested, wish) for wish in wishes.get(name, ())]


def find_differences(
    installed: Mapping[NormalizedName, Version], pins: Pins, environment: Environment
) -> Iterator[str]:
    """Yield how an installation differs from the lock: what is installed and not locked, missing, or of another version."""
    expected = {name: pin.version for name, pin in pins.items() if pin.applies(environment)}
    for name in sorted({*installed, *expected}):
        if name not in expected:
            yield f"{name} {installed[name]} is installed and not in the lock"
        elif name not in installed:
            yield f"{name} {expected[name]} is in the lock and not installed"
        elif installed[name] != expected[name]:
            yield f"{name} {installed[name]} is installed, the lock has {expected[name]}"
