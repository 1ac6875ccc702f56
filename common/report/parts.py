"""Pieces of HTML that several sections use: tables, coloured words, pictures with sound, code."""

from __future__ import annotations

import re
from html import escape

import numpy as np

from counterpoint.common.report.charts import number
from counterpoint.common.report.media import Media, audio_uri, image_uri

Cell = object


def anchor(title: str, index: int) -> str:
    return f"s{index}-" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "top")


def _chip(state: str) -> str:
    kinds = {"good": "good", "better": "good", "holds": "good", "watch": "warn", "inconclusive": "warn"}
    kind = "warn" if state.startswith("undecided") else kinds.get(state, "bad")
    return f'<span class="chip {kind}">{escape(state)}</span>'


class Chip(str):
    """A table cell shown as a coloured word: "good", "watch", "collapsed", "better", "holds", "does not hold", ..."""


class Strong(str):
    """A table cell in bold."""


class IntervalCell(str):
    """A table cell that stays on one line: an interval."""


def html_table(title: str, rows: list[list[Cell]], columns: list[str]) -> str:
    width = len(columns) or max((len(r) for r in rows), default=0)
    for i, row in enumerate(rows):
        if len(row) != width:
            raise ValueError(f"table {title!r}: row {i} has {len(row)} cells, expected {width}")
    numeric = [bool(rows) and all(_is_number(r[j]) or r[j] in (None, "") for r in rows) for j in range(width)]
    head = "".join(
        f'<th scope="col"{" class=num" if numeric[j] else ""}>{f"<button>{escape(c)}</button>" if c else ""}</th>'
        for j, c in enumerate(columns)
    )
    body = "".join("<tr>" + "".join(_cell(c, numeric[j]) for j, c in enumerate(row)) + "</tr>" for row in rows)
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _is_number(value: Cell) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _cell(value: Cell, right: bool) -> str:
    if isinstance(value, Chip):
        return f"<td>{_chip(value)}</td>"
    if isinstance(value, Strong):
        return f'<td class="best">{escape(value)}</td>'
    if isinstance(value, IntervalCell):
        return f'<td class="spread">{escape(value)}</td>'
    if value is None:
        return "<td></td>"
    if _is_number(value):
        shown = f"{value:,}" if isinstance(value, int | np.integer) else number(float(value))  # type: ignore[arg-type]
        return f'<td class="num" data-v="{value}">{shown}</td>'
    return f"<td{' class=num' if right else ''}>{escape(str(value))}</td>"


def media(item: Media, rank: int = 0, head: str = "") -> str:
    """A picture or sound with its words; `rank` is its place in a row, unless the item knows its own."""
    rank = rank if item.rank is None else item.rank
    name = head or (f"{rank}." if rank else "")
    body = ""
    if item.image is not None:
        alt = ", ".join(part for part in (f"{name} {item.label}".strip(), item.caption) if part)
        drawing = ' class="drawing"' if isinstance(item.image, str) else ""  # ink on paper: turned round in the dark
        source = f'src="{image_uri(item.image, item.cmap)}" alt="{escape(alt)}"'
        body += f'<button class="zoom"><img loading="lazy"{drawing} {source}></button>'
    if item.audio is not None:
        said = escape(f"Play {item.label}")
        body += f'<audio controls preload="none" src="{audio_uri(item.audio)}" aria-label="{said}"></audio>'
    verdict = {True: ' <span class="chip good">right</span>', None: ""}.get(item.correct, "")
    words = f"<b>{escape(name)}</b> {escape(item.label)}{verdict}" + (
        f'<br><span class="soft">{escape(item.caption)}</span>' if item.caption else ""
    )
    kind = {True: " right", False: " wrong"}.get(item.correct, " query" if head else "")
    return f'<figure class="item{kind}">{body}<figcaption>{words}</figcaption></figure>'


def code(text: str) -> str:
    return f'<div class="code"><button>Copy</button><pre tabindex="0">{escape(text.rstrip())}</pre></div>'
