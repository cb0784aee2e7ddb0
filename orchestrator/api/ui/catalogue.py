"""Products and workflows: what there is, and how many processes stand at which step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from orchestrator.api.ui.listing import Text
from orchestrator.api.ui.page import Page, PageRouter, visit
from orchestrator.authorization import Role
from orchestrator.db import metadata
from orchestrator.db.processes.counts import StepCount, count_steps
from orchestrator.errors import DefinitionError, NotFoundError
from orchestrator.registry import plan_of
from orchestrator.text import NO_NULL
from orchestrator.workflow import Block, Step, StepKind, StepList

router = PageRouter()

Reader = Annotated[Page, visit(Role.READ)]
Named = Annotated[str, Path(max_length=300, pattern=NO_NULL)]

_MARKERS = (StepKind.START, StepKind.DONE)


@dataclass(frozen=True, slots=True)
class DrawnStep:
    """A step, or a block of steps, as a workflow's page draws it.

    Args:
        kind: the step's kind, or the block's.
        counts: processes that stand at it.
        steps: of a block.
    """

    name: str
    kind: str
    assignee: str
    queue: str
    is_conditional: bool
    counts: tuple[StepCount, ...] = ()
    steps: tuple[DrawnStep, ...] = ()


@router.get("/products")
async def list_products(page: Reader, q: Text = "") -> Response:
    """Show the products whose name, type or tag has a text."""
    async with page.context.transaction() as session:
        rows = await metadata.list_metadata(session, metadata.PRODUCTS)
    found = [row for row in rows if _has(q, row["name"], row["product_type"], row["tag"], row["description"])]
    return await page.render("products.html", rows=found, q=q)


@router.get("/products/{product}")
async def show_product(page: Reader, product: Named) -> Response:
    """Show a product with its blocks, fixed inputs and workflows."""
    async with page.context.transaction() as session:
        row = await metadata.read_metadata(session, metadata.PRODUCTS, product)
        blocks = {one["name"]: one for one in await metadata.list_metadata(session, metadata.BLOCKS)}
    return await page.render("product.html", row=row, blocks=[blocks[one["name"]] for one in row["product_blocks"]])


@router.get("/workflows")
async def list_workflows(page: Reader, q: Text = "", target: Text = "") -> Response:
    """Show the workflows whose name or description has a text."""
    async with page.context.transaction() as session:
        rows = await metadata.list_metadata(session, metadata.WORKFLOWS)
    targets = sorted({row["target"] for row in rows})
    found = [row for row in rows if _has(q, row["name"], row["description"]) and target in {"", row["target"]}]
    return await page.render("workflows.html", rows=found, q=q, target=target, targets=targets)


@router.get("/workflows/{workflow}")
async def show_workflow(page: Reader, workflow: Named) -> Response:
    """Show a workflow with its steps, and how many processes stand at each."""
    async with page.context.transaction() as session:
        row = await metadata.read_metadata(session, metadata.WORKFLOWS, workflow)
        counts = await count_steps(session, row["name"])
    try:
        found, problem = plan_of(row["name"]).workflow, ""
    except (NotFoundError, DefinitionError) as error:
        found, problem = None, str(error)
    steps = () if found is None else draw_steps(found.steps, found.default_queue, counts)
    here = _list_names(steps)
    return await page.render(
        "workflow.html",
        row=row,
        problem=problem,
        steps=steps,
        description=row["description"] or (found.description if found else ""),
        elsewhere=[one for one in counts if one.step not in here],
    )


def draw_steps(steps: StepList, queue: str, counts: Sequence[StepCount]) -> tuple[DrawnStep, ...]:
    """Return the steps of a workflow, or of a block, without the marks of its beginning and end.

    Args:
        queue: of steps that name none.
    """
    return tuple(_draw(one, queue, counts) for one in steps if isinstance(one, Block) or one.kind not in _MARKERS)


def _draw(one: Step | Block, queue: str, counts: Sequence[StepCount]) -> DrawnStep:
    if isinstance(one, Block):
        return DrawnStep(
            one.name, one.kind.value, "", "", bool(one.conditions), steps=draw_steps(one.steps, queue, counts)
        )
    own = tuple(count for count in counts if count.step == one.name)
    return DrawnStep(one.name, one.kind.value, one.assignee or "", one.queue or queue, bool(one.conditions), own)


def _list_names(steps: Sequence[DrawnStep]) -> frozenset[str]:
    return frozenset(one.name for one in steps).union(*(_list_names(one.steps) for one in steps))


def _has(query: str, *texts: str | None) -> bool:
    """Return whether each word of a query stands in one of these texts."""
    whole = " ".join(text or "" for text in texts).lower()
    return all(word in whole for word in query.lower().split())
