"""Progress for people: bars and notes on stderr, no bars when stderr is not a terminal, nothing within `silent()`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


def _console():
    from rich.console import Console

    return Console(stderr=True, highlight=False)


_SILENT: ContextVar[bool] = ContextVar("silent", default=False)


@contextmanager
def silent(wanted: bool = True) -> Iterator[None]:
    """Neither bars nor notes while the block runs; warnings pass.

    >>> with silent():
    ...     note("nobody hears this")
    """
    token = _SILENT.set(wanted or _SILENT.get())
    try:
        yield
    finally:
        _SILENT.reset(token)


def shown() -> bool:
    """Whether bars are drawn: on a terminal, outside of `silent`."""
    return sys.stderr.isatty() and not _SILENT.get()


def track(iterable: Iterable[T], description: str = "", total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar that shows the time left and vanishes when done.

    `total` is needed where `len(iterable)` is not known. Off a terminal the iterable passes through unchanged.

    >>> list(track(range(3), "counting"))
    [0, 1, 2]
    """
    if not shown():
        yield from iterable
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as progress:
        yield from progress.track(iterable, total=total, description=description)


@contextmanager
def status(description: str) -> Iterator[None]:
    """Show a spinner beside `description` while the block runs, for work without a countable total.

    >>> with status("thinking"):
    ...     answer = 42
    """
    if not shown():
        yield
        return
    with _console().status(description):
        yield


def note(text: str) -> None:
    """Tell the user, on stderr, what is being done now. Also written off a terminal: logs want it too.

    >>> note("engraving 20 chorales")
    """
    if _SILENT.get():
        return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
