"""The HTTP API: each path is a thin face of a use case that messages and the command line share."""
