"""The timeline's picture, drawn with matplotlib: a lane per decky, bars for waits and runs.

matplotlib is the extra `timeline`; this file alone imports it. Names and errors come from the store, so that
no text is taken for mathematics and nothing but printable ASCII is drawn.
"""

import io
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reaper.cli.output.timeline.lanes import Bar, Lane

RUN: Final = {"succeeded": "#2f9e62", "failed": "#d9453d", "running": "#2b7bd3", "pending": "#d99a16"}
WAIT: Final = {"succeeded": "#a9d8bd", "failed": "#f2b3af", "running": "#a8cbef", "pending": "#f0d290"}
_INK, _FAINT = "#22262b", "#8a929c"
_WIDTH_IN: Final = 12.0
_LANE_IN: Final = 0.46
_MARGIN_IN: Final = 1.55
_RUN_HEIGHT, _WAIT_HEIGHT = 0.42, 0.14
_NARROW: Final = 0.004
"""Of the picture's width: a run that is narrower has no white outline, which would hide it."""
_CHARACTERS: Final = 130
"""About how many characters of the labels fit into the width of the picture."""

_STYLE: Final[dict[Any, Any]] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "decnet-reaper",
    "text.parse_math": False,
}


class Span(NamedTuple):
    """The time that is shown."""

    start: datetime
    end: datetime


def draw(lanes: Sequence[Lane], shown: Span, title: str, kind: Literal["svg", "png"]) -> bytes:
    """The picture.

    Args:
        lanes: from top to bottom.
        shown: the time that the axis covers.
        title: a line or two.
        kind: SVG (its text stays text, each bar links to `#row-<id>`) or PNG of 1,800 pixels' width.
    """
    with mpl.rc_context(_STYLE):
        height = _MARGIN_IN + _LANE_IN * max(1, len(lanes))
        figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
        axes = figure.add_subplot()
        figure.suptitle(_plain(title), x=0.008, ha="left", fontsize=10.5, linespacing=1.5, color=_INK)
        _frame(axes, lanes, shown)
        for y, lane in enumerate(lanes):
            for bar in lane.bars:
                _bar(axes, y, bar, shown)
        _legend(figure)
        out = io.BytesIO()
        metadata = (
            {"Date": None, "Creator": "decnet-reaper"} if kind == "svg" else {"Software": "decnet-reaper"}
        )
        figure.savefig(out, format=kind, dpi=150, metadata=metadata)
        return out.getvalue()


def _frame(axes: Axes, lanes: Sequence[Lane], shown: Span) -> None:
    pad = (shown.end - shown.start) * 0.015
    axes.set_xlim(_x(shown.start - pad), _x(shown.end + pad))
    axes.set_ylim(max(1, len(lanes)) - 0.5, -0.5)
    axes.set_yticks(range(len(lanes)), [_plain(lane.name) for lane in lanes])
    axes.tick_params(axis="y", length=0, labelsize=9.5, labelcolor=_INK)
    axes.tick_params(axis="x", color=_FAINT, labelcolor=_INK)
    locator = AutoDateLocator(tz=shown.start.tzinfo, minticks=6, maxticks=12)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=shown.start.tzinfo)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.grid(axis="x", color="#e3e6ea", linewidth=0.8)
    axes.set_axisbelow(True)
    for y in range(0, len(lanes), 2):
        axes.axhspan(y - 0.5, y + 0.5, color="#f6f7f9", zorder=-1, linewidth=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    if not lanes:
        axes.text(
            0.5, 0.5, "nothing happened", transform=axes.transAxes, ha="center", color=_FAINT, fontsize=12
        )


def _bar(axes: Axes, y: int, bar: Bar, shown: Span) -> None:
    """The wait as a thin strip, the run as a bar above it, so that waiting behind another run shows."""
    link = f"#row-{bar.id}"
    wait_until = bar.claimed or bar.end
    axes.barh(
        y + 0.31,
        _x(wait_until) - _x(bar.accepted),
        _WAIT_HEIGHT,
        _x(bar.accepted),
        color=WAIT[bar.status],
        edgecolor=WAIT[bar.status],
        linewidth=0.8,
        url=link,
    )
    if bar.claimed is not None:
        axes.barh(
            y - 0.03,
            _x(bar.end) - _x(bar.claimed),
            _RUN_HEIGHT,
            _x(bar.claimed),
            color=RUN[bar.status],
            edgecolor="white" if _share(bar, shown) > _NARROW else RUN[bar.status],
            linewidth=0.8,
            url=link,
            zorder=3,
        )
        _inscribe(axes, y, bar, shown)
    if bar.swept:
        _sweep(axes, bar.end, y - 0.03 if bar.claimed else y + 0.31)
    if bar.attempt > 1:
        _retry(axes, y, bar)


def _share(bar: Bar, shown: Span) -> float:
    """How much of the picture's width a run takes."""
    return (bar.end - (bar.claimed or bar.end)) / (shown.end - shown.start)


def _sweep(axes: Axes, x: datetime, y: float) -> None:
    axes.plot(
        [_x(x)],
        [y],
        "X",
        color=_INK,
        markersize=9,
        markeredgecolor="white",
        markeredgewidth=0.9,
        zorder=6,
        clip_on=False,
    )


def _inscribe(axes: Axes, y: int, bar: Bar, shown: Span) -> None:
    room = _share(bar, shown) * _CHARACTERS
    label = bar.operation if room > len(bar.operation) + 2 else bar.operation[0].upper() if room > 2.5 else ""
    if label:
        middle = (_x(bar.claimed or bar.end) + _x(bar.end)) / 2
        axes.text(
            middle,
            y - 0.03,
            label,
            ha="center",
            va="center_baseline",
            color="white",
            fontsize=8,
            zorder=5,
        )


def _retry(axes: Axes, y: int, bar: Bar) -> None:
    x, top = _x(bar.claimed or bar.accepted), y - 0.25
    axes.plot([x], [top], "o", color="white", markersize=9.5, markeredgecolor=_INK, zorder=7, clip_on=False)
    axes.text(x, top, str(bar.attempt), ha="center", va="center_baseline", color=_INK, fontsize=6.5, zorder=8)


def _legend(figure: Figure) -> None:
    states = [Patch(color=RUN[status], label=status) for status in ("succeeded", "failed", "running")]
    waits = Patch(facecolor="#d5d9de", label="thin: waiting")
    mark = partial(Line2D, [], [], linestyle="none", markersize=9)
    swept = mark(marker="X", color=_INK, markeredgecolor="white", label="closed by the reaper")
    retry = mark(marker="o", color="white", markeredgecolor=_INK, label="a retry, and its number")
    figure.legend(
        handles=[*states, waits, swept, retry],
        loc="outside lower center",
        ncols=6,
        frameon=False,
        fontsize=9,
        handlelength=1.4,
        columnspacing=1.8,
    )


def _x(moment: datetime) -> float:
    return float(date2num(moment))  # type: ignore[no-untyped-call]


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def nice(start: datetime, end: datetime) -> Span:
    """The time to show: what happened, at least ten seconds."""
    least = timedelta(seconds=10)
    return Span(start, max(end, start + least))
