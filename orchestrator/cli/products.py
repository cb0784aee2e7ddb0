"""List products: ``orchestrator products``."""

from __future__ import annotations

from orchestrator.cli.context import CliContext, execute
from orchestrator.cli.options import AsJson
from orchestrator.cli.output import clean, coloured
from orchestrator.db import metadata


def products(as_json: AsJson = False) -> None:
    """List the products. Wherever one is asked for, its name will do."""

    async def body(context: CliContext) -> None:
        async with context.database() as database, database.transaction() as session:
            found = await metadata.list_metadata(session, metadata.PRODUCTS)
        context.output.document(found)
        context.output.table(
            ("id", "product", "type", "tag", "status", "fixed inputs", "create with", "description"),
            [
                (
                    str(one["product_id"]),
                    clean(one["name"]),
                    clean(one["product_type"]),
                    clean(one["tag"]),
                    coloured(one["status"]),
                    clean(", ".join(f"{pair['name']}={pair['value']}" for pair in one["fixed_inputs"])),
                    clean(", ".join(flow["name"] for flow in one["workflows"] if flow["target"] == "CREATE")),
                    clean(one["description"], limit=80),
                )
                for one in found
            ],
            prose="description",
            empty="no products: a migration registers them ('orchestrator db migrate-domain-models' writes it)",
        )

    execute(body, as_json=as_json)
