"""Medians and ratios over rounds, a Markdown table, an SVG plot. Pure: no files."""

import html
import statistics
from collections.abc import Mapping, Sequence

Rounds = Sequence[Mapping[str, Mapping[str, float]]]  # each round: contestant -> figure -> value


def median(rounds: Rounds, contestant: str, figure: str) -> float | None:
    """Return the median of a figure over the rounds; None if it was not measured."""
    values = [each[contestant][figure] for each in rounds if figure in each.get(contestant, {})]
    return statistics.median(values) if values else None


def ratio(rounds: Rounds, one: str, other: str, figure: str) -> float | None:
    """Return the median of one/other within each round: noise longer than a round cancels out. None: not measured."""
    values = [
        each[one][figure] / each[other][figure]
        for each in rounds
        if figure in each.get(one, {}) and each.get(other, {}).get(figure)
    ]
    return statistics.median(values) if values else None


def number(value: float | None) -> str:
    """Return a figure with three significant digits, or whole if it is larger; "" for None."""
    if value is None:
        return ""
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(title: str, rounds: Rounds, contestants: Mapping[str, str]) -> str:
    """Return a Markdown section: for each contestant its medians, and the ratio of ours to it in the first figure."""
    figures = list(dict.fromkeys(figure for each in rounds for values in each.values() for figure in values))
    lines = [f"### {title}", "", "| server | " + " | ".join(figures) + " | ours is |"]
    lines.append("|---|" + "---:|" * (len(figures) + 1))
    for name, shown in contestants.items():
        cells = [number(median(rounds, name, figure)) for figure in figures]
        if not any(cells):
            continue
        compared = ratio(rounds, "ours", name, figures[0]) if name != "ours" else None
        lines.append(f"| {shown} | " + " | ".join(cells) + f" | {f'{compared:.2f}x' if compared else ''} |")
    return "\n".join(lines) + "\n"


def plot(title: str, unit: str, bars: Sequence[tuple[str, float]]) -> str:
    """Return an SVG of horizontal bars."""
    width, row, left = 720, 34, 230
    largest = max(value for _, value in bars)
    height = 50 + row * len(bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" '
        f'font-size="14" role="img" aria-label="{html.escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="26" font-weight="600" fill="#111">{html.escape(title)} ({html.escape(unit)})</text>',
    ]
    for index, (name, value) in enumerate(bars):
        y = 44 + index * row
        length = (width - left - 110) * value / largest
        color = "#1a6dd6" if index == 0 else "#9aa5b1"
        parts.append(f'<text x="{left - 10}" y="{y + 16}" text-anchor="end" fill="#333">{html.escape(name)}</text>')
        parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="22" rx="3" fill="{color}"/>')
        parts.append(f'<text x="{left + length + 8:.1f}" y="{y + 16}" fill="#111">{number(value)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
