"""What the core decides with are values: equal if their fields are, and never changed; the type checker sees to the second."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from orchestrator.engine.values import value


@value(frozen=True, slots=True)
class Quick:
    number: int
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    number: int
    text: str | None = None


def test_a_value_compares_hashes_and_shows_like_a_frozen_dataclass() -> None:
    one = Quick(1, "a")

    assert one == Quick(1, "a") != Quick(2, "a")
    assert hash(one) == hash(Frozen(1, "a"))
    assert repr(one) == "Quick(number=1, text='a')"
    assert replace(one, text=None) == Quick(1)


def test_a_value_has_no_other_fields() -> None:
    one, name = Quick(1), "colour"
    with pytest.raises(AttributeError):
        setattr(one, name, "red")
