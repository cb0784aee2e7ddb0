"""A private PostgreSQL and a private RabbitMQ for one checkout: what `scripts/services` is made of.

Standard library only: it runs before anything is installed.
"""
