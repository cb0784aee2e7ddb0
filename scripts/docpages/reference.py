"""The reference of the public API, from the signatures and docstrings of the source.

It reads the syntax of the modules and imports nothing, so that it needs neither servers nor installed packages.
"""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_MARK = "<!-- Generated, do not edit: scripts/generate-docs -->"

_INDEX = "docs/reference.md"
_REGISTRATION = "orchestrator.db.registration"

_HEAD = f"""# Public API

{_MARK}

These names, the [messages](messages.md), the [settings](settings.md), the command line with its JSON, the tables of the
database and the [error classes](errors.md) are public: they change only with a version and an entry in the
[changelog](../CHANGELOG.md). **Everything else is private** and may change at any time.
"""


@dataclass(frozen=True)
class Page:
    """One page of the reference: its title, and the public names of some modules."""

    name: str
    title: str
    modules: dict[str, tuple[str, ...]]


PAGES = (
    Page(
        "workflows",
        "Steps and workflows",
        {
            "orchestrator.workflow": (
                *("step", "retrystep", "inputstep", "conditional", "step_group", "callback_step", "workflow", "again"),
                *("begin", "init", "done", "StepList"),
            ),
            "orchestrator.workflows": ("LazyWorkflowInstance",),
            "orchestrator.retry": ("RetryPolicy",),
        },
    ),
    Page(
        "subscription-workflows",
        "Workflows on subscriptions",
        {
            "orchestrator.workflows.utils": (
                *("create_workflow", "modify_workflow", "terminate_workflow"),
                *("validate_workflow", "reconcile_workflow", "task", "ensure_provisioning_status"),
            ),
            "orchestrator.workflows.steps": (
                *("store_process_subscription", "set_status", "unsync", "unsync_unchecked", "resync"),
            ),
            "orchestrator.workflows.pages": ("product_choice", "subscription_choice"),
            "orchestrator.services.subscriptions": (
                *("WF_USABLE_MAP", "WF_BLOCKED_BY_IN_USE_BY_SUBSCRIPTIONS", "WF_USABLE_WHILE_OUT_OF_SYNC"),
            ),
        },
    ),
    Page(
        "finding",
        "Find subscriptions and read products",
        {
            "orchestrator.services.subscriptions": ("list_subscriptions", "find_subscriptions", "find_blocks_using"),
            "orchestrator.services.products": ("get_product_by_id", "get_product_by_name", "Product"),
        },
    ),
    Page(
        "schedules",
        "Schedules, many starts, and conditions for starts",
        {
            "orchestrator.workflows": ("Schedule",),
            "orchestrator.workflows.steps": ("start_processes", "StartedProcesses"),
            "orchestrator.workflows.predicates": ("no_uncompleted_instance",),
        },
    ),
    Page(
        "models",
        "Models",
        {"orchestrator.domain": ("SubscriptionModel", "ProductBlockModel", "SUBSCRIPTION_MODEL_REGISTRY", "explain")},
    ),
    Page(
        "types",
        "Types, forms and errors for authors",
        {
            "orchestrator.types": ("State", "ProcessStatus", "StepStatus", "SubscriptionLifecycle", "Assignee"),
            "orchestrator.targets": ("Target",),
            "orchestrator.forms": ("FormPage", "FormGenerator", "AsyncFormGenerator"),
            "orchestrator.errors": (
                *("OrchestratorError", "DefinitionError", "ProcessFailureError", "CommitNotAllowedError"),
            ),
        },
    ),
    Page(
        "testing",
        "Tests of workflows",
        {
            "orchestrator.testing": (
                *("Engine", "ProcessUnderTest", "run_form_generator"),
                *("open_database", "open_engine", "WorkflowDatabase"),
            ),
        },
    ),
    Page(
        "test-assertions",
        "Assertions about processes",
        {
            "orchestrator.testing": (
                *("assert_complete", "assert_suspended", "assert_waiting", "assert_awaiting_callback", "assert_failed"),
                *("assert_aborted", "assert_status", "assert_step_name", "assert_assignee"),
                *("assert_state", "assert_state_equal", "extract_state", "extract_error", "describe"),
            ),
        },
    ),
    Page("product-migrations", "Helpers for migrations of products", {_REGISTRATION: ()}),
    Page("block-migrations", "Helpers for migrations of product blocks", {_REGISTRATION: ()}),
    Page("workflow-migrations", "Helpers for migrations of workflows", {_REGISTRATION: ()}),
)

_ENGINE_ONLY = {"as_stored", "mark_as_stored"}
"""Methods of models that only the engine calls, from other packages."""


@dataclass(frozen=True)
class Found:
    """The definition of a name: its syntax, the module that has it, and a docstring that stands below an assignment."""

    node: ast.stmt
    module: str
    below: str | None


class Source:
    """The modules below a folder, as syntax."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @cache  # noqa: B019 - a source lives as long as the program
    def tree(self, module: str) -> ast.Module:
        """Return the syntax of a module or package."""
        path = self._root.joinpath(*module.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        return ast.parse(file.read_text())

    def exported(self, module: str) -> tuple[str, ...]:
        """Return the names in ``__all__``."""
        for node in self.tree(module).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return tuple(ast.literal_eval(node.value))
        return ()

    def find(self, module: str, name: str) -> Found:
        """Return where a name is defined, through imports.

        Raises:
            LookupError: the module does not have it.
        """
        body = self.tree(module).body
        for position, node in enumerate(body):
            if _defines(node, name):
                after = body[position + 1] if position + 1 < len(body) else None
                return Found(node, module, _text_of(after))
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        ours = node.module.startswith("orchestrator")
                        return self.find(node.module, alias.name) if ours else Found(node, module, None)
        raise LookupError(f"{module} has no {name}")

    def members(self, found: Found) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
        """Return the public, documented methods and properties of a class and of its bases in the engine."""
        assert isinstance(found.node, ast.ClassDef)  # noqa: S101 - callers have asked
        members = {
            node.name: node
            for node in found.node.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and not node.name.startswith("_")
            and ast.get_docstring(node)
        }
        for base in found.node.bases:
            name = ast.unparse(base).partition("[")[0]
            try:
                inherited = self.find(found.module, name)
            except LookupError:
                continue
            if isinstance(inherited.node, ast.ClassDef):
                members = {**self.members(inherited), **members}
        return members


def _defines(node: ast.stmt, name: str) -> bool:
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return node.name == name
    if isinstance(node, ast.AnnAssign):
        return ast.unparse(node.target) == name
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name


def _text_of(node: ast.stmt | None) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return None


def _signature(name: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = ast.unparse(node.args)
    arguments = re.sub(r"^(self|cls)(, |$)", "", arguments)
    arguments = re.sub(r"(?<=\S)=(?=\S)", " = ", arguments)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    decorators = {ast.unparse(one) for one in node.decorator_list}
    if decorators & {"contextmanager", "asynccontextmanager"}:
        returns = re.sub(r"(?:Async)?Iterator\[(.*)\]$", r"\1", returns).removesuffix(" -> None")
        waited = "async with " if "asynccontextmanager" in decorators else "with "
    else:
        waited = "await " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{waited}{name}({arguments}){returns}"


def _prose(docstring: str) -> list[str]:
    """Return a docstring as Markdown: sections as lists, roles and doubled backquotes as code."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring).replace("``", "`")
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        title = re.fullmatch(r"(Args|Raises|Returns|Yields):", line.strip())
        if title:
            section = title.group(1)
            if len(lines) > 1 and lines[-2].startswith(("*", "  ")):
                lines.pop()  # one list, without a blank line between arguments and errors
        elif section and re.match(r" {4}\S", line):
            name, _, rest = line.strip().partition(":")
            names = ", ".join(f"`{one}`" for one in name.split(", "))
            verb = {"Raises": "raises "}.get(section, "")
            lines.append(
                f"* {verb}{names}:{rest}" if rest and re.fullmatch(r"\*{0,2}[\w., ]+", name) else f"* {line.strip()}"
            )
        elif section and line.strip():
            lines.append(f"  {line.strip()}")
        else:
            section = section if not line.strip() else ""
            lines.append(line.rstrip().replace("::", ":") if line.endswith("::") else line.rstrip())
    return lines


def _entry(source: Source, module: str, name: str) -> list[str]:
    found = source.find(module, name)
    node = found.node
    lines = [f"### {name}", ""]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [*lines, f"`{_signature(name, node)}`", "", *_prose(ast.get_docstring(node) or ""), ""]
    if isinstance(node, ast.ClassDef):
        lines += [*_prose(ast.get_docstring(node) or ""), ""]
        values = [one for one in node.body if isinstance(one, ast.Assign) and isinstance(one.value, ast.Constant)]
        if values and all(ast.unparse(base) == "StrEnum" for base in node.bases):
            lines += [f"Members: {', '.join(f'`{ast.unparse(one.targets[0])}`' for one in values)}.", ""]
            return lines
        for member, method in source.members(found).items():
            if member in _ENGINE_ONLY:
                continue
            is_property = any("property" in ast.unparse(one) for one in method.decorator_list)
            signature = member if is_property else _signature(member, method)
            first = " ".join((ast.get_docstring(method) or "").split("\n\n")[0].split())
            lines.append(f"* `{signature}`: {first.replace('``', '`')}")
        return [*lines, ""]
    if isinstance(node, ast.ImportFrom):
        return [*lines, f"From `{node.module}`.", ""]
    return [*lines, *_prose(found.below or f"`{ast.unparse(node)}`"), ""]


def _names(source: Source, page: Page, module: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a page; of ``orchestrator.db.registration`` all that are of the page's kind."""
    return names or tuple(name for name in source.exported(module) if f"{_kind(name)}-migrations" == page.name)


def _kind(helper: str) -> str:
    if re.search("workflow|task", helper):
        return "workflow"
    return (
        "block" if re.search("block|resource|values", helper) and not helper.endswith("product_blocks") else "product"
    )


def pages(root: Path) -> dict[str, str]:
    """Return the index and the pages of the reference."""
    source = Source(root)
    index = [_HEAD]
    written = {}
    for page in PAGES:
        lines = [f"# {page.title}", "", _MARK, ""]
        index += [f"## {page.title}", ""]
        for module, wanted in page.modules.items():
            names = _names(source, page, module, wanted)
            lines += [f"## `{module}`", ""]
            for name in names:
                lines += _entry(source, module, name)
            links = ", ".join(f"[`{name}`](reference/{page.name}.md#{name.lower()})" for name in names)
            index += [f"* `{module}`: {links}"]
        index += [""]
        text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"
        written[f"docs/reference/{page.name}.md"] = text
    return {_INDEX: "\n".join(index).rstrip() + "\n", **written}
