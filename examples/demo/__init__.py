"""A small user project: one workflow, its own table, its own migration. ``ORCHESTRATOR_WORKFLOWS=examples.demo`` loads it."""

from . import workflows as workflows  # importing it registers the workflows
