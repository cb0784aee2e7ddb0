"""Find time zones by their IANA names, and convert wall times to UTC.

The tables are installation data, as code is: the system's, or those of the ``tzdata`` package where the system has none.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

from orchestrator.errors import InvalidInputError

_NOT_PORTABLE = {"Factory", "localtime", "posixrules"}
"""Zone names whose meaning depends on the machine."""

_EVERYWHERE = "UTC"
"""A zone in all tables, the default of schedules. It is accepted without listing all zones, which would take longest."""

_VERSION = "# version "

_SHOWN = 60
"""The most characters of an invalid value that an error quotes."""


def find_zone(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name, such as ``Europe/Amsterdam``.

    Raises:
        InvalidInputError: there is none with this name; upper and lower case count.
    """
    if name != _EVERYWHERE and name not in _names():
        raise invalid("zone", name, "is no time zone: use an IANA name, such as 'Europe/Amsterdam' or 'UTC'")
    return ZoneInfo(name)


@cache
def find_rules() -> str:
    """Return the versions of the time zone tables: of each folder that has some, or of the package."""
    folders = [Path(one) for one in zoneinfo.TZPATH if Path(one).is_dir()]
    return " ".join(_read_version(one) for one in folders) or f"tzdata {version('tzdata')}"


def _read_version(folder: Path) -> str:
    """Return the version that a folder of tables says it has; otherwise a digest of them."""
    try:
        with (folder / "tzdata.zi").open(encoding="utf-8") as file:
            first = file.readline()
    except (OSError, ValueError):
        first = ""
    if first.startswith(_VERSION):
        return first.removeprefix(_VERSION).strip()
    digest = sha256()
    for one in sorted(folder.rglob("*")):
        if one.is_file():
            digest.update(f"{one.relative_to(folder)}\n".encode() + one.read_bytes())
    return digest.hexdigest()[:16]


def invalid(field: str, value: object, problem: str) -> InvalidInputError:
    """Return the error for a field of a trigger; its text names the field and quotes the value, shortened."""
    written = repr(value)
    quoted = written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…"
    text = f"{quoted} {problem}"
    return InvalidInputError(f"{field}: {text}", [{"loc": (field,), "msg": text, "type": "value_error"}])


def to_wall(instant: datetime, zone: ZoneInfo) -> datetime:
    """Return what a clock on the wall shows at an instant, without a zone."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def to_instants(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return the two instants that a wall time could be, by the offset before and by the offset after a change.

    They are equal, when the wall time exists once. The first is earlier, when it exists twice; later, when it does not exist.
    """
    before, after = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return before, after


def find_change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the first second after ``low``, up to ``high``, at which the zone's offset is another one than at ``low``."""
    offset = low.astimezone(zone).utcoffset()
    first, last = 0, round((high - low).total_seconds())
    while last - first > 1:
        middle = (first + last) // 2
        if (low + timedelta(seconds=middle)).astimezone(zone).utcoffset() == offset:
            first = middle
        else:
            last = middle
    return low + timedelta(seconds=last)


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones() - _NOT_PORTABLE)
