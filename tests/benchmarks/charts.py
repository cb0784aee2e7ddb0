"""Draw a few lines over a logarithmic axis as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN = 640, 380, 66
COLOURS = ("#1f5fa8", "#b4441b", "#2c7a3f", "#6a4ea0")
Points = Sequence[tuple[float, float]]


def draw(title: str, below: str, lines: Mapping[str, Points]) -> str:
    """Return an SVG picture of lines, each drawn from 0 to its own largest value, which the legend names.

    Args:
        below: what the horizontal axis counts.
        lines: points by name; all have the same numbers from left to right, each above 0.
    """
    numbers = [x for x, _ in next(iter(lines.values()))]
    low, high = math.log10(numbers[0]), math.log10(numbers[-1])

    def place(x: float) -> float:
        return MARGIN + (math.log10(x) - low) / ((high - low) or 1) * (WIDTH - 2 * MARGIN)

    bottom = HEIGHT - MARGIN
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12"'
            f' role="img" aria-label="{escape(title)}">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{WIDTH / 2}" y="22" text-anchor="middle" font-size="15">{escape(title)}</text>',
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="#444444"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 14}" text-anchor="middle">{escape(below)}</text>',
    ]
    parts += [f'<text x="{place(x):.1f}" y="{bottom + 18}" text-anchor="middle">{x:,.0f}</text>' for x in numbers]
    for index, (name, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        top = max((y for _, y in points), default=0) or 1
        at = [(place(x), bottom - y / top * (bottom - MARGIN)) for x, y in points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{_number(value)}</title></circle>'
            for (x, y), (_, value) in zip(at, points, strict=True)
        ]
        legend = f"{name}: 0 to {_number(top)}"
        across, down = index % 2, index // 2
        place_of_text = f'x="{MARGIN + 8 + 260 * across}" y="{42 + 15 * down}"'
        parts.append(f'<text {place_of_text} fill="{colour}">{escape(legend)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
