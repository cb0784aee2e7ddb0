"""The step consumers: the only place where authors' step functions run."""
