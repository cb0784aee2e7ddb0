"""Write the generated pages, or with ``--check`` name those that are not current and exit with 1."""

from __future__ import annotations

import sys

from docpages import ROOT, pages


def main() -> int:
    """Return the exit code."""
    stale = []
    for name, text in pages().items():
        path = ROOT / name
        if not path.exists() or path.read_text() != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    print("\n".join(stale) or "all generated pages are current")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
