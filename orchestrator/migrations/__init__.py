"""Where orchestrator-core has its helpers for migrations. In an installed package the engine's own migrations lie here, too."""
