"""What `export` and `embed` can write, by name: the suite's formats, a vertical's, other packages'. Light: no torch.

A vertical lists its own as `Vertical(export_formats=..., embedding_formats=...)`. Another package registers one under
the entry-point groups `counterpoint.export_formats` and `counterpoint.embedding_formats`, as
`name = "package.module:format"`, where `format` is a `Format` of that name and its module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points

EXPORT_GROUP, EMBEDDING_GROUP = "counterpoint.export_formats", "counterpoint.embedding_formats"


@dataclass(frozen=True)
class Format:
    """A form in which an encoder, or what it makes of data, is written.

    Attributes:
        name: as in `--format NAME`.
        suffix: of its files, with the dot; empty for a folder.
        summary: one line for the help.
        write: `"module:function"`, imported when the format is used. For `export`:
            `(system, path, *, modality, batch, tolerance) -> common.trainers.exporting.ExportReport`, where `batch`
            holds example inputs or is None. For `embed`:
            `(system, samples, out, *, columns, shard, batch_size, workers) -> common.vertical.Outcome`.

    >>> Format("nifti", ".nii.gz", "a volume a sample", "package.module:write").ending
    '.nii.gz'
    """

    name: str
    suffix: str
    summary: str
    write: str

    @property
    def ending(self) -> str:
        """The suffix in words."""
        return self.suffix or "a folder"


_EXPORTING, _RUNS = "counterpoint.common.trainers.exporting", "counterpoint.common.runs.embedding"

EXPORTS = (
    Format("onnx", ".onnx", "ONNX, checked against the source (extra export)", f"{_EXPORTING}:write_onnx"),
    Format("torch", ".pt2", "a torch.export program, checked against the source", f"{_EXPORTING}:write_torch"),
    Format("folder", "", "weights as safetensors with JSON, for from_pretrained", f"{_EXPORTING}:write_folder"),
)
EMBEDDINGS = (
    Format("parquet", "", "Parquet shards, which Python and --embeddings read back", f"{_RUNS}:write_parquet"),
)


def export_formats(own: Iterable[Format] = ()) -> dict[str, Format]:
    """What `export` writes, by name: the suite's formats, those of a vertical (`own`), those of other packages.

    >>> list(export_formats())[:3]
    ['onnx', 'torch', 'folder']
    """
    return _found(EXPORTS, own, EXPORT_GROUP)


def embedding_formats(own: Iterable[Format] = ()) -> dict[str, Format]:
    """What `embed` writes, by name.

    >>> list(embedding_formats())[:1]
    ['parquet']
    """
    return _found(EMBEDDINGS, own, EMBEDDING_GROUP)


def in_words(known: Mapping[str, Format]) -> str:
    """All formats in one line of a help text."""
    return "Formats: " + "; ".join(f"{f.name} ({f.ending}): {f.summary}" for f in known.values()) + "."


def _found(built_in: Iterable[Format], own: Iterable[Format], group: str) -> dict[str, Format]:
    found: dict[str, Format] = {}
    for known in (*built_in, *own):
        if found.setdefault(known.name, known) is not known:
            raise TypeError(f"there is a format {known.name!r} already; give yours another name")
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        known = point.load()
        if not isinstance(known, Format) or known.name != point.name:
            raise TypeError(f"entry point {point.name} = {point.value} of {group} is not a Format of that name")
        found.setdefault(known.name, known)
    return found
