"""The demo: synthetic CT volumes and reports to a common space, and findings in tiers against both floors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.metrics import Retrieval, label_free, retrieval
from counterpoint.common.progress import note
from counterpoint.common.report import GalleryRow
from counterpoint.common.runs.demonstration import Demonstration
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.runs.page import curves
from counterpoint.common.runs.retrieved import draw_queries, retrieved_rows
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.common.vertical import Outcome
from counterpoint.medical.clip_ct import ClipCT
from counterpoint.medical.configs import ClipCTConfig
from counterpoint.medical.data import CTReports, load_prepared
from counterpoint.medical.findings import TIERS, Findings, protocols
from counterpoint.medical.floors import FLOORS, floors
from counterpoint.medical.gallery import picture
from counterpoint.medical.phantom import FINDINGS, SYNTHETIC
from counterpoint.medical.simulate import column


def run_demo(out: Path, volumes: int, epochs: int, seed: int, workers: int) -> Outcome:
    """Simulate, train, evaluate on unseen phantoms, write `out/report.html`."""
    demo = Demonstration(out)
    config = override(ClipCTConfig(), ClipCTConfig.presets["small"])
    sizes = {"data.volumes": volumes, "data.val_volumes": max(volumes // 10, 20), "data.test_volumes": 200}
    changes: dict[str, Any] = {**sizes, "data.workers": workers, "train.max_epochs": epochs}
    config = override(config, changes | demo.training("clip-ct", seed))
    note(f"SYNTHETIC data: {SYNTHETIC} (kept in the cache for the next time)")
    system = create_system(ClipCT, config)
    demo.lap("simulating")
    note("training")
    result = fit(system)
    demo.lap("training")
    note("evaluating on phantoms that were never seen, and writing the report")
    best = load_run(result.run_dir, "last").use(system.data)
    run = OpenRun.of(best)
    found = protocols(run)
    test, encoded = run.samples(), run.encoded()
    reports = test.pools["report"]
    truth = test.relevant("report", "ct")
    both = retrieval(
        encoded.of("report"), encoded.of("ct"), relevant=truth, names=("report", "ct"), groups=reports.groups,
        groups_b=test.groups,
    )  # fmt: skip
    below = _floors(best)
    demo.lap("evaluating")
    rows = tier_rows(found["zero-shot findings"], below)
    _page(demo, best, both, rows, found, encoded, test, result.run_dir)
    figures = {
        "synthetic": SYNTHETIC,
        "volumes": {name: len(part) for name, part in zip(("train", "val", "test"), _parts(system))},
        "parameters": sum(p.numel() for p in best.parameters()),
        "retrieval": {way.name: way.as_dict() for way in (both.a_to_b, both.b_to_a)},
        "findings": found["zero-shot findings"].as_dict(),
        "floors": below,
    }
    lines = [f"SYNTHETIC data: {SYNTHETIC}.", ""]
    for way in (both.a_to_b, both.b_to_a):
        shown = ", ".join(f"{k} {way.metrics[k]:.2f} (chance {way.chance[k]:.3f})" for k in ("R@1", "R@5", "R@10"))
        lines.append(f"{way.name}: {shown}, pool of {way.pool}")
    lines += ["", "zero-shot AUROC, and what labels with a histogram or coarse voxels reach"]
    lines += [f"  {r[0]:20} {r[1]:21} {r[2]:24} floors {r[3]:.3f}, {r[4]:.3f}  {r[5]}" for r in rows]
    commands = [
        "counterpoint medical demo",
        "counterpoint medical data simulate --out phantoms",
        "counterpoint medical pretrain clip-ct --preset small",
    ]
    return demo.finish(figures, lines, commands)


def _parts(system: Any) -> list[Any]:
    datasets = system.datasets()
    return [datasets.train, datasets.val, datasets.test]


def _floors(system: Any) -> dict[str, dict[str, float]]:
    data = system.data
    sets = []
    for split in ("train", "test"):
        rows = data.rows(split)
        frame = data.manifest.frame.iloc[rows]
        labels = {finding: frame[column(finding)].tolist() for finding in FINDINGS}
        sets += [(load_prepared(data.volumes[r])[0] for r in rows), labels]
    return floors(*sets)


def tier_rows(found: Findings, below: dict[str, dict[str, float]]) -> list[list[Any]]:
    """Tier, finding, AUROC with its interval, both floors, and whether the interval lies above both."""
    rows = []
    for tier, findings in TIERS.items():
        for finding in findings:
            if finding not in found.metrics:
                continue
            values = [below[name].get(finding, float("nan")) for name in FLOORS]
            interval = found.intervals[finding]
            above = interval.low > max(*values, 0.5)
            rows.append([tier, finding, str(interval), *values, "above both" if above else "not above"])
    return rows


def _page(
    demo: Demonstration,
    system: Any,
    both: Retrieval,
    rows: list[list[Any]],
    found: dict[str, Any],
    encoded: Any,
    test: CTReports,
    run_dir: Path,
) -> None:
    page = demo.open(
        "Which scan is this report about? CT volumes and reports in one space",
        f"{len(_parts(system)[0])} synthetic volumes for training, {len(test)} others for this test",
        synthetic=SYNTHETIC,
    )
    page.text("Everything here is synthetic: phantoms and the sentences about them were made by a generator.")
    page.section("Retrieval")
    page.retrieval(both)
    page.section(
        "Findings that no label was trained on",
        "AUROC of sentences that affirm a finding against sentences that deny it. The floors were given the labels: a "
        "histogram of HU, and means, maxima and minima of 12 x 12 x 12 blocks, each under a linear classifier.",
    )
    columns = ["tier", "finding", "zero-shot AUROC (95 % interval)", "floor: histogram", "floor: voxels", "verdict"]
    page.table("Findings by tier", rows, columns)
    attributes = found.get("zero-shot attributes")
    if attributes is not None and attributes.metrics:
        listed = [[k, str(i), attributes.chance[k]] for k, i in attributes.intervals.items()]
        page.table(
            "Attributes, given that the finding is there", listed, ["attribute", "AUROC (95 % interval)", "chance"]
        )
    page.section(
        "What reports find",
        "Reports of the test drawn at random, and the volumes nearest to them: axial, coronal and sagittal planes "
        "through the middle, soft tissue window above, lung window below. The framed one is the report's own.",
    )
    page.gallery("report -> ct", _gallery(system, encoded, test))
    page.section("The common space")
    names = ("ct", "report")
    vectors = {name: encoded.of(name) for name in names}
    kinds = [name for name in names for _ in range(len(vectors[name]))]
    captions = [f"ct: {i}" for i in test.ids] + [f"report: {i}" for i in test.pools["report"].ids]
    page.embedding_map("Volumes and reports of the test", torch.cat([vectors[m] for m in names]), kinds, captions)
    for name in names:
        page.monitors(name, label_free(vectors[name]))
    page.section("Training")
    for title, series in curves(run_dir).items():
        page.curves(title, series)
    page.section("Configuration")
    page.config("config.yaml", (run_dir / "config.yaml").read_text(encoding="utf-8"))
    page.table("Time", [[name, round(value, 1)] for name, value in demo.seconds.items()], ["part", "seconds"])


def _gallery(system: Any, encoded: Any, test: CTReports, examples: int = 5, shown: int = 3) -> list[GalleryRow]:
    """Reports and the volumes they find, with the findings that agree and those that do not."""
    reports, truth = test.pools["report"], test.relevant("report", "ct")
    labels = np.stack([test.column(column(f)) for f in FINDINGS], 1).astype(bool)

    def right(query: int) -> torch.Tensor:
        return torch.isin(torch.arange(len(test)), torch.from_numpy(truth.of_query(query)))

    def answer(query_labels: np.ndarray, hit: int) -> str:
        same = [f for f, a, b in zip(FINDINGS, query_labels, labels[hit]) if a and b]
        missed = [f for f, a, b in zip(FINDINGS, query_labels, labels[hit]) if a and not b]
        extra = [f for f, a, b in zip(FINDINGS, query_labels, labels[hit]) if b and not a]
        said = [("shared", same), ("missed", missed), ("more", extra)]
        return "; ".join(f"{word}: {', '.join(names)}" for word, names in said if names) or "no finding in either"

    rows = []
    for query in draw_queries(len(reports), examples, 0):
        mine = labels[int(truth.of_query(query)[0])]

        def shown_as(hit: int, score: float, mine: np.ndarray = mine) -> Any:
            return replace(picture(test[hit], "ct", system), caption=f"{score:.2f}; {answer(mine, hit)}")

        rows += retrieved_rows(
            encoded.of("report"), encoded.of("ct"), [query], asked=lambda q: picture(reports[q], "report", system),
            answer=shown_as, right=right, shown=shown,
        )  # fmt: skip
    return rows
