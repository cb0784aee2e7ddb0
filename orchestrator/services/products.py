"""Read products: what forms and steps ask of the one that they work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from orchestrator.db.subscriptions import StoredProduct, load_product
from orchestrator.db.subscriptions.finding import find_product_id
from orchestrator.db.thread_session import either
from orchestrator.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Product:
    """A product with its fixed inputs, whose values are texts."""

    product_id: UUID
    name: str
    description: str
    product_type: str
    tag: str
    status: str
    fixed_inputs: Mapping[str, str]

    def fixed_input_value(self, name: str) -> str:
        """Return the value of a fixed input.

        Raises:
            NotFoundError: the product has no such fixed input.
        """
        if name not in self.fixed_inputs:
            known = ", ".join(sorted(self.fixed_inputs)) or "none"
            raise NotFoundError(f"the product {self.name!r} has no fixed input {name!r} (it has: {known})")
        return self.fixed_inputs[name]


@either
async def get_product_by_id(session: AsyncSession, product_id: UUID | str) -> Product:
    """Read a product with its fixed inputs.

    Raises:
        NotFoundError: there is none.
    """
    return _product(await load_product(session, product_id))


@either
async def get_product_by_name(session: AsyncSession, name: str) -> Product:
    """Read the product of this name with its fixed inputs.

    Raises:
        NotFoundError: there is none.
    """
    product_id = await find_product_id(session, name)
    if product_id is None:
        raise NotFoundError(f"there is no product {name!r}")
    return _product(await load_product(session, product_id))


def _product(found: StoredProduct) -> Product:
    row = {name: str(value) for name, value in found.product.items()}
    return Product(
        UUID(row["product_id"]),
        row["name"],
        row["description"],
        row["product_type"],
        row["tag"],
        row["status"],
        dict(found.fixed_inputs),
    )
