"""`counterpoint <vertical> <verb>`: finds the vertical, then the verb, then runs one function.

Exit codes: 0 done; 1 a fault of ours, with its traceback; 2 a usage or input error, in one sentence; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from counterpoint.common.cli.options import listing, wants_help, write
from counterpoint.common.cli.verbs import UMBRELLA, VERBS, Call, verbs_of
from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Vertical

# The machine refuses: full disk, quota, read-only or forbidden folder. Always the user's to mend, never our fault.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}

# Warnings of libraries about how they are called, which no user can act upon.
_TO_PROGRAMMERS = ("Sparse CSR tensor support is in beta", "Detected pickle protocol", "NumPy array is not writable")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code. Also the entry point of `counterpoint-<vertical>` scripts.

    >>> main(["--version"])
    counterpoint 0.1.0
    0
    """
    _wait_asleep()
    program = "counterpoint"
    argv = list(sys.argv[1:] if argv is None else argv)
    script = Path(sys.argv[0]).name
    if script.startswith("counterpoint-"):
        argv.insert(0, script.removeprefix("counterpoint-"))
    try:
        with _warnings_for_people():
            return _dispatch(program, argv)
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _interrupted()
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an orderly shutdown and SystemExit(1).
        if isinstance(stop.__context__, KeyboardInterrupt):
            return _interrupted()
        raise
    except BrokenPipeError:
        # `counterpoint ... | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        sentence = _system_sentence(error, argv)
        if sentence is None:
            raise
        return _refuse(sentence)


def _wait_asleep() -> None:
    """Threads of OpenMP wait for one another asleep, unless the user says otherwise (read when torch is loaded).

    By default they spin. Where other programs keep the processors busy, a thread then burns its share of time while it
    waits for one that has none, at every operation: a training step takes twenty times as long as it does asleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextlib.contextmanager
def _warnings_for_people() -> Iterator[None]:
    """Warnings as one line each, without source; libraries' notes to programmers stay away unless asked for (-W)."""

    def show(message: Warning | str, *_: object) -> None:
        write(f"counterpoint: warning: {' '.join(str(message).split())}", sys.stderr)

    with warnings.catch_warnings():
        if not sys.warnoptions:
            for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            for text in _TO_PROGRAMMERS:
                warnings.filterwarnings("ignore", f".*{text}")
            warnings.showwarning = show
        yield


def _dispatch(program: str, argv: list[str]) -> int:
    verticals = find_verticals()
    if argv and argv[0] == "--version":
        from counterpoint import __version__

        write(f"counterpoint {__version__}")
        return 0
    if not argv or argv[0] in ("-h", "--help"):
        return _overview(program, verticals, asked=bool(argv))
    name, *rest = argv
    if name in UMBRELLA:
        return UMBRELLA[name].run(Call(f"{program} {name}", rest, None))
    if name not in verticals:
        kind = "option" if name.startswith("-") else "vertical"
        raise no_such(kind, name, [*verticals, *UMBRELLA], f"{program} --help")
    return _vertical(f"{program} {name}", verticals[name](), rest)


def _vertical(program: str, vertical: Vertical, argv: list[str]) -> int:
    verbs = verbs_of(vertical)
    if not argv or wants_help(argv[:1]):
        rows = {verb.name: verb.summary for verb in verbs.values()}
        text = listing(f"{program} VERB [options]", vertical.summary, {"verbs": rows}, f"{program} VERB --help")
        return _show(text, asked=bool(argv))
    name, *rest = argv
    if name not in verbs:
        if name in VERBS:
            raise InputError(f"{vertical.name} has no verb '{name}'; it has {', '.join(verbs)}")
        raise no_such("option" if name.startswith("-") else "verb", name, list(verbs), f"{program} --help")
    try:
        return verbs[name].run(Call(f"{program} {name}", rest, vertical))
    except ModuleNotFoundError as error:
        raise _missing_extra(error, vertical) from error


def _overview(program: str, verticals: dict, asked: bool) -> int:
    from counterpoint import __doc__ as about

    rows = {name: load().summary for name, load in verticals.items()}
    tools = {name: verb.summary for name, verb in UMBRELLA.items()}
    sections = {"verticals": rows or {"(none)": "install one: pip install 'counterpoint[all]'"}, "tools": tools}
    text = listing(f"{program} VERTICAL VERB [options]", about or "", sections, f"{program} VERTICAL --help")
    return _show(text, asked)


def _show(text: str, asked: bool) -> int:
    """Help that was asked for is output; help shown because the command stops half-way is a usage error."""
    write(text, sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _refuse(sentence: str) -> int:
    write(f"counterpoint: {' '.join(sentence.split())}", sys.stderr)
    return 2


def _interrupted() -> int:
    write("counterpoint: interrupted", sys.stderr)
    return 130


def _missing_extra(error: ModuleNotFoundError, vertical: Vertical) -> Exception:
    """A missing third-party library is the user's to install; a missing module of ours is a fault of ours."""
    root = (error.name or "").partition(".")[0]
    if not root or root == "counterpoint" or importlib.util.find_spec(root) is not None:
        return error
    extra = vertical.extra or vertical.package.rpartition(".")[2]
    return InputError(f"the library '{root}' is not installed; pip install 'counterpoint[{extra}]' brings it")


def _system_sentence(error: OSError, argv: list[str]) -> str | None:
    where = str(error.filename) if error.filename else "the output folder"
    if error.errno in _REFUSALS:
        return f"{where}: {error.strerror or error}"
    given = {value.rpartition("=")[2] for value in argv}
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST) and where in given:
        return f"{where}: {error.strerror}"
    return None
