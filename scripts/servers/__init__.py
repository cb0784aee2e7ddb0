"""A private PostgreSQL and a private RabbitMQ for one checkout: what `scripts/services` is made of.

Standard library only: it runs before anything is installed.
"""


class ServicesError(Exception):
    """A problem that the user has to solve; printed without a traceback."""


def say(text: str) -> None:
    """Print one line of progress at once, also into a pipe."""
    print(text, flush=True)
