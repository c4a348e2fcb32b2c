"""Draws the variants' shares of the plain app as bars."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.http_load import Row
from benchmarks.variants import INSTALLED, OURS_ASYNC, OURS_SYNC, PLAIN

_OURS = (INSTALLED, OURS_ASYNC, OURS_SYNC)


def draw(rows: list[Row], path: Path) -> None:
    """Draw the plot into an SVG file."""
    mpl.use("svg")
    # Text stays text, and the same figures give the same file.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "asgi_bg", "font.size": 11})
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    bars = axes.barh(
        [row.variant.label for row in rows],
        [row.share for row in rows],
        color=[_colour(row) for row in rows],
        height=0.7,
    )
    axes.bar_label(bars, labels=[f"{row.share:.2f}" for row in rows], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12)
    axes.axvline(1.0, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_xlabel("requests per second, as a share of the plain app's (more is better)")
    axes.set_title("What a background task costs: one uvicorn worker on one core", loc="left")
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, facecolor="white", metadata={"Date": None})
    plt.close(figure)


def _colour(row: Row) -> str:
    if row.variant in _OURS:
        return "#1f6feb"
    return "#bbbbbb" if row.variant is PLAIN else "#8a8f98"
