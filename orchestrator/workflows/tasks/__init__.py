"""The tasks that ship with the engine."""
