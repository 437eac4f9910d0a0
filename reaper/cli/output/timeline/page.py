"""`decnet-reaper timeline`: writes what the fleet did as a page, or as a picture alone.

The page is one file that loads nothing: its Content-Security-Policy forbids it, so that even a name or an
error that says otherwise can't make a browser ask anybody for anything.
"""

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Literal

from reaper.cli.output.away import NONE_AWAY, Away, state_with_host
from reaper.cli.output.table import spans
from reaper.cli.output.timeline.chart import draw, nice
from reaper.cli.output.timeline.lanes import lanes_of, was_swept
from repo.base import Lifecycle
from worker.clock import short_span
from worker.logging.console import printable, tail

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #22262b; margin: 2rem auto;
  max-width: 75rem; padding: 0 1.5rem; background: #fff }}
svg {{ width: 100%; height: auto; min-width: 46rem }}
.scroll {{ overflow-x: auto }}
table {{ border-collapse: collapse; width: 100%; font-size: 13.5px; margin-top: 1.5rem }}
th, td {{ text-align: left; padding: .38rem .7rem; border-bottom: 1px solid #e3e6ea; vertical-align: top }}
th {{ position: sticky; top: 0; background: #fff; font-weight: 600; color: #59616b }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
td.id {{ font-family: ui-monospace, "DejaVu Sans Mono", monospace; white-space: nowrap }}
td.time {{ white-space: nowrap }}
td.error {{ overflow-wrap: anywhere }}
b {{ font-weight: 600 }} b::before {{ content: "\\25CF\\00A0" }}
.succeeded {{ color: #1f7a49 }} .failed {{ color: #c0332b }}
.running {{ color: #1f66b5 }} .pending {{ color: #96690a }}
tr:target td {{ background: #fff6d6 }}
p {{ color: #59616b }}
@media (max-width: 48rem) {{
body {{ margin: 1rem auto; padding: 0 .75rem }}
p::after {{ content: " The picture can be moved sideways." }}
table, tbody {{ display: block }} thead {{ display: none }}
tr {{ display: flex; flex-wrap: wrap; gap: .1rem .8rem; padding: .5rem 0; border-bottom: 1px solid #e3e6ea }}
td {{ padding: 0; border: 0 }} td:nth-child(2) {{ overflow-wrap: anywhere; font-weight: 600 }}
td.error {{ flex-basis: 100% }}
.n:nth-child(6)::before {{ content: "waited " }}
.n:nth-child(7)::before {{ content: "took " }}
.n:nth-child(8)::before {{ content: "try " }}
}}
</style>
</head>
<body>
<div class="scroll">{picture}</div>
<p>{note}</p>
<div class="scroll"><table>
<thead><tr><th>id<th>decky<th>operation<th>state<th>accepted
<th class="n">wait<th class="n">took<th class="n">try<th>error
</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>
</body>
</html>
"""


def write_timeline(
    output: Path, rows: Sequence[Lifecycle], *, now: datetime, cut: bool, away: Away = NONE_AWAY
) -> None:
    """Draw rows and write the file, at once.

    Args:
        output: what to write; its ending says which kind.
        rows: from the store, in any order.
        now: aware; its zone is the one of all times shown.
        cut: whether there were more rows than were asked for.
        away: hosts that are not there.

    Raises:
        OSError: the file can't be written.
    """
    data = render(output.suffix, rows, now=now, cut=cut, away=away)
    part = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)


def render(
    ending: str, rows: Sequence[Lifecycle], *, now: datetime, cut: bool, away: Away = NONE_AWAY
) -> bytes:
    """The bytes of the file; arguments as `write_timeline` takes them."""
    lanes = lanes_of(rows, now)
    bars = [bar for lane in lanes for bar in lane.bars]
    start = min((bar.accepted for bar in bars), default=now)
    shown = nice(start, max((bar.end for bar in bars), default=now))
    until = "%H:%M %Z" if shown.start.date() == shown.end.date() else "%Y-%m-%d %H:%M %Z"
    period = f"{shown.start:%Y-%m-%d %H:%M} to {shown.end:{until}}"
    kind: Literal["svg", "png"] = "png" if ending == ".png" else "svg"
    picture = draw(lanes, shown, f"What the fleet did, {period}\n{_summary(rows)}", kind)
    if ending != ".html":
        return picture
    svg = picture.decode().partition("<svg")
    note = "Each bar leads to its row." + (" Older rows were left out: there is a --limit." if cut else "")
    newest = sorted(rows, key=lambda row: str(row["id"]), reverse=True)
    page = _PAGE.format(
        title=escape(f"What the fleet did, {period}"),
        picture=svg[1] + svg[2],
        note=note,
        rows="\n".join(_row(row, now, away) for row in newest),
    )
    return page.encode()


def _summary(rows: Sequence[Lifecycle]) -> str:
    counts = Counter(row["status"] for row in rows)
    parts = [
        f"{counts[state]} {state}" for state in ("succeeded", "failed", "running", "pending") if counts[state]
    ]
    swept = sum(map(was_swept, rows))
    parts += [f"{swept} closed by the reaper"] if swept else []
    return f"{len(rows)} operations" + (f": {', '.join(parts)}" if parts else "")


def _row(row: Lifecycle, now: datetime, away: Away) -> str:
    _, wait, took = spans(row, now)
    accepted = datetime.fromisoformat(row["started_at"]).astimezone(now.tzinfo)
    decky = row["decky_name"] if row["host_uuid"] is None else f"{row['decky_name']} @ {row['host_uuid']}"

    def text(value: object) -> str:
        return escape(printable(str(value)))

    return (
        f'<tr id="row-{text(row["id"])}"><td class="id" title="{text(row["id"])}">{text(tail(row["id"]))}'
        f"<td>{text(decky)}<td>{text(row['operation'])}"
        f'<td><b class="{text(row["status"])}">{text(state_with_host(row, away))}</b>'
        f'<td class="time">{accepted:%Y-%m-%d %H:%M:%S}'
        f'<td class="n">{short_span(wait)}<td class="n">{short_span(took)}<td class="n">{row["attempt"]}'
        f'<td class="error">{text(row["error"] or "")}</tr>'
    )
