"""Projects on the engine, as their users would write them."""
