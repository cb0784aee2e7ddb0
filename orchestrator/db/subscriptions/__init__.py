"""Subscriptions and their blocks as rows: one statement reads all of one, two at most store what is different.

Everything that domain models ask of the database is imported from here.
"""

from __future__ import annotations

from orchestrator.db.subscriptions.blocks import (
    BlockReference,
    list_blocks_used_by,
    list_blocks_using,
)
from orchestrator.db.subscriptions.load import load, load_block, load_product
from orchestrator.db.subscriptions.rows import (
    Columns,
    Difference,
    FoundBlock,
    FoundSubscription,
    Links,
    StoredBlock,
    StoredProduct,
    StoredSubscription,
)
from orchestrator.db.subscriptions.store import store

__all__ = [
    "BlockReference",
    "Columns",
    "Difference",
    "FoundBlock",
    "FoundSubscription",
    "Links",
    "StoredBlock",
    "StoredProduct",
    "StoredSubscription",
    "list_blocks_used_by",
    "list_blocks_using",
    "load",
    "load_block",
    "load_product",
    "store",
]
