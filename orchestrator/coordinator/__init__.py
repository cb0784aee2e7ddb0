"""The coordinator: handles commands, results and callbacks, publishes step commands and events, reconciles what is due."""
