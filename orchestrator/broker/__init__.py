"""RabbitMQ: the only package that knows the AMQP client library."""
