"""What ``scripts/demo`` runs: it starts the programs, orders lines, kills a consumer, runs a network, and counts afterwards."""
