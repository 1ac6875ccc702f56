"""What a vertical tells the command line about itself. Light: neither this nor a vertical's `cli.py` imports torch.

A vertical's `cli.py` holds one constant, named in the entry-point group `counterpoint.verticals`:

    vertical = Vertical(
        name="audio",
        package="counterpoint.audio_speech",
        summary="audio, speech and sheet music",
        extra="audio-speech",
        systems=(SystemEntry(name="audio-sheet", status="ready", ...),),
        importers=(Importer("scores", "MusicXML, MEI and MIDI", "counterpoint.audio_speech.commands:import_scores"),),
        demo="counterpoint.audio_speech.commands:demo",
    )

Everything else is named as `"module:attribute"` and imported when its verb is used. The **signature** of a named
function is its command-line interface: annotated keyword parameters become `--options`, the docstring becomes the
help. So the module that holds it must be light (import torch, pandas and domain libraries inside the function), or
the verb's `--help` is slow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from counterpoint.common.formats import Format

#: `"module:attribute"`, resolved by `counterpoint.common.lazy.resolve`.
Target = str


@dataclass(frozen=True)
class SystemEntry:
    """One trainable system of a vertical.

    Attributes:
        name: kebab-case name on the command line, e.g. `audio-sheet`.
        status: `ready` where the system meets the criteria below, else `experimental`; `systems` adds the fourth, which
            its records decide.
        paper: authors, title, year, as one would cite it in a table.
        summary: one sentence: what is learnt from what.
        needs: the data and the extra it needs.
        config: `"module:Class"` of its frozen config dataclass, in a module without torch.
        system: `"module:Class"` of its `ContrastiveSystem`.
        protocols: `(run: common.runs.opened.OpenRun) -> dict[str, Result]` of `common.metrics`: evaluations of this
            system beyond the common ones (piece identification, ...). `run.label` is the field or column asked for;
            what cannot be scored by it is a `NotRun` with the reason. A result is a frozen dataclass, written to the
            JSON as it is; its fields `intervals` (metric -> `Interval`) with `chance` (metric -> number) stand in the
            tables of `evaluate` and `report` too, its `notes` (sentences) below them.
        shared: which of the common protocols are measured unasked, by name, where not all that the data allow suit: all
            ranks of a million items, of which a protocol of the system's own streams the first ones. Any other may
            still be named (`evaluate --protocols`).
        evaluation: the section of the configuration that says how it is evaluated and not how it is trained, where it
            has one; its settings may be given anew (`evaluate --settings`).
        missing: which criteria an `experimental` system does not meet and why, as in "2: the encoder is ours".

    A working system meets four criteria:

    1. its objective equals the official code's numbers, or the written equation where there is no code;
    2. its architecture and full-scale configuration are the paper's;
    3. it trains from the field's files, resumes, embeds, evaluates;
    4. a check of one of its paper's claims was run with power on the code as it is, whatever it found.

    >>> SystemEntry("a", "ready", "A. Author, 2020", "a summary", "nothing", "m:C", "m:S").as_dict()["status"]
    'ready'
    """

    name: str
    status: Literal["ready", "experimental"]
    paper: str
    summary: str
    needs: str
    config: Target
    system: Target
    protocols: Target | None = None
    shared: tuple[str, ...] | None = None
    evaluation: str = ""
    missing: str = ""

    def as_dict(self) -> dict[str, str]:
        """The row that `systems --json` prints."""
        row = {key: getattr(self, key) for key in ("name", "status", "paper", "summary", "needs")}
        return {**row, "module": self.module}

    @property
    def module(self) -> str:
        """The module of the system's class, whose text names the file of each of the paper's terms."""
        return self.system.partition(":")[0]


@dataclass(frozen=True)
class Rejected:
    """An input that was not taken: which one (file, or file and row) and why, in words its owner understands."""

    source: str
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What an importer or a generator wrote, and what it left out.

    Attributes:
        manifest: the manifest file written.
        rows: number of samples in it.
        rejected: every input left out, with its reason. Nothing is dropped in silence.
        note: a sentence the user must see, e.g. that the data are synthetic.
    """

    manifest: Path
    rows: int
    rejected: tuple[Rejected, ...] = ()
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Figures for `--json`."""
        rejected = [{"source": r.source, "reason": r.reason} for r in self.rejected]
        return {"manifest": str(self.manifest), "rows": self.rows, "rejected": rejected, "note": self.note}

    @property
    def lines(self) -> tuple[str, ...]:
        """The same in words."""
        left_out = [f"left out: {r.source}: {r.reason}" for r in self.rejected]
        wrote = [f"{self.manifest}: {self.rows} rows"] if self.rows else []
        return (*wrote, *left_out, *([self.note] if self.note else []))

    @property
    def failed(self) -> str:
        """Why the whole import failed, if it did: nothing could be taken."""
        return f"not one input could be taken, so {self.manifest} was not written" if self.rows == 0 else ""


@dataclass(frozen=True)
class Outcome:
    """What a vertical's own verb (`demo`, `preview`) hands back; the command line prints it.

    Attributes:
        figures: JSON-ready figures, printed by `--json`.
        lines: the same in words, printed otherwise.
        files: what was written, by name, e.g. `{"report": Path("runs/demo/report.html")}`.
        failed: a sentence when the work was done but its verdict is bad (unusable rows, leakage): exit code 2.
    """

    figures: Mapping[str, Any] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    failed: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Figures and files for `--json`."""
        return {**self.figures, "files": {name: str(path) for name, path in self.files.items()}}


@dataclass(frozen=True)
class Given:
    """Data handed over in Python, in a system's own form: what a vertical's `samples_from` makes of X.

    Attributes:
        data: the same as the system's `read` would give of files (`ContrastiveSystem.use` takes it). `row_of` of its
            samples says which row of X they came from.
        config: the system's settings, with what X itself says (the length of its series, ...).
        left_out: rows of X that make no sample, each with its reason.
        notes: sentences that the user must see.
    """

    data: Any
    config: Any
    left_out: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Importer:
    """Turns one of the field's own formats into a manifest.

    Attributes:
        name: kebab-case name of the format, e.g. `scores`.
        summary: one sentence for the help.
        run: `(source: Path, out: Path, **options) -> ImportReport`; `source` is a file or folder, `out` the folder that
            receives `manifest.parquet`; the annotated keyword parameters after them become `--options`.
    """

    name: str
    summary: str
    run: Target


@dataclass(frozen=True)
class OwnVerb:
    """A verb that the field has beside the suite's (`recommend`).

    Attributes:
        name: as on the command line.
        summary: one sentence for the help.
        run: `(...) -> Outcome`; its signature is the command line.
    """

    name: str
    summary: str
    run: Target


@dataclass(frozen=True)
class Modality:
    """One kind of thing that a vertical's systems embed. Every function is given the modality's name and the system in
    use, so that one may serve several.

    Attributes:
        name: as its embeddings are called (`audio`, `molecule`).
        endings: of files that hold it, in lower case, for `search --file` without `--source`.
        read: `(file: Path, modality, system) -> dict | Samples`, a user's file in the form that the loaded system
            takes, for `search --file` and the class descriptions of `evaluate --prompts`; runs in a process of its own,
            with the system's `config` and `assets`. A file that is longer than one window gives all of its windows
            (samples, or a list under `windows`), and these vote in `search`. Dictionaries become a batch as
            `Samples.collate` does it; what needs another way is returned as `ListSamples(found, collate)`.
        parse: `(text: str, modality, system) -> dict | Samples`, a user's text (a SMILES string, a sentence), for
            `search --text` and `evaluate --prompts`.
        picture: `(sample: dict, modality, system) -> common.report.Media`, one sample in the field's own picture
            (slice, spectrogram with its sound, sheet music, molecule), for `report` and `search`; None where the field
            has no picture of such a sample.
        caption: `(sample: dict, modality, system) -> str`, a sample in one line of the field's own text (the SMILES of
            a molecule), for the neighbours that `search` lists.

    >>> Vertical("x", "p", "s", modalities=(Modality("sound", endings=(".wav",)),)).modality_of("A.WAV")
    'sound'
    """

    name: str
    endings: tuple[str, ...] = ()
    read: Target | None = None
    parse: Target | None = None
    picture: Target | None = None
    caption: Target | None = None


@dataclass(frozen=True)
class Vertical:
    """Everything the command line knows about a vertical. A verb appears only when what it needs is given.

    Attributes:
        name: name on the command line (`counterpoint <name> ...`).
        package: the Python package.
        summary: one sentence for the help.
        extra: the pip extra that brings the domain libraries; named when one of them is missing.
        systems: trainable systems (verbs `pretrain`, `evaluate`, `embed`, `search`, `report`).
        importers: field formats (`data import`).
        data_check: `(row: dict, root: Folder) -> None`, raises with the reason when a row's file cannot be used;
            `root / name` is the path of a file that the row names, or refuses one that leads out of the manifest's
            folder (`data check`; without it only the table itself is checked).
        check, split: `(manifest: Path, **options) -> Outcome`, `data check` and `data split` of data whose rows are no
            samples of a manifest (a log of interactions, one graph); without them the suite's own.
        simulate: `(out: Path, **options) -> ImportReport` (`data simulate`).
        preview: `(manifest: Path, out: Path, **options) -> Outcome` (`data preview`).
        demo: `(out: Path, **options) -> Outcome`; `out` needs a default (`demo`).
        modalities: the kinds of things that its systems embed: how a user's file or text of one is read, and how one is
            shown.
        samples_from: `(x, config, groups, split, assets) -> Given`, data in memory for a system, for
            `common.estimators.Encoder`. `x` is an array of numbers [rows, ...] or a list of other things (texts,
            objects), `groups` and `split` (`train`, `val`) name those of every row; `assets` are None for a new system,
            else those of a trained one, to which the data are brought. Raises `InputError` for a system that learns
            from no such data.
        checks: a mapping from the name of a check (`<system>-...`) to its `common.trainers.reproduce.Claim` and
            `(data: Path | None, arm: str, seed: int) -> float`, for `reproduce`.
        export_formats: what `export` writes beside the suite's own formats (`common.formats`).
        embedding_formats: what `embed` writes beside Parquet: rasters, volumes, item tables.
        verbs: verbs of the field's own.

    >>> Vertical(name="graphs", package="counterpoint.graphs", summary="graphs").systems
    ()
    """

    name: str
    package: str
    summary: str
    extra: str = ""
    systems: tuple[SystemEntry, ...] = ()
    importers: tuple[Importer, ...] = ()
    data_check: Target | None = None
    check: Target | None = None
    split: Target | None = None
    simulate: Target | None = None
    preview: Target | None = None
    demo: Target | None = None
    modalities: tuple[Modality, ...] = ()
    samples_from: Target | None = None
    checks: Target | None = None
    export_formats: tuple[Format, ...] = ()
    embedding_formats: tuple[Format, ...] = ()
    verbs: tuple[OwnVerb, ...] = ()

    def modality(self, name: str) -> Modality:
        """What is known of a modality by its name; nothing but the name where the vertical lists none."""
        return next((m for m in self.modalities if m.name == name), Modality(name))

    def modality_of(self, file: str, among: Collection[str] | None = None) -> str | None:
        """The modality (`among` those of a system) that a file's ending says, compressed or not; None where none does,
        or several do."""
        name = file.lower().removesuffix(".gz")
        found = [m.name for m in self.modalities if name.endswith(m.endings) and (among is None or m.name in among)]
        return found[0] if len(found) == 1 else None
