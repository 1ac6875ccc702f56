"""A finished run applied, from Python as from the command line: names load on first use.

    from counterpoint.common import runs
    found = runs.evaluate(Path("runs/Ts2Vec"), label="label")     # an `Outcome`: figures, lines, files
    runs.embed(Path("runs/Ts2Vec"), split="test")

The verbs of the command line are these functions: their signatures are the options, their docstrings the help.
"""

from counterpoint.common.lazy import lazy_exports

_BASE = "counterpoint.common.runs"
_EXPORTS = {
    "curate": f"{_BASE}.curation",
    "embed": f"{_BASE}.embedding",
    "evaluate": f"{_BASE}.evaluation",
    "evaluate_embeddings": f"{_BASE}.foreign",
    "export": f"{_BASE}.exports",
    "flow": f"{_BASE}.flows",
    "flow_embeddings": f"{_BASE}.flows",
    "report": f"{_BASE}.reporting",
    "report_embeddings": f"{_BASE}.foreign",
    "search": f"{_BASE}.searching",
    "search_embeddings": f"{_BASE}.foreign",
}

__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
