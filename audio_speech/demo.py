"""The demo: from printed chorales and synthetic sound to a common space, with honest figures and a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from counterpoint.audio_speech.audio_sheet import AudioSheet
from counterpoint.audio_speech.configs import AudioSheetConfig
from counterpoint.audio_speech.gallery import caption, picture
from counterpoint.audio_speech.identify import Identification, identify
from counterpoint.audio_speech.snippets import SnippetDataset
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.metrics import Retrieval, RetrievalResult, label_free, retrieval
from counterpoint.common.progress import note
from counterpoint.common.report import GalleryRow
from counterpoint.common.runs.demonstration import Demonstration
from counterpoint.common.runs.page import curves
from counterpoint.common.runs.retrieved import draw_queries, retrieved_rows
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.common.vertical import Outcome

KS = (1, 10, 25)
SAID = ("R@1", "R@10", "R@25", "MRR", "median_rank")


def demo_config(
    out: Path, preset: str = "small", pieces: int = 0, steps: int = 0, seed: int = 0, workers: int = 2
) -> AudioSheetConfig:
    """The configuration of the demo's run."""
    config = AudioSheetConfig()
    if preset != "full":
        config = override(config, AudioSheetConfig.presets[preset])
    changes: dict[str, Any] = {
        "data.pieces": pieces,
        "data.workers": workers,
        "train.out": str(out),
        "train.overwrite": True,
        "train.seed": seed,
    }
    if steps:
        changes |= {"sheet_stage.max_steps": steps, "audio_stage.max_steps": steps, "train.max_steps": steps}
    return override(config, changes)


def run_demo(
    out: Path, *, preset: str = "small", pieces: int = 0, steps: int = 0, seed: int = 0, workers: int = 2
) -> Outcome:
    """Render, train, evaluate on unseen pieces, write `out/report.html`."""
    demo = Demonstration(out)
    config = demo_config(demo.out, preset, pieces, steps, seed, workers)
    system = create_system(AudioSheet, config)
    note("engraving the chorales and playing them (kept in the cache for the next time)")
    data = system.data
    demo.lap("rendering")
    counts = data.manifest.frame["split"].value_counts()
    note(
        f"{len(data.manifest)} chorales: {counts['train']} for training, {counts['val']} for validation, "
        f"{counts['test']} for the test, no tune in two of them"
    )
    note("training each modality alone, then both together")
    result = fit(system)
    demo.lap("training")
    note("evaluating on the test pieces and writing the report")
    best = load_run(result.run_dir, "best").use(data)
    known, unseen = (
        encode_rows(best, part, batch_size=100, progress="encoding").vectors for part in (data.test, data.unseen)
    )
    findings = {
        f"seen timbre and tempo ({config.data.test_rendition})": judge_retrieval(known, data.test),
        f"unseen timbre and tempo ({config.data.unseen_rendition})": judge_retrieval(unseen, data.unseen),
    }
    _page(demo, best, findings, known, data.test, result.run_dir)
    figures = {
        "audio": "synthetic, rendered from real scores",
        "preset": preset,
        "pieces": {name: int(n) for name, n in counts.items()},
        "parameters": {name: sum(p.numel() for p in tower.parameters()) for name, tower in best.towers.items()},
        "results": {name: {k: v.as_dict() for k, v in found.items()} for name, found in findings.items()},
    }
    commands = ["make demo", "counterpoint audio demo", "counterpoint audio demo --preset full"]
    return demo.finish(figures, summary(findings), commands)


def judge_retrieval(vectors: dict[str, Tensor], dataset: SnippetDataset) -> dict[str, Any]:
    """Snippet retrieval and piece identification, both directions, with intervals by tune."""
    tunes = [dataset.tunes[moment.piece] for moment in dataset.moments]
    pieces = dataset.piece_ids
    group = dict(zip(pieces, tunes))
    both = retrieval(vectors["audio"], vectors["sheet"], groups=tunes, ks=KS, names=("audio", "sheet"))
    found: dict[str, Any] = {way.name: way for way in (both.a_to_b, both.b_to_a)}
    for a, b in (("audio", "sheet"), ("sheet", "audio")):
        name = f"piece, {a} -> {b}"
        found[name] = identify(vectors[a], pieces, vectors[b], pieces, name=name, groups=group)
    return found


def summary(findings: dict[str, dict[str, Any]]) -> list[str]:
    """The figures in words: value, 95 % interval, chance."""
    lines = ["Synthetic audio rendered from real scores; pieces and tunes of the test were never trained on."]
    for title, found in findings.items():
        lines += ["", title]
        for way in found.values():
            whole = isinstance(way, Identification)
            thing = "pieces" if whole else "snippets"
            lines.append(f"  {way.name}: {way.queries} {thing} looked for in a pool of {way.pool}")
            for key in ("R@1", "MRR", "median_rank") if whole else SAID:
                lines.append("    " + _figure(key, way))
    return lines


def _figure(key: str, way: Any) -> str:
    interval, share = way.intervals[key], key.startswith("R@")

    def show(value: float) -> str:
        return f"{100 * value:.1f} %" if share else f"{value:.3f}" if key == "MRR" else f"{value:g}"

    spread = f"95 % interval {show(interval.low)} to {show(interval.high)}"
    return f"{key.replace('_', ' '):12} {show(way.metrics[key]):>8}   {spread}, chance {show(way.chance[key])}"


def _page(
    demo: Demonstration,
    system: AudioSheet,
    findings: dict[str, dict[str, Any]],
    vectors: dict[str, Tensor],
    dataset: SnippetDataset,
    run_dir: Path,
) -> None:
    counts = system.data.manifest.frame["split"].value_counts()
    page = demo.open(
        "Which bars are these? Audio and sheet music in one space",
        f"Bach chorales of the music21 corpus: {counts['train']} pieces for training, {counts['test']} other ones, "
        "with other tunes, for this test",
    )
    page.text("Synthetic audio rendered from real scores. A snippet is 200 x 160 pixels of print, or 4.2 s of sound.")
    for title, found in findings.items():
        page.section(title[0].upper() + title[1:])
        ways = [way for way in found.values() if not isinstance(way, Identification)]
        page.retrieval(Retrieval(*ways))
        rows = [
            [way.name, way.queries, way.pool, key.replace("_", " "), way.metrics[key], str(way.intervals[key]),
             way.chance[key]]
            for way in found.values()
            if isinstance(way, Identification)
            for key in ("R@1", "R@5", "MRR", "median_rank")
        ]  # fmt: skip
        columns = ["direction", "pieces", "pool", "metric", "value", "95 % interval", "chance"]
        page.table("Piece identification: all snippets of a piece vote", rows, columns)
    page.section(
        "What is retrieved",
        "Queries drawn at random from the test. The framed answer is the right snippet; where "
        "it is not among the first, it stands at the end of the row.",
    )
    for way in next(iter(findings.values())).values():
        if not isinstance(way, Identification):
            page.gallery(way.name, _gallery(vectors, dataset, way))
    page.section("The common space")
    names = list(vectors)
    n = len(dataset)
    page.embedding_map(
        "Sheet and audio snippets of the test pieces",
        torch.cat([vectors[m] for m in names]),
        [m for m in names for _ in range(n)],
        [f"{m}: {caption(dataset[i], m)}" for m in names for i in range(n)],
        links=[(i, n + i) for i in range(n)],
    )
    for modality in names:
        page.monitors(modality, label_free(vectors[modality]))
    page.section("Training")
    for title, series in curves(run_dir).items():
        page.curves(title, series)
    page.section("Configuration")
    page.config("config.yaml", (run_dir / "config.yaml").read_text(encoding="utf-8"))
    page.table("Time", [[name, round(value, 1)] for name, value in demo.seconds.items()], ["part", "seconds"])


def _gallery(
    vectors: dict[str, Tensor], dataset: SnippetDataset, way: RetrievalResult, examples: int = 6, shown: int = 4
) -> list[GalleryRow]:
    a, b = way.name.split(" -> ")
    return retrieved_rows(
        vectors[a],
        vectors[b],
        draw_queries(len(dataset), examples, 0),
        asked=lambda query: picture(dataset[query], a),
        answer=lambda hit, _: picture(dataset[hit], b),
        right=lambda query: torch.arange(len(dataset)) == query,
        note=lambda query: f"right answer at place {way.ranks[query]:g} of {way.pool}",
        shown=shown,
    )
