"""Use cases. Each takes a session, never commits, never speaks AMQP or HTTP, and returns what its entry point must publish."""
