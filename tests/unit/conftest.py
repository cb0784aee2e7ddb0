"""How the property tests run: as many examples as fit into seconds, and never slower because a machine is busy.

The same commit is judged by the same examples every time, so a red run is the change's doing. Look for new ones, before
a release or after a change of the core, with ``pytest tests/unit --hypothesis-profile=explore``.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit",
    deadline=None,
    max_examples=80,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("explore", settings.get_profile("unit"), max_examples=2000, derandomize=False)
settings.load_profile("unit")
