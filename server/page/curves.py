"""Curves as SVG: no script, and with words for those who do not see them."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT, LEFT, BOTTOM = 480, 220, 48, 34


def calibration_curve(calibration: Mapping[str, Any]) -> Markup:
    """Return recall against time, of the settings that a calibration tried; a table of the same follows it on the page."""
    efforts = sorted(calibration["efforts"], key=lambda each: each["cpu_ms"])
    times = [each["cpu_ms"] for each in efforts]
    recalls = [each["recall"] for each in efforts]
    low, longest = min([*recalls, 0.9]), max(times) or 1.0
    points = [(_across(ms / longest), _up((recall - low) / (1 - low or 1))) for ms, recall in zip(times, recalls, strict=True)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    about = f"Recall of the {calibration['k']} best from {recalls[0]:.3f} at {times[0]:.2f} ms to {max(recalls):.3f}"
    axes = f'<path d="M{LEFT} 8V{HEIGHT - BOTTOM}H{WIDTH - 8}"/>'
    return Markup(  # noqa: S704  numbers, and text that is escaped
        f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(about, quote=True)}">'
        f'{axes}<polyline points="{line}"/>{dots}'
        f"{_label(LEFT - 6, 16, '1.0', 'end')}{_label(LEFT - 6, HEIGHT - BOTTOM, f'{low:.2f}', 'end')}"
        f"{_label(LEFT, HEIGHT - 14, '0', 'middle')}{_label(WIDTH - 8, HEIGHT - 14, f'{longest:.2f} ms', 'end')}"
        f"{_label((LEFT + WIDTH) / 2, HEIGHT - 2, 'time of a query on one core', 'middle')}</svg>"
    )


def sizes(facts: Mapping[str, Any]) -> Sequence[tuple[str, int]]:
    """Return bytes of documents and of each field, largest first."""
    documents = sum(sum(segment["bytes"].values()) for segment in facts["segments"])
    found = {name: each.get("n_bytes", 0) for name, each in facts["fields"].items()} | {"documents": documents}
    return sorted(found.items(), key=lambda pair: -pair[1])


def _across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - 16)


def _up(share: float) -> float:
    return (HEIGHT - BOTTOM) - share * (HEIGHT - BOTTOM - 16)


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{text}</text>'
