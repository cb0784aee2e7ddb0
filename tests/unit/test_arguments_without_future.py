# Without ``from __future__ import annotations`` on purpose: annotations are objects here, not strings.
"""B32: annotations that are types and annotations that are strings mean the same."""

from typing import Optional, Union  # the older spelling is what many authors write
from uuid import UUID

import pytest

from orchestrator.engine.arguments import Arguments

ID = "6f1e0a52-93d4-4f2c-8e5e-0d8f7a3b1c9d"


def real(x: UUID) -> None: ...
def string(x: "UUID") -> None: ...
def half(x: list["UUID"]) -> None: ...
def older(x: Optional[UUID]) -> None: ...  # noqa: UP045
def older_union(x: Union[UUID, int, None]) -> None: ...  # noqa: UP007


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (real, ID, UUID(ID)),
        (string, ID, UUID(ID)),
        (half, [ID], [UUID(ID)]),
        (older, ID, UUID(ID)),
        (older_union, ID, UUID(ID)),
    ],
)
def test_an_annotation_may_be_a_type_a_string_or_both(function: object, value: object, expected: object) -> None:
    assert callable(function)
    assert Arguments.of(function, "the step 's'").fill({"x": value}, {}) == {"x": expected}


@pytest.mark.parametrize("function", [older, older_union])
def test_the_older_spelling_of_optional_may_be_missing_as_well(function: object) -> None:
    assert callable(function)
    assert Arguments.of(function, "the step 's'").fill({}, {}) == {"x": None}
