"""The workflows of the acceptance tests, registered as a user registers theirs.

Steps tell the tests what they do in two ways: in the table ``effects``, inside their transaction, and in a journal, at once.
"""

from __future__ import annotations

from orchestrator.workflows import LazyWorkflowInstance

_MODULES = {
    "basic": ("three_steps", "one_step", "chain", "long_chain", "mended", "holds", "pauses_here", "steady", "task_one"),
    "commits": ("tries_to_commit", "uses_savepoints", "breaks_a_constraint", "keeps_a_row"),
    "arguments": (
        "many_arguments",
        "wrong_argument",
        "blocks_a_thread",
        "ticks",
        "changes_in_place",
        "sleeps",
        "sleeps_in_a_query",
    ),
    "retrying": ("tried_again", "tried_thrice", "tried_late", "never_by_itself"),
    "forms": ("two_pages", "asks", "asks_twice"),
    "composed": ("conditions", "environment", "grouped", "ports_a", "ports_b", "raising_condition"),
    "callbacks": (
        "calls_out",
        "calls_out_late",
        "calls_out_conditionally",
        "leaks_its_token",
        "calls_out_and_dies",
        "asks_and_calls_out",
    ),
    "hazards": ("goes_wrong", "too_slow", "dies", "grows", "asks_for_ever", "other_queue"),
    "fanout": ("task_row", "task_starts_many"),
    "children": (
        "terminates_children",
        "leaves_pools_busy",
        "leaves_child",
        "returns_from_forks",
        "uses_start_methods",
        "forks_apart",
        "asks_and_forks",
        "asks_and_forks_on_loop",
    ),
    "lost": ("is_cut_off", "rests"),
    "blocking": (
        "blocks",
        "blocks_in_child",
        "blocks_and_fails",
        "blocks_thread",
        "blocks_for_ever",
        "asks_and_blocks",
    ),
    "author_code": ("asks_for_long", "asks_in_a_query", "loses_its_connection", "hides_its_loss"),
    "threads": ("hangs", "hangs_for_long", "computes", "asks_and_hangs"),
}

for _module, _names in _MODULES.items():
    for _name in _names:
        LazyWorkflowInstance(f"{__name__}.{_module}", _name)
LazyWorkflowInstance(f"{__name__}.basic", "only_in_code")
LazyWorkflowInstance(f"{__name__}.basic", "removed")
LazyWorkflowInstance(f"{__name__}.broken", "broken")
LazyWorkflowInstance(f"{__name__}.basic", "no_such_function")
LazyWorkflowInstance(f"{__name__}.twins", "twins")

REGISTERED = (
    *(name for names in _MODULES.values() for name in names),
    "only_in_database",
    "broken",
    "no_such_function",
    "twins",
)
"""What the migration registers."""

REMOVED = ("removed",)
"""What it registers and removes again."""
