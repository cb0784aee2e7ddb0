"""``python -m consumers`` is the same as ``orchestrator consumer``."""

from __future__ import annotations

import sys

from orchestrator.__main__ import main

if __name__ == "__main__":
    main(["consumer", *sys.argv[1:]])
