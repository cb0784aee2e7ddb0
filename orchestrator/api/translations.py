"""Labels of forms' fields in the languages of a project: a folder with a JSON file for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.errors import ConfigurationError
from orchestrator.text import format_message, format_problem

logger = structlog.get_logger(__name__)

MAX_BYTES: Final = 4 * 1024**2
"""Of a file."""


class _Forms(BaseModel):
    model_config = ConfigDict(extra="allow")

    fields: dict[str, str] = {}


class _Texts(BaseModel):
    model_config = ConfigDict(extra="allow")

    forms: _Forms = _Forms()


class Translations:
    """Reads the files of a folder, whenever a page asks, so that a changed one needs no restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def of(cls, folder: str) -> Translations:
        """Return the translations in a folder, which need not exist, once each file in it can be read.

        Raises:
            ConfigurationError: one cannot; the text names it.
        """
        found = cls(Path(folder))
        for path in sorted(found._folder.glob("*.json")):
            try:
                _read(path)
            except ValueError as error:
                raise ConfigurationError(f"ORCHESTRATOR_TRANSLATIONS: {path}: {error}") from None
        return found

    def read(self, locale: str) -> dict[str, Any]:
        """Return the texts of a language: those of ``en-GB.json``, or else of ``en.json``; where there are none, none.

        Args:
            locale: a language's tag, letters, digits and hyphens alone.
        """
        for name in (locale, locale.partition("-")[0]):
            path = self._folder / f"{name}.json"
            try:
                return _read(path)
            except FileNotFoundError:
                continue
            except ValueError as error:
                logger.warning("a translation cannot be read", file=str(path), error=str(error))
        return _Texts().model_dump()


def _read(path: Path) -> dict[str, Any]:
    """Return what a file has.

    Raises:
        FileNotFoundError.
        ValueError: it has something else than texts of fields.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES // 1024**2} MiB")
        return _Texts.model_validate_json(path.read_bytes()).model_dump()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(format_message(error)) from error
    except ValidationError as error:
        (problem, *_) = error.errors(include_url=False, include_input=False)
        place = ".".join(map(str, problem["loc"]))
        raise ValueError(f"{place + ': ' if place else ''}{format_problem(problem)}") from None
