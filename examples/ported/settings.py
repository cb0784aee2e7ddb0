"""The application's own settings, from variables ``PORTED_…``."""

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the inventory is."""

    model_config = SettingsConfigDict(env_prefix="PORTED_")

    inventory_url: str = "http://127.0.0.1:1"


settings = Settings()
