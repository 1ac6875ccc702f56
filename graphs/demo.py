"""The demo: molecules learnt without labels and measured beside their baselines; capacitances of an unseen circuit."""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.kernels import topk_scores
from counterpoint.common.metrics import label_free
from counterpoint.common.progress import note
from counterpoint.common.report import GalleryRow, Report
from counterpoint.common.report.words import metric_name
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.common.vertical import Outcome
from counterpoint.graphs.circuits.data import load_circuits
from counterpoint.graphs.circuits.downstream import DownstreamConfig, predict_coupling, regression_figures
from counterpoint.graphs.circuits.graph import CapacitanceScale
from counterpoint.graphs.circuits.transfer import Transfer
from counterpoint.graphs.configs import KCLConfig
from counterpoint.graphs.gallery import circuit_drawing, picture
from counterpoint.graphs.importers import circuits_to_manifest, molecules_to_manifest, simulate_to_manifest
from counterpoint.graphs.molecules.kcl import KCL
from counterpoint.graphs.molecules.properties import PropertyTask, ecfp_forest, from_scratch, probe_arm, property_table
from counterpoint.graphs.molecules.vectors import encoder_of, features_of

SEEDS = (0, 1, 2)


def sample_data() -> Path | None:
    """The graphs folder of the sample data, where it is at hand."""
    root = os.environ.get("COUNTERPOINT_DATA")
    folder = Path(root) / "graphs" if root else None
    return folder if folder is not None and folder.is_dir() else None


def run_demo(out: Path, *, seed: int = 0, epochs: int = 0) -> Outcome:
    """Import, pretrain, probe, retrieve; then circuits; writes `out/report.html`."""
    out, clock = Path(out), time.perf_counter()
    data = sample_data()
    where = "BBBP (MoleculeNet), SkyWater 130 nm blocks" if data else "synthetic molecules and circuits"
    page = Report("Molecules and circuits", where, synthetic=data is None)
    note(f"reading {where}")
    figures: dict[str, Any] = {"data": where}
    lines = [where]
    lines += _molecules(out, data, seed, epochs, page, figures)
    lines += _circuits(out, data, seed, page, figures)
    page.reproduce(["counterpoint graphs demo"])
    report = page.write(out / "report.html")
    figures["seconds"] = round(time.perf_counter() - clock, 1)
    (out / "demo.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    lines.append(f"{figures['seconds']:.0f} s; open {report}")
    return Outcome(figures, tuple(lines), {"report": report, "figures": out / "demo.json"})


def _molecules(out: Path, data: Path | None, seed: int, epochs: int, page: Report, figures: dict) -> list[str]:
    if data:
        imported = molecules_to_manifest(data / "molecules" / "bbbp.csv", out / "molecules")
        task_name = "p_np"
    else:
        imported, task_name = simulate_to_manifest(out / "molecules", "molecules", 1200, seed), "lipophilic"
    manifest = Manifest.load(imported.manifest)
    changes = {"data.manifest": str(imported.manifest), "train.out": str(out / "kcl"), "train.seed": seed}
    changes |= {"train.overwrite": True, "train.max_epochs": epochs or 4, "train.validate_every_epochs": 100}
    config = override(override(KCLConfig(), KCLConfig.presets["small"]), changes)
    system = create_system(KCL, config)
    untrained = create_system(KCL, config)
    note(f"training KCL on the {(manifest.frame['split'] == 'train').sum()} molecules of the training split, no labels")
    run = fit(system)
    trained = load_run(run.run_dir, "last")
    note("probing properties on random and scaffold splits")
    frame = manifest.frame
    task = PropertyTask.of(task_name, frame["smiles"].tolist(), frame[task_name].to_numpy(float))
    arms = {
        "KCL, linear probe": probe_arm(features_of(trained)),
        "same encoder, untrained": probe_arm(features_of(untrained)),
        "same encoder, from scratch": from_scratch(lambda: copy.deepcopy(untrained.gcn), epochs=20, patience=5),
        "ECFP4 + random forest": ecfp_forest,
    }
    rows = property_table([task], arms, seeds=SEEDS)
    page.section("Molecules: what the representation knows", imported.note)
    if imported.rejected:
        page.text(f"{len(imported.rejected)} row(s) left out; the first: {imported.rejected[0].reason}")
    metrics = list(dict.fromkeys(r.metric for r in rows))
    found = {(r.split, r.arm): r for r in rows if r.metric == metrics[0]}
    for how in ("scaffold", "random"):
        mine, strong = found[how, "KCL, linear probe"], found[how, "ECFP4 + random forest"]
        title = f"{task_name}: {metric_name(mine.metric)}, KCL probe, {how} splits"
        against = ("ECFP4 + random forest", strong.mean)
        said = f"mean of {len(SEEDS)} splits"
        page.headline(title, mine.mean, interval=(mine.low, mine.high), baseline=against, note=said)
    cells = {(r.split, r.arm, r.metric): f"{r.mean:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in rows}
    lines = [[how, arm, *(cells[how, arm, m] for m in metrics)] for how in ("random", "scaffold") for arm in arms]
    page.table(f"{task_name}: mean over {len(SEEDS)} splits [95 %]", lines, ["split", "arm", *metrics])
    page.text(
        "KCL was trained, without labels, on molecules of the manifest's training split; a random probe split "
        "may test molecules that it has seen. ECFP with a forest is a strong baseline and is often ahead."
    )
    smiles = frame["smiles"].tolist()
    vectors = encoder_of(trained)(smiles)
    labels = ["unknown" if np.isnan(v) else f"{task_name} = {v:g}" for v in frame[task_name].to_numpy(float)]
    _similar(page, smiles, frame["id"].tolist(), labels, vectors, seed)
    page.monitors("molecule", label_free(vectors))
    page.embedding_map("The molecules, coloured by the property", vectors, labels, smiles)
    figures["molecules"] = [vars(r) for r in rows]
    return [f"  {r.task}, {r.split} split, {r.arm}: {r.metric} {r.mean:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in rows]


def _similar(
    page: Report, smiles: list[str], ids: list[str], labels: list[str], vectors: torch.Tensor, seed: int
) -> None:
    """A gallery of molecules with their nearest neighbours."""
    chosen = np.random.default_rng(seed).choice(len(smiles), size=min(5, len(smiles)), replace=False)
    values, found = topk_scores(vectors[chosen], vectors, 6)
    rows = []
    for query, scores, columns in zip(chosen.tolist(), values.tolist(), found.tolist(), strict=True):
        others = [(s, j) for s, j in zip(scores, columns, strict=True) if j != query][:5]
        shown = {j: picture({"id": ids[j], "smiles": smiles[j]}, "molecule") for j in (query, *(j for _, j in others))}
        known = labels[query] != "unknown"
        answers = [
            replace(
                shown[j],
                caption=f"{labels[j]}, cosine {s:.3f}; {smiles[j]}",
                correct=labels[j] == labels[query] if known else None,
            )
            for s, j in others
        ]
        rows.append(GalleryRow(replace(shown[query], caption=f"{labels[query]}; {smiles[query]}"), answers))
    page.gallery("Nearest molecules by representation; right: the same property", rows)


def _circuits(out: Path, data: Path | None, seed: int, page: Report, figures: dict) -> list[str]:
    if data:
        source = out / "blocks"
        source.mkdir(parents=True, exist_ok=True)
        wanted = {
            "sky130_saradc/adc_clkgen_with_edgedetect.gds.lvs.with_c.spice": "clkgen.spice",
            "sky130_tt06-analog-wowa/xschem_extracted_wowa_analog.sim.spice": "wowa.spice",
        }
        for name, short in wanted.items():
            (source / short).write_bytes((data / "circuits" / name).read_bytes())
        imported = circuits_to_manifest(source, out / "circuits", train=("clkgen",))
    else:
        imported = simulate_to_manifest(out / "circuits", "circuits", 2, seed)
    table = Manifest.load(imported.manifest)
    graphs = load_circuits(table)
    split = table.frame["split"].tolist()
    train = [g for g, s in zip(graphs, split, strict=True) if s == "train"]
    test = next(g for g, s in zip(graphs, split, strict=True) if s == "test")
    transfer = Transfer.of(train, [test], DownstreamConfig.small())
    note(f"coupling capacitances: training on {', '.join(g.name for g in train)}, testing on {test.name}")
    model = transfer.coupling_model("gai", seed)
    predicted = predict_coupling(model, transfer.test[0], transfer.config)
    label = transfer.test[0].link_label
    found = regression_figures(predicted, label)
    mean = torch.cat([p.link_label for p in transfer.train]).mean()
    constant = regression_figures(mean.expand_as(label), label)
    page.section(f"A circuit that training never saw: {test.name}", f"trained on {', '.join(g.name for g in train)}")
    counts = ", ".join(f"{v} {k}s" for k, v in test.n_nodes.items())
    page.figure("Nets (dots), devices (squares), extracted couplings (red)", circuit_drawing(test), counts)
    page.figure(
        "Predicted against extracted coupling capacitance",
        _scatter(test.coupling_farad, transfer.coupling.to_farad(predicted), transfer.coupling),
        "labels are log10 of the capacitance over the training circuits' range; what lies outside is drawn at its edge",
    )
    page.table(
        "On the label scale 0..1",
        [[k, round(v, 4), round(constant[k], 4)] for k, v in found.items()],
        ["figure", "model", "training mean"],
    )
    page.text(
        "One circuit to train on and one to test: this shows the path, not a transfer result."
        + (" Here the model knows next to nothing beyond the training mean." if found["R2"] < 0.1 else "")
    )
    figures["circuits"] = {"train": [g.name for g in train], "test": test.name, "model": found, "constant": constant}
    return [
        f"  coupling capacitance on {test.name} (never seen): MAE {found['MAE']:.3f} on the 0..1 label scale, "
        f"training mean {constant['MAE']:.3f}"
    ]


def _scatter(extracted: torch.Tensor, predicted: torch.Tensor, scale: CapacitanceScale) -> str:
    import io

    import matplotlib.pyplot as plt

    low, high = scale.low * 1e15, scale.high * 1e15
    extracted, predicted = ((farad * 1e15).clamp(low, high) for farad in (extracted, predicted))
    with plt.rc_context({"font.size": 12}):  # as large as the page's own words, on a phone too
        figure, axis = plt.subplots(figsize=(4.6, 2.8))
        axis.loglog(extracted, predicted, ".", alpha=0.6)
        axis.plot([low, high], [low, high], color="gray", linewidth=0.8)
        axis.set_xlabel("extracted, fF")
        axis.set_ylabel("predicted, fF")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
