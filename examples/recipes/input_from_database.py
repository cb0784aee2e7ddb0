"""An input step: the form offers what the database has at the moment when a user opens it."""

from __future__ import annotations

from pydantic_forms.validators import Choice
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from examples.recipes.tables import Site
from orchestrator.errors import ProcessFailureError
from orchestrator.forms import AsyncFormGenerator, FormPage
from orchestrator.types import State
from orchestrator.workflow import StepList, done, init, inputstep, step, workflow


@inputstep("Choose the site", assignee="NOC")
async def choose_site(session: AsyncSession) -> AsyncFormGenerator:
    """Offer the sites that have a free rack. The function only builds the form and may be called any number of times."""
    sites = await session.scalars(select(Site).where(Site.free_racks > 0).order_by(Site.name))
    options = {site.name: (site.name, f"{site.name}: {site.free_racks} free") for site in sites}

    class Place(FormPage):
        site: Choice("Sites", options)  # type: ignore[valid-type]

    place = yield Place
    yield place.model_dump()


@step("Reserve a rack")
async def reserve_rack(session: AsyncSession, site: str) -> State:
    """Check again: between the form and this step another process may have taken the last rack."""
    found = await session.get_one(Site, site, with_for_update=True)
    if found.free_racks < 1:
        raise ProcessFailureError(f"{site} has no free rack any more")
    found.free_racks -= 1
    return {"left": found.free_racks}


@workflow("Place a router")
def place_router() -> StepList:
    """Ask, then reserve."""
    return init >> choose_site >> reserve_rack >> done
