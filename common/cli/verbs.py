"""The table of verbs: what each needs of a vertical, and which function runs it (imported when used)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from counterpoint.common.lazy import resolve
from counterpoint.common.vertical import Vertical


@dataclass(frozen=True)
class Call:
    """One use of a verb: how the user called it so far, what he wrote after it, and for which vertical."""

    program: str
    argv: list[str]
    vertical: Vertical | None


@dataclass(frozen=True)
class Verb:
    """A verb, the function `(Call) -> int` that runs it, and whether a vertical offers it."""

    name: str
    summary: str
    target: str
    offered: Callable[[Vertical], bool] = lambda vertical: bool(vertical.systems)

    def run(self, call: Call) -> int:
        """Import the verb's module and run it; returns the exit code."""
        return resolve(self.target)(call)


_MODULE = "counterpoint.common.cli"

VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "demo",
            "the whole path on sample data in minutes: train, evaluate, search, report",
            f"{_MODULE}.run_verbs:demo",
            lambda vertical: vertical.demo is not None,
        ),
        Verb("systems", "list the systems with their status, paper and needs", f"{_MODULE}.listings:systems"),
        Verb(
            "data",
            "bring data in: import, check, split, simulate, preview, curate",
            f"{_MODULE}.data:data",
            lambda vertical: bool(vertical.importers or vertical.simulate or vertical.data_check),
        ),
        Verb("pretrain", "train a system", f"{_MODULE}.pretrain:pretrain"),
        Verb(
            "compare",
            "a system under several objectives, on the same data and seeds",
            f"{_MODULE}.compare:compare",
        ),
        Verb("finetune", "labels on top of a checkpoint", f"{_MODULE}.finetune:finetune"),
        Verb("evaluate", "the figures of a checkpoint, with intervals and chance", f"{_MODULE}.run_verbs:evaluate"),
        Verb("embed", "embeddings of a split as Parquet", f"{_MODULE}.run_verbs:embed"),
        Verb("search", "nearest neighbours of a sample or of a file, across modalities", f"{_MODULE}.run_verbs:search"),
        Verb("flow", "sequences of embeddings as a graph of what follows what, drawn", f"{_MODULE}.run_verbs:flow"),
        Verb("report", "one HTML file that shows a run", f"{_MODULE}.run_verbs:report"),
        Verb(
            "reproduce",
            "check the papers' claims against their baselines, with seeds and intervals",
            f"{_MODULE}.reproduce:reproduce",
            lambda vertical: vertical.checks is not None,
        ),
        Verb("export", "the encoder as ONNX, torch.export or safetensors", f"{_MODULE}.run_verbs:export"),
    )
}

UMBRELLA = {
    verb.name: verb
    for verb in (
        Verb("losses", "list the contrastive objectives", f"{_MODULE}.listings:losses"),
        Verb("plugins", "list what --train.plugins puts around any training", f"{_MODULE}.plugins:plugins"),
    )
}


def verbs_of(vertical: Vertical) -> dict[str, Verb]:
    """The verbs this vertical offers, in the order of work.

    >>> list(verbs_of(Vertical(name="x", package="x", summary="nothing yet")))
    []
    """
    own = {verb.name: Verb(verb.name, verb.summary, f"{_MODULE}.run_verbs:own") for verb in vertical.verbs}
    if twice := own.keys() & VERBS:
        raise TypeError(f"{vertical.name}: a verb {min(twice)!r} is there already; give yours another name")
    return {name: verb for name, verb in VERBS.items() if verb.offered(vertical)} | own
