"""Where orchestrator-core has its errors: here only so that ports need no other import."""
