"""How a project tests its workflows: see ``docs/test-workflows.md``. Run them with the environment of ``README.md``."""
