"""Verbs whose command line is the signature of one function: the demo, and what is done with a finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from counterpoint.common import runs
from counterpoint.common.cli.options import call, wants_help
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.formats import embedding_formats, export_formats, in_words
from counterpoint.common.lazy import resolve
from counterpoint.common.vertical import Vertical


def demo(command: Call) -> int:
    """Run the vertical's demo; its options are the demo function's parameters."""
    return call(command.program, resolve(command.vertical.demo), command.argv)


def own(command: Call) -> int:
    """Run a verb of the vertical's own; its options are its function's parameters."""
    name = command.program.rpartition(" ")[2]
    (verb,) = (verb for verb in command.vertical.verbs if verb.name == name)
    return call(command.program, resolve(verb.run), own_runs(command).argv)


def without_run(command: Call) -> bool:
    """Whether vectors of any encoder are given (--embeddings) in place of a RUN; both, or neither by its option, are an
    error that says so."""
    words = command.argv
    first = words[0] if words and not words[0].startswith("-") else ""
    if not any(word.partition("=")[0] == "--embeddings" for word in words):
        if Path(first).suffix in (".parquet", ".npy", ".npz") and Path(first).is_file():
            raise InputError(f"{first}: a file of vectors, not a run; give it as --embeddings {first}")
        return False
    if run := next((word for word in words if (Path(word) / "config.yaml").is_file()), first):
        raise InputError(f"{run}: --embeddings takes vectors in place of a RUN; leave one of the two out")
    return True


def _of_run(command: Call, function: Callable, of_vectors: Callable) -> int:
    """Run a verb on a run, or on vectors given in its place; `--embeddings --help` asks for help on these."""
    if without_run(command):
        return call(command.program, of_vectors, ["--help"] if wants_help(command.argv) else command.argv)
    return call(command.program, function, own_runs(command).argv, vertical=command.vertical)


def own_runs(command: Call) -> Call:
    """The command, if no run on its line belongs to another installed vertical, whose protocols it would leave out."""
    for word in command.argv:
        if not word.startswith("-") and (Path(word) / "config.yaml").is_file():
            check_own(Path(word), command.vertical)
    return command


def check_own(run: Path, vertical: Vertical) -> None:
    """Raise `InputError` where a run's system is one that another installed vertical lists."""
    from counterpoint.common.runs.encode import vertical_of_run

    try:
        other = vertical_of_run(run).name
    except InputError:  # of no vertical, or damaged: the verb says what it makes of that
        return
    if other != vertical.name:
        raise InputError(f"{run}: a run of the vertical {other}; type counterpoint {other} in place of {vertical.name}")


def evaluate(command: Call) -> int:
    """The figures of a checkpoint."""
    return _of_run(command, runs.evaluate, runs.evaluate_embeddings)


def embed(command: Call) -> int:
    """Embeddings of a split as Parquet."""
    words = in_words(embedding_formats(command.vertical.embedding_formats))
    return call(command.program, runs.embed, own_runs(command).argv, epilog=words, vertical=command.vertical)


def search(command: Call) -> int:
    """Nearest neighbours of a sample, a file or a text."""
    return _of_run(command, runs.search, runs.search_embeddings)


def flow(command: Call) -> int:
    """Actions and what follows what, drawn."""
    return _of_run(command, runs.flow, runs.flow_embeddings)


def report(command: Call) -> int:
    """One HTML file that shows a run."""
    return _of_run(command, runs.report, runs.report_embeddings)


def export(command: Call) -> int:
    """The encoder for others."""
    words = in_words(export_formats(command.vertical.export_formats))
    return call(command.program, runs.export, own_runs(command).argv, epilog=words, vertical=command.vertical)
