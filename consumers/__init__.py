"""The consumer program, the only place where step functions run."""
