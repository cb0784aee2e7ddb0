"""What ``scripts/demo`` runs: it starts the programs, orders lines, kills a consumer and counts afterwards."""
