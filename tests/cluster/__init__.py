"""The chaos test on several servers: three RabbitMQ nodes, and a PostgreSQL primary with a synchronous standby.

Run by ``scripts/chaos-cluster``, on demand; the other tests do not run it.
"""
