"""The ways by which files come in, and for each way the kinds of files: a reader to come is one line in `READERS`."""

import contextlib
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import files

from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.trainers import Assets
from counterpoint.common.vertical import ImportReport

Read = Callable[[Path, Path], str]
OPTIONS = {"arrays": {"fs": 50.0}, "molecules": {"split": "none"}}
#: Rows of what an importer makes of its first reader's good files, where these are not one.
ROWS = {"hetero": 6}
#: The files of a folder of edge lists.
HETERO = ("pa.txt", "p_feat.npz", "labels.npy", "train_2.npy")
#: The files of a data set of interactions that a training reads.
KEPT = ("interactions.parquet", "items.parquet", "manifest.parquet", "vectors.npy", "vectors.mask.npy")


#: A BIDS recording and what stands beside it.
BIDS = (
    "sub-01_task-rest_eeg.edf", "sub-01_task-rest_events.tsv", "sub-01_task-rest_channels.tsv", "participants.tsv",
)  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """One kind of file on one way in.

    Attributes:
        way: in words: a verb, or the function that reads.
        file: the name of the file that is damaged.
        make: writes a good one (and what belongs to it).
        prepare: what is done while it is good, with the file and a folder of its own.
        read: reads it; returns what is said of inputs left out (empty: all is accepted), or raises `InputError`.
    """

    way: str
    file: str
    make: Callable[[Path], object]
    read: Read
    prepare: Read | None = None

    @property
    def name(self) -> str:
        return f"{self.way}: {self.file}"


def _report(report: ImportReport) -> str:
    return " ".join(f"{r.source}: {r.reason}" for r in report.rejected)


def _import(vertical: str, importer: str, source: str, file: Path, out: Path) -> str:
    (run,) = (i.run for i in find_verticals()[vertical]().importers if i.name == importer)
    place = file.parent if source == "." else file.with_name(source) if source else file
    return _report(resolve(run)(place, out, **OPTIONS.get(importer, {})))


def imported(vertical: str, importer: str, file: str, make: Callable, source: str = "") -> Reader:
    """`data import`; `source` names another file than the damaged one (`.`: its folder)."""
    return Reader(f"{vertical} data import {importer}", file, make, partial(_import, vertical, importer, source))


def _check(vertical: str, file: Path, out: Path) -> str:
    from counterpoint.common.cli.data import check

    return json.dumps(check(find_verticals()[vertical](), out / "manifest.parquet").figures["bad"])


def _load_windows(file: Path, out: Path) -> str:
    from counterpoint.timeseries.configs import SignalConfig
    from counterpoint.timeseries.manifest import load_windows

    load_windows(SignalConfig(manifest=str(out / "manifest.parquet"), length=0, cache=False))
    return ""


def _load_circuits(file: Path, out: Path) -> str:
    from counterpoint.common.data import Manifest
    from counterpoint.graphs.circuits.data import load_circuits

    load_circuits(Manifest.load(out / "manifest.parquet"))
    return ""


def _copied(read: Read, name: str, file: Path, out: Path) -> str:
    """The importer has copied the file; the copy meets the accident."""
    (copy,) = out.rglob(name)
    copy.write_bytes(file.read_bytes())
    return read(file, out)


def after_import(
    verb: str, read: Read, vertical: str, importer: str, file: str, make: Callable, copy: str = "", source: str = ""
) -> Reader:
    """A file that is damaged after its import, read by way of the manifest."""
    prepare = partial(_import, vertical, importer, source)
    return Reader(f"{vertical} {verb}", file, make, partial(_copied, read, copy) if copy else read, prepare)


def _query(vertical: str, modality: str, config: str, file: Path, out: Path) -> str:
    from counterpoint.common.runs.queries import samples_of_file

    made = resolve(config)()
    if vertical == "timeseries":
        made = replace(made, data=replace(made.data, length=0, normalize="record", fs=50.0))
    assets = Assets()
    if vertical == "timeseries":  # a system that was trained on leads like the file's own
        names = resolve("counterpoint.timeseries.readers.dispatch:read_record")(Path(file), 50.0).names
        assets = Assets(leads=names, units=[""] * len(names), fs=50.0)
    system = SimpleNamespace(config=made, assets=assets)
    samples_of_file(find_verticals()[vertical](), system, file, modality)
    return ""


def asked(vertical: str, modality: str, config: str, file: str, make: Callable) -> Reader:
    """`search --file`."""
    return Reader(f"{vertical} search --file", file, make, partial(_query, vertical, modality, config))


def _call(target: str, file: Path, out: Path) -> str:
    resolve(target)(file.with_name("ind.g") if file.name.startswith("ind.") else file)
    return ""


def called(target: str, file: str, make: Callable) -> Reader:
    """A function that reads the file."""
    return Reader(target.rpartition(":")[2], file, make, partial(_call, target))


def _manifest(file: Path, out: Path) -> str:
    from counterpoint.common.data import Manifest

    table = Manifest.load(file.with_name(file.name.removesuffix(".meta.json")))
    assert table.hash
    return ""


def _shards(file: Path, out: Path) -> str:
    from counterpoint.common.data import Manifest
    from counterpoint.common.data.shards import ShardReader, index_shards

    table = Manifest.load(file.parent / "manifest.parquet")
    for i in range(len(table)):
        ShardReader(table).files(table.row(i))
    index_shards([str(file)])
    return ""


def _load_snippets(file: Path, out: Path) -> str:
    from counterpoint.audio_speech.configs import SheetDataConfig
    from counterpoint.audio_speech.snippets import load_snippets

    manifest = str(file.with_name("manifest.csv"))
    load_snippets(SheetDataConfig(manifest=manifest, renditions_per_piece=1, workers=1))
    return ""


def _load_molecules(file: Path, out: Path) -> str:
    from counterpoint.common.trainers.configs import TrainConfig
    from counterpoint.graphs.configs import MoleculeDataConfig
    from counterpoint.graphs.molecules.data import molecule_datasets

    molecule_datasets(MoleculeDataConfig(manifest=str(file)), TrainConfig())
    return ""


def _with_table(file: Path, out: Path) -> str:
    """`data import wfdb` with a table about the records."""
    run = resolve("counterpoint.timeseries.commands:import_wfdb")
    return _report(run(file.parent, out, table=file))


def _hetero_graph(path: Path) -> None:
    """What the importer writes."""
    whole = path.parent / "whole"
    whole.mkdir(exist_ok=True)
    files.hetero_folder(whole / "pa.txt")
    assert _import("graphs", "hetero", ".", whole / "pa.txt", whole / "set") == ""
    shutil.copyfile(whole / "set" / "graph.npz", path)


def _load_hetero(file: Path, out: Path) -> str:
    from counterpoint.graphs.hetero.graph import load_hetero

    load_hetero(file)
    return ""


def _vectors_of_items(file: Path, out: Path) -> str:
    """`data import mmrec` with vectors of the items."""
    run = resolve("counterpoint.recsys.commands:import_mmrec")
    return _report(run(file.with_suffix(".inter"), out, features=(f"vectors={file}",)))


def _data_set(path: Path) -> None:
    """A data set of interactions, whose files lie beside the one named."""
    whole = path.parent / "whole"
    whole.mkdir(exist_ok=True)
    files.item_vectors(whole / "v.npy")
    assert _vectors_of_items(whole / "v.npy", whole / "set") == ""
    shutil.copytree(whole / "set", path.parent, dirs_exist_ok=True)
    shutil.copytree(whole / "set" / "features", path.parent, dirs_exist_ok=True)


def _load_interactions(file: Path, out: Path) -> str:
    from counterpoint.recsys.configs import InteractionsConfig
    from counterpoint.recsys.data.folder import open_dataset, prepared

    if file.name.startswith("vectors"):
        (file.parent / "features" / file.name).write_bytes(file.read_bytes())
    data = prepared(open_dataset(file.parent / "manifest.parquet"), InteractionsConfig(core=1, split="random"))
    for name in data.features:
        data.feature(name)
    return ""


@cache
def _trained() -> TemporaryDirectory:
    """A folder with a small run, made once."""
    from counterpoint.common.trainers import create_system, fit, override
    from counterpoint.graphs.configs import GraphCLConfig
    from counterpoint.graphs.molecules.graphcl import GraphCL

    folder = TemporaryDirectory()
    file = Path(folder.name, "m.csv")
    files.molecule_table(file)
    changes = {"data.manifest": str(file), "hidden": 8, "node_dim": 8, "train.batch_size": 4, "train.max_steps": 1}
    changes |= {"train.tensorboard": False, "train.out": str(file.with_name("run"))}
    fit(create_system(GraphCL, override(GraphCLConfig(), changes)))
    return folder


def _take_run(file: Path, out: Path) -> str:
    shutil.copytree(Path(_trained().name, "run"), out / "run")
    return ""


def _run_on(verb: str, file: Path, out: Path) -> str:
    """`evaluate` or `embed` of a trained run on a manifest of one's own."""
    from counterpoint.common.runs.embedding import embed
    from counterpoint.common.runs.evaluation import evaluate

    if verb == "embed":
        shutil.rmtree(out / "vectors", ignore_errors=True)
        embed(out / "run", out / "vectors", manifest=file, columns=("y",))
    else:
        kept = {"out": out / "figures.json", "vertical": find_verticals()["graphs"]()}
        evaluate(out / "run", manifest=file, label="y", baseline="none", bootstrap=20, **kept)
    return ""


def of_a_run(verb: str, file: str, make: Callable) -> Reader:
    """A verb of a trained run on another manifest."""
    return Reader(f"{verb} of a run on a manifest", file, make, partial(_run_on, verb), _take_run)


def _vectors(ids: str | None, file: Path, out: Path) -> str:
    from counterpoint.common.runs.foreign import evaluate_embeddings

    place = file.with_name("v.npy") if file.suffix == ".csv" else file
    table = str(file.with_name(ids)) if ids else None
    columns = {"ids": table, "labels": f"{table}:label", "splits": f"{table}:split"} if ids else {}
    evaluate_embeddings((str(place),), bootstrap=20, out=out / "figures.json", **columns)
    return ""


def foreign(file: str, make: Callable, ids: str | None = None) -> Reader:
    """`evaluate --embeddings`."""
    return Reader("evaluate --embeddings", file, make, partial(_vectors, ids))


def _settings(file: Path, out: Path) -> str:
    from counterpoint.common.cli.main import main
    from counterpoint.common.cli.options import parsing_only

    said = io.StringIO()
    with parsing_only(), contextlib.redirect_stderr(said):
        code = main(["graphs", "pretrain", "graphcl", "--config", str(file)])
    assert code == (2 if said.getvalue() else 0), (code, said.getvalue())
    return said.getvalue()


AUDIO = "counterpoint.audio_speech.configs:AudioSheetConfig"
CPC = "counterpoint.audio_speech.sounds.configs:CPCConfig"
SIGNAL = "counterpoint.timeseries.configs:TS2VecConfig"
GRAPH = "counterpoint.graphs.configs:KCLConfig"
NODES = "counterpoint.graphs.nodes.reader:read_graph"


def _beside(content: str, other: str, netlist: str):
    def make(path: Path) -> None:
        path.write_text(content)
        path.with_name(other).write_text(netlist)

    return make


def _both_of(content: str):
    def make(path: Path) -> None:
        path.write_text(content)
        path.with_name(path.name.replace("TRAIN", "TEST")).write_text(content)

    return make


SP_SPEF = _beside(files.SPEF, "c.sp", files.SPICE)
READERS = (
    imported("timeseries", "edf", "r.edf", files.edf),
    imported("timeseries", "wfdb", "r.hea", files.wfdb),
    imported("timeseries", "wfdb", "r.dat", files.wfdb, "r.hea"),
    imported("timeseries", "edf", "SC4001E0-PSG.edf", files.night, "."),
    imported("timeseries", "edf", "SC4001EC-Hypnogram.edf", files.night, "."),
    Reader("timeseries data import --table", "records.csv", files.told_records, _with_table),
    *(imported("timeseries", "bids", name, files.bids, ".") for name in BIDS),
    imported("timeseries", "ptbxl", "ptbxl_database.csv", files.ptbxl, "."),
    imported("timeseries", "ptbxl", "scp_statements.csv", files.ptbxl, "."),
    imported("timeseries", "arrays", "r.csv", files.text(files.TABLE)),
    imported("timeseries", "arrays", "r.npz", files.npz),
    imported("timeseries", "arrays", "r.parquet", files.parquet),
    imported("timeseries", "ucr", "a_TRAIN.ts", _both_of(files.TS), "."),
    imported("timeseries", "ucr", "a_TRAIN.arff", _both_of(files.ARFF), "."),
    imported("timeseries", "ucr", "a_TRAIN.tsv", _both_of(files.TSV), "."),
    imported("timeseries", "arrays", "r.npy", files.npy),
    imported("audio", "scores", "a.musicxml", files.text(files.MUSICXML)),
    imported("audio", "scores", "a.mxl", files.mxl),
    imported("audio", "scores", "a.mei", files.text(files.MEI)),
    imported("audio", "scores", "a.mid", files.midi),
    *(imported("audio", "sounds", f"a.{kind}", files.sound) for kind in ("wav", "flac", "ogg")),
    imported("audio", "kaldi", "wav.scp", files.kaldi, "."),
    imported("audio", "sounds", "metadata.csv", files.told_sounds, "."),
    imported("graphs", "molecules", "m.csv", files.text("smiles,y\nCCO,1\nc1ccccc1,0\nCC(C)O,1\n")),
    imported("graphs", "molecules", "m.smi", files.text("CCO a\nCC b\n")),
    imported("graphs", "molecules", "m.sdf", files.text(files.SDF)),
    imported("graphs", "molecules", "m.sdf.gz", files.sdf_gz),
    imported("graphs", "circuits", "c.sp", files.text(files.SPICE)),
    imported("graphs", "circuits", "s.sp", files.text(files.SPECTRE)),
    imported("graphs", "circuits", "c.spef", SP_SPEF, "c.sp"),
    imported("graphs", "circuits", "c.dspf", files.text(files.DSPF)),
    *(imported("graphs", "hetero", name, files.hetero_folder, ".") for name in HETERO),
    imported("graphs", "hetero", "h.pt", files.hetero_pt),
    Reader("graphs data of a run", "graph.npz", _hetero_graph, _load_hetero),
    imported("geo", "rasters", "s2.tif", files.raster),
    imported("geo", "rasters", "item.json", files.stac_item),
    after_import("data check", partial(_check, "geo"), "geo", "rasters", "s2.tif", files.raster),
    imported("recsys", "interactions", "l.csv", files.text(files.INTERACTIONS)),
    imported("recsys", "interactions", "l.parquet", files.interactions_parquet),
    imported("recsys", "interactions", "l.jsonl", files.interactions_jsonl),
    imported("recsys", "recbole", "l.inter", files.text(files.ATOMIC)),
    imported("recsys", "recbole", "l.item", files.catalogue, "l.inter"),
    imported("recsys", "mmrec", "l.inter", files.text(files.LABELLED)),
    imported("recsys", "sequences", "l.txt", files.text(files.SEQUENCES)),
    imported("recsys", "edges", "train.npy", files.edges),
    imported("medical", "nifti", "v.nii", files.nifti),
    imported("medical", "nifti", "v.nii.gz", files.nifti),
    imported("medical", "nifti", "v.nrrd", files.volume_nrrd),
    imported("medical", "dicom", "s.dcm", files.dicom, "."),
    imported("medical", "radiographs", "x.png", files.strip),
    imported("medical", "radiographs", "x.jpg", files.strip),
    imported("medical", "radiographs", "x.dcm", files.radiograph),
    Reader("recsys item features", "l.npy", files.item_vectors, _vectors_of_items),
    *(Reader("recsys data of a run", name, _data_set, _load_interactions) for name in KEPT),
    after_import("data check", partial(_check, "timeseries"), "timeseries", "edf", "r.edf", files.edf),
    after_import("data check", partial(_check, "timeseries"), "timeseries", "arrays", "r.npz", files.npz),
    after_import("data check", partial(_check, "audio"), "audio", "scores", "a.mxl", files.mxl, "a.mxl"),
    after_import("data check", partial(_check, "audio"), "audio", "scores", "a.mei", files.text(files.MEI), "a.mei"),
    after_import("data check", partial(_check, "medical"), "medical", "nifti", "v.nii", files.nifti),
    after_import("data check", partial(_check, "graphs"), "graphs", "circuits", "c.spef", SP_SPEF, "c.spef", "c.sp"),
    after_import("data of a run", _load_windows, "timeseries", "edf", "r.edf", files.edf),
    after_import("data of a run", _load_windows, "timeseries", "arrays", "r.csv", files.text(files.TABLE)),
    after_import("data of a run", _load_circuits, "graphs", "circuits", "c.sp", files.text(files.SPICE), "c.sp"),
    Reader("audio data of a run", "a.musicxml", files.three_scores, _load_snippets),
    Reader("graphs data of a run", "m.csv", files.molecule_table, _load_molecules),
    *(of_a_run(verb, "m.csv", files.molecule_table) for verb in ("evaluate", "embed")),
    foreign("v.npy", files.vectors_npy, "facts.csv"),
    foreign("v.parquet", files.vectors_parquet),
    foreign("facts.csv", files.vectors_table, "facts.csv"),
    Reader("pretrain --config", "c.yaml", files.text(files.SETTINGS), _settings),
    *(asked("audio", "audio", AUDIO, f"q.{kind}", files.sound) for kind in ("wav", "flac", "ogg")),
    asked("audio", "sound", CPC, "q.mp3", files.sound),
    asked("audio", "sheet", AUDIO, "q.mxl", files.mxl),
    asked("audio", "sheet", AUDIO, "q.mei", files.text(files.MEI)),
    asked("audio", "sheet", AUDIO, "q.png", files.strip),
    asked("graphs", "molecule", GRAPH, "q.sdf", files.text(files.SDF)),
    asked("timeseries", "signal", SIGNAL, "q.npz", files.npz),
    asked("timeseries", "signal", SIGNAL, "q.edf", files.edf),
    called(NODES, "g.npz", files.node_npz),
    called(NODES, "g.pt", files.node_pt),
    *(called(NODES, f"ind.g.{part}", files.planetoid) for part in files.PLANETOID),
    *(Reader("Manifest.load", f"m.{kind}", files.manifest, _manifest) for kind in ("parquet", "csv", "jsonl")),
    Reader("Manifest.load", "m.csv.meta.json", files.facts, _manifest),
    Reader("ShardReader, index_shards", "000000.tar", files.shards, _shards),
    called("counterpoint.common.runs.queries:read_prompts", "p.json", files.text('{"a": ["a.png"], "b": "b.png"}')),
)


def attempt(case: tuple[str, str, str, bytes]) -> str:
    """What became of one damaged file: `accepted`, `named`, or what was said that names nothing."""
    name, file, out, content = case
    (reader,) = (r for r in READERS if r.name == name)
    Path(file).write_bytes(content)
    try:
        said = reader.read(Path(file), Path(out))
    except InputError as error:
        said = str(error)
    if said in ("", "[]"):
        return "accepted"
    if "its reader failed" in said:
        return f"unforeseen: {said}"
    stem = Path(file).name.split(".")[0].split("_")[0]
    named = re.search(rf"(^|[^A-Za-z0-9]){stem}[._]", said) and "\n" not in said.strip()
    return "named" if named else f"nameless: {said}"
