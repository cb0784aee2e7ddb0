"""A user's project: nodes, ports, core links and L2VPNs. ``ORCHESTRATOR_WORKFLOWS=examples.network`` loads it.

Start reading in ``README.md``. Importing this registers the models of the products and the names of the workflows.
"""

from . import products as products
from . import workflows as workflows
