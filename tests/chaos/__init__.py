"""Random faults under load, repeatable by a number: ``scripts/chaos``."""
