"""The coordinator: takes commands, results and callbacks, publishes step commands and events, and looks again at what is due."""
