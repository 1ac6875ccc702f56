"""The demo: molecules learnt without labels and measured beside their baselines; capacitances of an unseen circuit."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data.manifest import Manifest
from counterpoint.common.metrics import label_free
from counterpoint.common.progress import note
from counterpoint.common.report import Media, Report
from counterpoint.common.report.words import metric_name
from counterpoint.common.runs.demonstration import Demonstration
from counterpoint.common.runs.retrieved import draw_queries, retrieved_rows
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.common.trainers.throwaway import sample_data, sample_folder
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


def run_demo(out: Path, *, seed: int = 0, epochs: int = 0) -> Outcome:
    """Import, pretrain, probe, retrieve; then circuits; writes `out/report.html`."""
    demo, root = Demonstration(out), sample_folder()
    data = None if root is None else sample_data(root, "graphs")
    where = "BBBP (MoleculeNet), SkyWater 130 nm blocks" if data else "synthetic molecules and circuits"
    demo.open("Molecules and circuits", where, synthetic=data is None)
    note(f"reading {where}")
    figures: dict[str, Any] = {"data": where}
    lines = [where, *_molecules(demo, data, seed, epochs, figures)]
    demo.lap("molecules")
    lines += _circuits(demo, data, seed, figures)
    demo.lap("circuits")
    return demo.finish(figures, lines, ["counterpoint graphs demo"])


def _molecules(demo: Demonstration, data: Path | None, seed: int, epochs: int, figures: dict) -> list[str]:
    out, page = demo.out, demo.page
    if data:
        imported = molecules_to_manifest(data / "molecules" / "bbbp.csv", out / "molecules")
        task_name = "p_np"
    else:
        imported, task_name = simulate_to_manifest(out / "molecules", "molecules", 1200, seed), "lipophilic"
    manifest = Manifest.load(imported.manifest)
    changes = {"data.manifest": str(imported.manifest), **demo.training("kcl", seed)}
    changes |= {"train.max_epochs": epochs or 4, "train.validate_every_epochs": 100}
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

    def drawn(i: int, score: float | None = None) -> Media:
        said = labels[i] if score is None else f"{labels[i]}, cosine {score:.3f}"
        return replace(picture({"id": ids[i], "smiles": smiles[i]}, "molecule"), caption=f"{said}; {smiles[i]}")

    def alike(query: int) -> torch.Tensor | None:
        known = labels[query] != "unknown"
        return torch.tensor([label == labels[query] for label in labels]) if known else None

    chosen = draw_queries(len(smiles), 5, seed)
    rows = retrieved_rows(vectors, None, chosen, asked=drawn, answer=drawn, right=alike)
    page.gallery("Nearest molecules by representation; right: the same property", rows)


def _circuits(demo: Demonstration, data: Path | None, seed: int, figures: dict) -> list[str]:
    out, page = demo.out, demo.page
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
