"""Acceptance tests: the real programs as subprocesses, driven from outside through AMQP and the command line."""
