"""The table of names that ports import: each stands where the table says."""

from __future__ import annotations

import importlib

from pydantic_forms import types as types_of_forms

import orchestrator.types
from orchestrator.cli.ported_names import KEPT, MOVED, NOT_OFFERED, PACKAGES_NOT_OFFERED
from orchestrator.config.assignee import Assignee
from orchestrator.domain import ProductBlockModel, base
from orchestrator.errors import ProcessFailureError
from orchestrator.utils import errors


def test_each_name_that_is_kept_or_moved_can_be_imported_from_where_the_table_says() -> None:
    places = [f"{module}:{name}" for module, names in KEPT.items() for name in names] + list(MOVED.values())
    modules = {place.partition(":")[0] for place in places}
    imported = {module: importlib.import_module(module) for module in modules}

    assert [place for place in places if not hasattr(imported[place.partition(":")[0]], place.partition(":")[2])] == []


def test_each_name_has_one_answer() -> None:
    kept = [f"{module}:{name}" for module, names in KEPT.items() for name in names]
    names = [*kept, *MOVED, *NOT_OFFERED]

    assert sorted({name for name in names if names.count(name) > 1}) == []
    for table in (KEPT, *KEPT.values(), MOVED, NOT_OFFERED, PACKAGES_NOT_OFFERED):
        assert [name.split(":") for name in table] == sorted(name.split(":") for name in table)


def test_names_for_ports_are_the_same_objects_as_the_engines_own() -> None:
    assert base.ProductBlockModel is ProductBlockModel
    assert errors.ProcessFailureError is ProcessFailureError
    assert Assignee("SYSTEM") is orchestrator.types.Assignee.SYSTEM
    for name in KEPT["orchestrator.types"]:
        if hasattr(types_of_forms, name) and name not in {"JSON", "State"}:
            assert getattr(orchestrator.types, name) is getattr(types_of_forms, name)
