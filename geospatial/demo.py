"""The whole path in minutes: scenes, a CROMA trained on them, unseen places, and real places where they are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from counterpoint.common.data import Manifest
from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.metrics import knn, retrieval
from counterpoint.common.progress import note
from counterpoint.common.report import Media
from counterpoint.common.runs.demonstration import Demonstration
from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.runs.retrieved import draw_queries, retrieved_rows
from counterpoint.common.trainers import create_system, fit, override
from counterpoint.common.trainers.throwaway import sample_data, sample_folder
from counterpoint.common.vertical import Outcome
from counterpoint.geospatial.base import scenes_of
from counterpoint.geospatial.configs import CromaConfig
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.data.importing import Told, import_layers
from counterpoint.geospatial.data.pairs import Pairing
from counterpoint.geospatial.gallery import enlarged, land_cover, legend_text, picture, place_pictures
from counterpoint.geospatial.mosaic import strips, sweep_of
from counterpoint.geospatial.protocols import class_codes, fit_decoders

SIZES = {
    "data": {"size": 32, "scenes": 96, "scene_size": 96},
    "encoder": {"dim": 64, "depth": 4, "heads": 8, "patch_size": 4},
    "decoder": {"dim": 64, "heads": 4},
    "train": {"batch_size": 32, "validate_every_epochs": 10},
    "optim": {"lr": 1e-3},
}


def run_demo(out: Path, seed: int = 0, epochs: int = 15) -> Outcome:
    """Train, evaluate on unseen places, map one, look at real ones, write the report."""
    demo = Demonstration(out)
    page = demo.open("Radar and optical, together", "CROMA on SYNTHETIC scenes; what is of real places says so.", True)
    config = override(
        CromaConfig(),
        {
            **SIZES,
            **demo.training("croma", seed),
            "data.seed": seed,
            "train.max_epochs": epochs,
        },
    )
    table = scenes_of(config.data)
    demo.lap("scenes")
    about = "A ground is drawn first, and both sensors look at it: radar in false colours (VV red, VH green, their "
    page.section(
        "Scenes (synthetic)", f"{about}difference blue), optical in true colour, and the ground's own land cover."
    )
    for i in _varied(table):
        page.gallery(str(table.row(i)["biome"]), [Media(what, image) for what, image in place_pictures(table, i)])
    system: Any = create_system(Croma, config, table)
    untrained = _figures(OpenRun.of(system.eval()), seed)[0]
    fit(system)
    demo.lap("training")
    figures = _unseen(page, system, untrained, seed)
    demo.lap("unseen places")
    figures |= _mapped(page, system)
    demo.lap("map")
    figures |= _real(page, system, out, seed)
    demo.lap("real places")
    lines = [
        f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}" for name, value in figures.items()
    ]
    commands = ["counterpoint geo demo", "counterpoint geo pretrain croma --preset small",
                "counterpoint geo data import rasters FOLDER --out places"]  # fmt: skip
    return demo.finish(figures, ["SYNTHETIC scenes, except where real places are named", *lines], commands)


def _varied(table: Manifest, most: int = 3) -> list[int]:
    """The first place of some biomes."""
    first = table.frame.reset_index(drop=True).groupby("biome", sort=False).head(1)
    return [int(i) for i in first.index[:most]]


def _figures(run: OpenRun, seed: int) -> tuple[dict[str, float], Any]:
    """Retrieval among the test chips, and probes of the commonest class by each sensor and both."""
    encoded = run.encoded()
    both = retrieval(encoded.vectors["s1"], encoded.vectors["s2"], groups=encoded.groups, names=("radar", "optical"),
                     ks=(1, 5, 10), n_boot=200, seed=seed)  # fmt: skip
    known, asked = run.features("train"), run.features()
    labels = [run.samples(s).column("label") for s in ("train", "test")]
    found = {"radar -> optical R@1": float(both.a_to_b.metrics["R@1"]), "chance": float(both.a_to_b.chance["R@1"])}
    for name in asked.vectors:
        near = knn(
            known.vectors[name], labels[0], asked.vectors[name], labels[1], ks=(20,), groups=asked.groups, n_boot=0
        )
        found[f"accuracy of the commonest class by 20 neighbours, {name}"] = float(near.best.metrics["accuracy"])
    return found, both


def _unseen(page: Any, system: Any, untrained: dict[str, float], seed: int) -> dict[str, Any]:
    run = OpenRun.of(system.eval())
    figures, both = _figures(run, seed)
    chips, encoded = run.samples("test"), run.encoded()
    page.section("Unseen places (synthetic)", "Chips of places that the encoders have not seen: which optical picture "
                 f"belongs to a radar picture, among {len(chips)} of {len(set(chips.groups))} places.")  # fmt: skip
    page.retrieval(both, headline=("R@1", "R@10"))
    rows = [(name, value, untrained.get(name, float("nan"))) for name, value in figures.items() if name != "chance"]
    page.table("Trained, and as it was before", rows, ("figure", "trained", "untrained"))
    samples = {}

    def seen(i: int, sensor: str) -> Media:
        if i not in samples:
            samples[i] = chips[i]
        return picture(samples[i], sensor, system)

    right = torch.eye(len(chips), dtype=torch.bool)
    chosen = draw_queries(len(chips), 5, seed)
    z = encoded.vectors
    page.gallery("Radar asks, optical answers", retrieved_rows(
        z["s1"], z["s2"], chosen, asked=lambda i: seen(i, "s1"), answer=lambda i, score: seen(i, "s2"),
        right=lambda i: right[i], shown=5,
    ))  # fmt: skip
    page.embedding_map("Test chips by land cover", run.features().vectors["joint"], chips.column("label"),
                       hover=[str(g) for g in chips.groups])  # fmt: skip
    return {**figures, **{f"untrained, {k}": v for k, v in untrained.items() if k != "chance"}}


def _mapped(page: Any, system: Any) -> dict[str, Any]:
    """A place never seen, mapped from end to end by the linear decoder."""
    run = OpenRun.of(system.eval())
    train, test = run.samples("train"), run.samples("test")
    classes = class_codes(train)
    decoder = fit_decoders(run, train, classes, system.patch_size)["joint"]
    numbers = [int(test.rows.index(row)) for row in _by_variety(test)]
    step = sweep_of(test, system.patch_size, 16).step
    about = (
        "A linear decoder, fitted on the training places' joint tokens, says the class of every pixel of unseen "
        f"places. Squares of {step} pixels that stand out are the windows by which a place is read: after minutes of "
        "training a patch's token says much of its window beside what it says of the patch."
    )
    page.section("Maps of places (synthetic)", about)
    names = train.column("label")
    usual = next(code for code, name in test.legend.items() if name == max(set(names), key=names.count))
    hits = total = guessed = 0
    for number in numbers:
        tokens = np.concatenate(
            [v for _, v in strips(system, test, number, lambda b: system.dense_features(b)["joint"],
                                  sweep_of(test, system.patch_size, 16))], 1
        )  # fmt: skip
        said = decoder.predict(torch.from_numpy(np.nan_to_num(tokens)).permute(1, 2, 0)[None])[0]
        codes = np.asarray(classes)[said.numpy()]
        pictures = place_pictures(test.manifest, number)
        truth = _truth(test, number)
        codes = codes[: truth.shape[0], : truth.shape[1]]
        hits, total = hits + int((codes == truth).sum()), total + int((truth >= 0).sum())
        guessed += int((truth == usual).sum())
        shown = [Media(what, image) for what, image in pictures]
        page.gallery(
            str(test.rows[number]["biome"]), [*shown, Media("predicted", enlarged(land_cover(codes, test.legend)))]
        )
    page.figure("Classes", legend_text(classes, test.legend))
    said = {"pixels mapped rightly": hits / max(total, 1), "of the commonest training class": guessed / max(total, 1)}
    page.table("Of the pixels of these places", list(said.items()), ("what", "share"))
    return said


def _by_variety(chips: Chips, most: int = 2) -> list[dict]:
    seen: dict[str, dict] = {}
    for row in chips.rows:
        seen.setdefault(str(row.get("biome")), row)
    return list(seen.values())[:most]


def _truth(chips: Chips, number: int) -> np.ndarray:
    from counterpoint.geospatial.data.grid import Window
    from counterpoint.geospatial.data.layers import read_landcover, row_grid

    grid = row_grid(chips.rows[number])
    return read_landcover(chips.rows[number], chips.manifest.folder, Window(0, 0, grid.height, grid.width))


def _real(page: Any, system: Any, out: Path, seed: int) -> dict[str, Any]:
    """Real places through the encoders that have seen simulated ones alone."""
    data = sample_folder()
    source = None if data is None else sample_data(data, "geospatial", "bigearthnet")
    if source is None or not source.is_dir():
        note("COUNTERPOINT_DATA names no real places: the report shows simulated ones alone")
        return {"real places": 0}
    report = import_layers(source, out / "real", {}, Told(), Pairing())
    table = Manifest.load(report.manifest)
    about = (
        "The encoders have seen simulated scenes alone, and the band statistics are the simulator's: this shows that "
    )
    about += "files, grids and units fit together, and how far a simulator carries."
    page.section("Real places", f"{report.rows} pairs of Sentinel-1 and Sentinel-2 from BigEarthNet. {about}")
    for i in range(min(3, len(table))):
        row = table.row(i)
        where = f"{float(row['lat']):.2f}, {float(row['lon']):.2f}, {str(row['s2_time'])[:10]}"
        page.gallery(where, [Media(what, image) for what, image in place_pictures(table, i)])
    chips = Chips(table, system.cut(system.config, system.form.bands), system.form)
    found = encode_rows(system, chips, batch_size=64)
    options = {"groups": found.groups, "names": ("radar", "optical"), "ks": (1, 5, 10), "n_boot": 200, "seed": seed}
    both = retrieval(found.vectors["s1"], found.vectors["s2"], **options)
    page.retrieval(both)
    way = both.a_to_b
    return {"real places": report.rows, "real radar -> optical R@10": float(way.metrics["R@10"]),
            "real chance R@10": float(way.chance["R@10"])}  # fmt: skip
