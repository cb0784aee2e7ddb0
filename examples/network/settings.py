"""This project's own settings, read from ``NETWORK_…`` variables. The engine's are its own business."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class NetworkSettings(BaseSettings):
    """Where the systems around us are. Read by the steps that need them: the command line gets by without."""

    model_config = SettingsConfigDict(env_prefix="NETWORK_")

    controller_url: str
    """The network controller."""
    amqp_url: str
    """The broker over which the field engineers get their jobs."""
