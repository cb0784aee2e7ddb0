"""An asyncio workflow engine that moves customer subscriptions safely from one state to the next."""

__version__ = "0.1.0"
