"""Where orchestrator-core has the assignees of input steps: here only so that ports need no other import."""
