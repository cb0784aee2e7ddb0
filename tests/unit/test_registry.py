"""B13: which workflows the code holds; modules are imported on first use and a broken one is named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orchestrator
from orchestrator import registry
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.registry import (
    LazyWorkflowInstance,
    import_modules,
    known_workflows,
    plan_of,
    products_of,
    ships_with_engine,
    step_queues,
)
from orchestrator.workflow import DEFAULT_QUEUE, TASK_QUEUE
from orchestrator.workflows.shipped import load_workflows

GOOD = """
from orchestrator.workflow import begin, step, workflow

@step("Greet")
def greet() -> None: ...

@workflow("Say hello")
def hello():
    return begin >> greet

not_a_workflow = 5
"""

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module that can be imported; afterwards the registry and the modules are as before."""
    monkeypatch.setattr(registry, "_instances", {})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write_module(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_registering_a_workflow_imports_nothing(write: Write) -> None:
    module = write("good_module", GOOD)

    LazyWorkflowInstance(module, "hello")

    assert module not in sys.modules
    assert list(known_workflows()) == ["hello"]


def test_the_plan_is_made_on_first_use_and_kept(write: Write) -> None:
    LazyWorkflowInstance(write("good_module", GOOD), "hello")

    plan = plan_of("hello")

    assert plan.workflow.description == "Say hello"
    assert plan_of("hello") is plan


def test_an_unknown_workflow_is_refused_with_the_known_ones(write: Write) -> None:
    LazyWorkflowInstance("anywhere", "hello")
    LazyWorkflowInstance("anywhere", "create")

    with pytest.raises(NotFoundError) as caught:
        plan_of("other")

    assert str(caught.value) == (
        "the workflow 'other' is not known to this program: no LazyWorkflowInstance of that name in the modules of"
        " ORCHESTRATOR_WORKFLOWS (known: create, hello)"
    )


def test_with_no_workflow_at_all_the_text_says_so(write: Write) -> None:
    with pytest.raises(NotFoundError, match=r"\(known: none\)"):
        plan_of("other")


def test_one_name_in_two_modules_is_refused(write: Write) -> None:
    """B21: the text names both."""
    LazyWorkflowInstance("first", "hello")

    with pytest.raises(DefinitionError) as caught:
        LazyWorkflowInstance("second", "hello")

    assert str(caught.value) == "the workflow 'hello' is registered twice: in 'first' and in 'second'"


def test_registering_the_same_again_is_harmless(write: Write) -> None:
    """A module may be imported under two names, or again after an error."""
    module = write("good_module", GOOD)
    LazyWorkflowInstance(module, "hello")

    LazyWorkflowInstance(module, "hello")

    assert plan_of("hello").workflow.name == "hello"


@pytest.mark.parametrize(
    ("text", "function", "message"),
    [
        (
            "raise RuntimeError('no licence')",
            "hello",
            "the module 'broken_module' cannot be imported: RuntimeError: no licence",
        ),
        ("import nowhere_at_all", "hello", "cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def hello(:", "hello", "the module 'broken_module' cannot be imported: SyntaxError"),
        (
            "from orchestrator.workflow import step\nstep('')(print)",
            "hello",
            "the module 'broken_module' cannot be used: a step needs a name, not ''",
        ),
        (GOOD, "goodbye", "the module 'broken_module' has no workflow 'goodbye': there is no such name"),
        (
            GOOD,
            "not_a_workflow",
            "the module 'broken_module' has no workflow 'not_a_workflow': it is 5; decorate it with @workflow(...)",
        ),
    ],
)
def test_a_broken_module_is_named_when_its_workflow_is_used(
    write: Write, text: str, function: str, message: str
) -> None:
    instance = LazyWorkflowInstance(write("broken_module", text), function)

    for _ in range(2):  # and again: a half-imported module must not look whole
        with pytest.raises(DefinitionError) as caught:
            instance.plan()
        assert message in str(caught.value)


def test_of_a_module_with_several_workflows_only_the_wrong_one_is_blamed(write: Write) -> None:
    wrong = """
from orchestrator.workflow import begin, step, workflow

@workflow("Is fine")
def fine():
    return begin >> step("One")(print)

@workflow("Is not", authorize_callback="everybody")
def hidden():
    return begin >> step("One")(print)
"""
    module = write("broken_module", wrong)
    told = set()
    for name in ("fine", "hidden"):
        with pytest.raises(DefinitionError) as caught:
            LazyWorkflowInstance(module, name).plan()
        told.add(str(caught.value))

    (text,) = told
    assert "'hidden'" in text
    assert "'fine'" not in text


def test_a_missing_module_is_named(write: Write) -> None:
    LazyWorkflowInstance("nowhere_at_all", "hello")

    with pytest.raises(DefinitionError, match="the module 'nowhere_at_all' cannot be imported"):
        plan_of("hello")


def test_a_broken_module_does_not_stop_the_others(write: Write) -> None:
    LazyWorkflowInstance(write("broken_module", "1 / 0"), "broken")
    LazyWorkflowInstance(write("good_module", GOOD), "hello")

    with pytest.raises(DefinitionError):
        plan_of("broken")
    assert plan_of("hello").workflow.name == "hello"


def test_a_step_whose_parameters_cannot_be_filled_is_found_on_first_use(write: Write) -> None:
    text = GOOD.replace("def greet()", "def greet(*names)")
    LazyWorkflowInstance(write("good_module", text), "hello")

    with pytest.raises(DefinitionError, match="the step 'Greet' of 'hello' has the parameter"):
        plan_of("hello")


def test_the_users_modules_register_their_workflows_when_they_are_imported(write: Write) -> None:
    text = "from orchestrator.registry import LazyWorkflowInstance\nLazyWorkflowInstance('good_module', 'hello')"
    write("good_module", GOOD)

    import_modules([write("user_module", text)])

    assert list(known_workflows()) == ["hello"]
    assert "good_module" not in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "'user_module' of ORCHESTRATOR_WORKFLOWS cannot be imported: ZeroDivisionError: division by zero"),
        ("import nowhere_at_all", "No module named 'nowhere_at_all'; it was looked for in {folder}"),
        ("import orchestrator.nowhere", "No module named 'orchestrator.nowhere'; it was looked for in {package} ("),
        ("from orchestrator.workflow import step\nstep('')(print)", "a step needs a name, not ''"),
    ],
)
def test_a_users_module_that_cannot_be_imported_is_named(write: Write, text: str, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        import_modules([write("user_module", text)])

    package = Path(orchestrator.__file__).parent
    assert message.format(folder=sys.path[0], package=package) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ndef hello():\n    return 1 / 0", r"ZeroDivisionError: division by zero \(.*inner_module\.py, line 3\)"),
        ("def (:", r"SyntaxError: invalid syntax \(.*inner_module\.py, line 1\)"),
        ("import json\njson.loads('{')", r"JSONDecodeError: .* \(.*inner_module\.py, line 2\)"),
        ("from orchestrator.workflow import step\nstep('')(print)", r"not '' \(.*inner_module\.py, line 2\)"),
        (
            GOOD.replace("begin >> greet", "begin >> greet()"),
            r"'Step' object is not callable; write the name of the step or of the steps without parentheses \(.*\.py, line \d+\)",
        ),
    ],
)
def test_the_line_of_the_users_own_code_is_reported_wherever_the_error_was_raised(
    write: Write, text: str, message: str
) -> None:
    """Not that of the engine or of a library, and not that of the module which imports the wrong one."""
    write("inner_module", text)
    outer = write("user_module", "import inner_module\ninner_module.hello()")

    with pytest.raises(DefinitionError, match=message):
        import_modules([outer])
    LazyWorkflowInstance(outer, "hello")
    with pytest.raises(DefinitionError, match=message):
        plan_of("hello")


def test_an_instance_shows_where_the_workflow_lives(write: Write) -> None:
    assert repr(LazyWorkflowInstance("network.nodes", "create_node")) == (
        "LazyWorkflowInstance('network.nodes', 'create_node')"
    )


def test_a_workflow_may_name_the_products_that_have_it(write: Write) -> None:
    """B23: from which the command writes the migration that links them."""
    LazyWorkflowInstance("anywhere", "create_node", products=["Node P", "Node PE", "Node P"])
    LazyWorkflowInstance("anywhere", "hello")

    assert products_of("create_node") == ("Node P", "Node PE")
    assert products_of("hello") == ()
    with pytest.raises(NotFoundError, match="'other' is not known"):
        products_of("other")


@pytest.mark.parametrize("products", ["Node P", [""], [5], ["Node P", " "]])
def test_products_that_are_no_names_are_refused(write: Write, products: list[str]) -> None:
    with pytest.raises(DefinitionError, match=r"the products of the workflow 'create_node' are a list of names"):
        LazyWorkflowInstance("anywhere", "create_node", products=products)

    assert list(known_workflows()) == []


def test_the_engines_own_workflows_are_distinguished_from_the_users(write: Write) -> None:
    LazyWorkflowInstance("orchestrator.workflows.modify_note", "modify_note")
    LazyWorkflowInstance("orchestrator_of_mine", "mine")

    assert ships_with_engine("modify_note")
    assert not ships_with_engine("mine")


def test_workflows_that_ship_use_the_standard_queues_so_status_need_not_import_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_instances", {})
    load_workflows(())
    shipped = [name for name in known_workflows() if ships_with_engine(name)]

    assert "modify_note" in shipped
    assert step_queues() == set()
    assert {leaf.queue for name in shipped for leaf in plan_of(name).leaves} <= {DEFAULT_QUEUE, TASK_QUEUE}
