"""An application in the style of orchestrator-core, ported by ``orchestrator port`` alone. Start reading in ``README.md``."""

from . import products as products
from . import workflows as workflows
