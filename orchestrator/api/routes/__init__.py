"""The paths of the API, a module for each subject; each has a ``router``, which :mod:`orchestrator.api.app` includes."""
