"""Every system of every vertical is trained alike by one, two and three processes: losses, gradients, weights, states.

A global batch, in float64, without dropout or masks drawn inside the network, is embedded, contrasted and
differentiated by one process, and shared out evenly and unevenly over the ranks of a process group, as `fit` does it;
two steps. Systems that see one whole graph at every step, and what the loader draws, are trained by `fit` itself.
"""

import importlib.util
import json
import multiprocessing
import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from counterpoint.audio_speech.audio_sheet import AudioSheet
from counterpoint.audio_speech.augment import sheet_view
from counterpoint.audio_speech.clap import CLAP
from counterpoint.audio_speech.configs import AudioSheetConfig
from counterpoint.audio_speech.cpc import CPC
from counterpoint.audio_speech.mert import MERT
from counterpoint.audio_speech.score_configs import ScoreCaptionConfig
from counterpoint.audio_speech.score_text import ScoreCoCa
from counterpoint.audio_speech.sounds.configs import CLAPConfig, CPCConfig
from counterpoint.audio_speech.sounds.mert_configs import MERTConfig
from counterpoint.common.data import Manifest
from counterpoint.common.data.batch import cut
from counterpoint.common.data.vocabulary import SPECIAL
from counterpoint.common.losses import engine_settings
from counterpoint.common.models import shared_batch_norm
from counterpoint.common.trainers import Assets, create_system, fit, override
from counterpoint.common.trainers.gradients import average_gradients
from counterpoint.geospatial.adaptation_configs import SummitConfig
from counterpoint.geospatial.base import scenes_of
from counterpoint.geospatial.baselines import SensorTowers
from counterpoint.geospatial.configs import CromaConfig, MDiCoConfig, SensorTowersConfig
from counterpoint.geospatial.croma import Croma
from counterpoint.geospatial.cross_view_configs import Sample4GeoConfig
from counterpoint.geospatial.hyper_graph_configs import PHGMAEConfig
from counterpoint.geospatial.mdico import MDiCo
from counterpoint.geospatial.phg_mae import PHGMAE
from counterpoint.geospatial.sample4geo import Sample4Geo
from counterpoint.geospatial.summit import Summit
from counterpoint.graphs.circuits.circuitgcl import CircuitGCL
from counterpoint.graphs.configs import (
    BGRLConfig,
    CircuitGCLConfig,
    GCoolConfig,
    GRACEConfig,
    GraphCLConfig,
    KCLConfig,
    PamCConfig,
)
from counterpoint.graphs.molecules.graphcl import GraphCL
from counterpoint.graphs.molecules.kcl import KCL
from counterpoint.graphs.nodes.bgrl import BGRL
from counterpoint.graphs.nodes.gcool import GCool
from counterpoint.graphs.nodes.grace import GRACE
from counterpoint.graphs.nodes.pamc import PamC
from counterpoint.graphs.nodes.reader import stochastic_blocks
from counterpoint.medical.clip_ct import ClipCT
from counterpoint.medical.clip_xr import ClipXR
from counterpoint.medical.configs import ClipCTConfig
from counterpoint.medical.radiograph_configs import ClipXRConfig
from counterpoint.medical.tokens import learn_tokenizer
from counterpoint.recsys.bm3 import BM3
from counterpoint.recsys.ceaa import CEAA
from counterpoint.recsys.configs import LightGCNConfig, VBPRConfig
from counterpoint.recsys.contrast_configs import (
    BM3Config,
    CEAAConfig,
    MCLRecConfig,
    REARMConfig,
    SASRecConfig,
    TwoTowerConfig,
)
from counterpoint.recsys.lightgcn import LightGCN
from counterpoint.recsys.mclrec import MCLRec
from counterpoint.recsys.rearm import REARM
from counterpoint.recsys.sasrec import SASRec
from counterpoint.recsys.two_tower import TwoTower
from counterpoint.recsys.vbpr import VBPR
from counterpoint.timeseries import DBPM, Comet, FrameProjections, TS2Vec
from counterpoint.timeseries.configs import CometConfig, DBPMSystemConfig, FrameProjectionsConfig, TS2VecConfig
from counterpoint.timeseries.manifest import WindowDataset
from counterpoint.timeseries.simulate import ecg
from counterpoint.timeseries.splits import split_patients

ROWS = 6
SHARES = ((3, 3), (4, 2), (2, 2, 2), (3, 1, 2))
TIME = {"encoder": {"dim": 8, "hidden": 6, "depth": 2, "dropout": 0.0}, "data": {"patients": 6, "length": 32}}
FRAMES = {"data": TIME["data"], "width": 8, "dim": 8, "frequencies": 6}
QUIET = {"accelerator": "cpu", "tensorboard": False, "monitor_every": 0}
MOLECULES = ["CCO", "CCN", "c1ccccc1O", "CC(=O)O", "CCCl", "CCCCS", "C1CCCCC1", "CC#N"]


@dataclass
class Case:
    """A system in one of its stages, and its batch of the rows start..stop of the global one."""

    make: Callable[[], Any]
    batch: Callable[[Any, int, int], dict]
    stage: int = 0


class DoubleSheet(AudioSheet):
    """Its views come in single precision."""

    def view(self, batch, modality, augment=None):
        return super().view(batch, modality, augment).double()


class DoubleCoCa(ScoreCoCa):
    """Its pictures too."""

    def places(self, batch, tower, augment):
        return tower.tokens(sheet_view(batch["sheet"], self.config.data.sheet_width).double())


class UnmaskedComet(Comet):
    """Its masks are drawn inside the network."""

    def _masked(self, hidden):
        return self.encoder.latent(hidden)


class GivenMasks(MERT):
    """Its masks are drawn for the rows at hand."""

    def draw_masks(self, count, frames):
        return (torch.arange(frames) % 3 == 1).expand(len(count), -1)


def wide(value: Any) -> Any:
    """A batch in float64."""
    if isinstance(value, dict):
        return {name: wide(part) for name, part in value.items()}
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def cases(folder: Path) -> dict[str, Case]:
    graphs = {**molecules(folder), **circuits(folder), **rows_of_a_graph()}
    sensed = {**audio(), **recordings(), **rasters(), **scans()}
    return {**time_series(), **graphs, **sensed, **interactions(), **recommenders()}


def all_windows() -> Any:
    return split_patients(ecg(patients=6, trials=2, windows=4, length=32), {"train": 0.5, "val": 0.25, "test": 0.25})


@pytest.fixture
def windows():
    return all_windows()


def time_series() -> dict[str, Case]:
    dataset = WindowDataset(all_windows())

    def batch(system: Any, start: int, stop: int) -> dict:
        torch.manual_seed(5)
        return cut(wide(system.draw_views(dataset.collate([dataset[3 * i] for i in range(ROWS)]))), start, stop)

    def case(cls: Any, config: Any, changes: dict, stage: int = 0) -> Case:
        return Case(lambda: create_system(cls, override(config(), changes), dataset.windows), batch, stage)

    # An encoder with batch normalisation, where the package that has it is installed.
    named = {"name": "FCN", "options": {"layers": [3, 3, 3]}}
    normed = {
        "dbpm (FCN)": case(DBPM, DBPMSystemConfig, {**TIME, "projection": 8, "encoder": {**TIME["encoder"], **named}})
    }
    return {
        **(normed if importlib.util.find_spec("tsai") else {}),
        "ts2vec": case(TS2Vec, TS2VecConfig, {**TIME, "mask": "all_true"}),
        "comet": case(UnmaskedComet, CometConfig, TIME),
        "frame-projections (frames)": case(FrameProjections, FrameProjectionsConfig, FRAMES),
        "frame-projections (mappers)": case(FrameProjections, FrameProjectionsConfig, FRAMES, 1),
        "dbpm": case(DBPM, DBPMSystemConfig, {**TIME, "projection": 8}),
    }


def molecules(folder: Path) -> dict[str, Case]:
    manifest = folder / "molecules.csv"
    Manifest.from_rows([{"id": str(i), "smiles": s} for i, s in enumerate(MOLECULES)]).save(manifest)
    data = {"data": {"manifest": str(manifest)}}
    kcl = {**data, "node_dim": 8, "hidden": 4, "kmpnn_steps": 2, "projector_hidden": 8, "rotate_epochs": 0}
    views = {**data, "node_dim": 8, "hidden": 4, "projector_hidden": 8, "views": ["mask", "mask"], "ratio": 0.0}

    def batch(system: Any, start: int, stop: int) -> dict:
        dataset = system.datasets().train
        return cut(wide(dataset.collate([dataset[i] for i in range(ROWS)])), start, stop)

    def case(cls: Any, config: Any, changes: dict) -> Case:
        return Case(lambda: create_system(cls, override(config(), changes)), batch)

    return {
        "kcl": case(KCL, KCLConfig, kcl),
        "graphcl": case(GraphCL, GraphCLConfig, views),
        "graphcl (positive in the denominator)": case(
            GraphCL, GraphCLConfig, {**views, "positive_in_denominator": True}
        ),
    }


def circuits(folder: Path) -> dict[str, Case]:
    lines = [f"X{i} n{i + 1} n{i} VSS VSS sky130_fd_pr__nfet_01v8 w=0.4 l=0.15" for i in range(12)]
    (folder / "chain.spice").write_text("\n".join([".subckt chain n0 n12 VSS", *lines, ".ends"]) + "\n")
    manifest = folder / "circuits.csv"
    Manifest.from_rows([{"id": "chain", "netlist": "chain.spice"}], folder).save(manifest)
    changes = {"data.manifest": str(manifest), "dim": 8, "layers": 2, "dropout": 0.0, "fanout": [99] * 3}

    def batch(system: Any, start: int, stop: int) -> dict:
        dataset = system.datasets().train
        torch.manual_seed(5)
        return dataset.collate([dataset[4 * i] for i in range(start, stop)])

    return {
        "circuitgcl": Case(lambda: create_system(CircuitGCL, override(CircuitGCLConfig(), changes)), batch),
        "circuitgcl (topology)": Case(
            lambda: create_system(CircuitGCL, override(CircuitGCLConfig(), {**changes, "topology_hops": 1})), batch
        ),
    }


def audio() -> dict[str, Case]:
    still = {"sheet_views": ("shift_x", "shift_y", "scale", "rotate", "noise", "blur", "perlin", "elastic_small",
                             "elastic_large"),
             "audio_views": ("shift", "time_mask", "freq_mask", "stretch", "noise", "gain", "eq")}  # fmt: skip
    changes = {f"{part}.{name}": 0.0 for part, names in still.items() for name in names}
    changes |= {f"align_{part}.{name}": 0.0 for part in ("sheet", "audio") for name in still[f"{part}_views"]}
    changes |= {"channels": [2, 2], "dim": 2, "head_hidden": 8, "data.sheet_width": 24, "data.frames": 12}
    seen = {f"sheet_view.{name}": 0.0 for name in still["sheet_views"]}
    net = {"width": 8, "heads": 2, "dim": 4, "picture_layers": 1, "text_layers": 1, "fusion_layers": 1, "queries": 2}
    worded = {**seen, "channels": [2, 2], "data.sheet_width": 24, "data.engraving.height": 16, "net": net}

    def batch(system: Any, start: int, stop: int) -> dict:
        generator = torch.Generator().manual_seed(0)
        whole = {
            "index": torch.arange(ROWS),
            "moment": torch.tensor([0, 1, 1, 2, 3, 0]),
            "sheet": torch.randint(256, (ROWS, 16, 40), generator=generator, dtype=torch.uint8),
            "audio": torch.rand(ROWS, 20, 12, generator=generator),
            "words": torch.cat([torch.ones(ROWS, 1), torch.randint(2, 9, (ROWS, 4), generator=generator)], 1).long(),
        }
        return cut(whole, start, stop)

    def make(alignment: str = "hinge") -> Any:
        return create_system(DoubleSheet, override(AudioSheetConfig(), {**changes, "alignment": alignment}))

    def coca() -> Any:
        words = [*SPECIAL, *"abcd"]
        return DoubleCoCa(override(ScoreCaptionConfig(), worded), Assets(words=words, length=5))

    names = ("sheet", "audio", "align")
    stages = {f"audio-sheet ({name})": Case(make, batch, stage) for stage, name in enumerate(names)}
    info_nce = Case(lambda: make("info_nce"), batch, 2)
    return {**stages, "audio-sheet (align, InfoNCE)": info_nce, "score-coca": Case(coca, batch)}


def recordings() -> dict[str, Case]:
    small = {"data.sample_rate": 1600, "data.seconds": 0.5}
    towers = {"audio": {"channels": [2, 3], "dim": 4}, "text": {"width": 8, "layers": 1, "heads": 2, "dropout": 0.0}}
    mel = {"mel": {"fft_size": 64, "hop": 32, "bands": 8, "fmax": 800.0}, "dim": 4}

    def batch(system: Any, start: int, stop: int) -> dict:
        generator = torch.Generator().manual_seed(0)
        whole = {
            "index": torch.arange(ROWS),
            "sound": torch.rand(ROWS, system.config.data.samples, generator=generator) - 0.5,
            "length": torch.full((ROWS,), system.config.data.samples),
            "caption": torch.randint(2, 6, (ROWS, 4), generator=generator),
            "said": ["a", "b", "a", "c", "d", "b"],
        }
        return cut(wide(whole), start, stop)

    def clap(**changes: Any) -> Any:
        config = override(CLAPConfig(), {**small, **towers, **mel, **changes})
        return CLAP(config, Assets(words=["<padding>", "<unknown>", *"abcd"]))

    def cpc() -> Any:
        return CPC(override(CPCConfig(), {"data.seconds": 0.12, "width": 4, "context": 4, "steps": 3}))

    def mert() -> Any:
        encoder = {"channels": 4, "width": 8, "layers": 1, "heads": 2, "hidden": 8, "dropout": 0.0, "layer_drop": 0.0,
                   "place_kernel": 4, "place_groups": 2}  # fmt: skip
        codes = {"books": 2, "size": 4, "dim": 4, "bands": 6, "fft_size": 64}
        config = {"data": {"sample_rate": 8000, "seconds": 0.5}, "encoder": encoder, "codes": codes,
                  "cqt": {"bins": 12, "per_octave": 12, "fmin": 500.0}, "mixture": 0.0}  # fmt: skip
        books = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0)).numpy()
        return GivenMasks(override(MERTConfig(), config), Assets(codebooks=books))

    return {
        "mert": Case(mert, batch),
        "clap": Case(clap, batch),
        "clap (all negatives)": Case(lambda: clap(same_caption="negatives"), batch),
        "clap (SigLIP)": Case(lambda: clap(objective="SigLIP"), batch),
        "cpc": Case(cpc, batch),
    }


def rasters() -> dict[str, Case]:
    small = {"data.size": 16, "data.scenes": 6, "data.scene_size": 32, "encoder.dim": 16, "encoder.depth": 2,
             "encoder.heads": 2, "encoder.patch_size": 4}  # fmt: skip

    def batch(system: Any, start: int, stop: int) -> dict:
        generator = torch.Generator().manual_seed(0)
        whole = {"index": torch.arange(ROWS), "label": ["trees", None, "water", "trees", "grass", "water"]}
        whole |= {"group": list("aabbcc"), "row": torch.zeros(ROWS), "col": torch.tensor([0, 0, 0, 1, 0, 1])}
        whole |= {"landcover": torch.randint(-1, 9, (ROWS, 16, 16), generator=generator)}
        whole |= {"shown": torch.rand(ROWS, 6, generator=generator) < 0.6}
        for sensor in ("s1", "s2"):
            whole[sensor] = torch.randn(ROWS, system.channels(sensor), 16, 16, generator=generator)
            whole[f"{sensor}_valid"] = torch.ones(ROWS, 16, 16, dtype=torch.bool)
            whole[f"{sensor}_noise"] = torch.rand(ROWS, 16, generator=generator)
        return cut(wide(whole), start, stop)

    def make(cls: Any, config: Any) -> Callable[[], Any]:
        return lambda: create_system(cls, config, scenes_of(config.data))

    def adapting(config: Any) -> Any:
        """Between the passes that count and the adaptation: flat histograms, which put every median in the middle."""
        first = create_system(Summit, config, scenes_of(config.data))
        system = Summit(override(config, {"source": "a run", "fusion": "entropy"}), first.assets)
        system.came.load_state_dict(system.segmenters.state_dict())
        system.counts += 1
        system.sums += torch.rand(system.sums.shape, generator=torch.Generator().manual_seed(0)).cumsum(1)
        return system

    light = {"decoder.dim": 8, "decoder.heads": 2}
    data = {name: value for name, value in small.items() if name.startswith("data.")}
    parts = {**data, "width": 4, "dim": 8, "dropout": 0.0}
    views = {**data, "encoder.depths": [1, 1], "encoder.widths": [4, 8], "encoder.patch_size": 4}
    return {
        "croma": Case(make(Croma, override(CromaConfig(), {**small, **light})), batch),
        "croma (gated fusion)": Case(make(Croma, override(CromaConfig(), {**small, **light, "fusion": "ssma"})), batch),
        "mdico": Case(make(MDiCo, override(MDiCoConfig(), parts)), batch),
        "sample4geo": Case(make(Sample4Geo, override(Sample4GeoConfig(), views)), batch),
        "phg-mae": Case(make(PHGMAE, override(PHGMAEConfig(), {**data, "filters": 2})), batch),
        "summit": Case(make(Summit, override(SummitConfig(), {**data, "filters": 2})), batch),
        "summit (adapted)": Case(lambda: adapting(override(SummitConfig(), {**data, "filters": 2})), batch, 2),
        "geo two-tower": Case(make(SensorTowers, override(SensorTowersConfig(), small)), batch),
    }


def scans() -> dict[str, Case]:
    """Reports against volumes; the sentence-wise term contrasts each rank's own sentences and is left out."""
    texts = ["no nodule", "a nodule", "no nodule", "clear lungs", "a cyst", "a nodule"]
    tokenizer = learn_tokenizer(texts * 2)
    small = {"channels": [4, 4, 4], "dim": 4, "sentence_weight": 0.0, "shift": 0, "data.tokens": 12}
    words = {"text.width": 8, "text.layers": 1, "text.heads": 2, "text.dropout": 0.0}

    def make() -> Any:
        return ClipCT(override(ClipCTConfig(), {**small, **words}), Assets(**{"tokenizer.json": tokenizer}))

    def batch(system: Any, start: int, stop: int) -> dict:
        generator = torch.Generator().manual_seed(0)
        told = [system.tokenizer.sentences([text], system.config.data.tokens) for text in texts]
        report, sentence_of = (torch.stack(part) for part in zip(*told))
        ct = 300 * torch.randn(ROWS, 16, 16, 16, generator=generator)
        whole = {"index": torch.arange(ROWS), "ct": ct, "report": report, "sentence_of": sentence_of, "text": texts}
        return cut(wide(whole), start, stop)

    def flat() -> Any:
        changes = {"channels": [4, 4], "dim": 4, "shift": 0, "data.tokens": 12, **words}
        return ClipXR(override(ClipXRConfig(), changes), Assets(**{"tokenizer.json": tokenizer}))

    def pictures(system: Any, start: int, stop: int) -> dict:
        xr = torch.rand(ROWS, 16, 16, generator=torch.Generator().manual_seed(0))
        whole = {name: value for name, value in batch(system, 0, ROWS).items() if name != "ct"}
        return cut(wide({**whole, "xr": xr}), start, stop)

    return {"clip-ct": Case(make, batch), "clip-xr": Case(flat, pictures)}


def rows_of_a_graph() -> dict[str, Case]:
    graph = stochastic_blocks([8, 8], 0.5, 0.1, signal=0.3, seed=3)

    def batch(system: Any, start: int, stop: int) -> dict:
        dataset = system.datasets().train
        return cut(wide(dataset.collate([dataset[i] for i in range(ROWS)])), start, stop)

    config = override(PamCConfig(), {"widths": [6, 3]})
    return {"pamc (autoencoder)": Case(lambda: create_system(PamC, config, graph), batch)}


def interactions() -> dict[str, Case]:
    def batch(system: Any, start: int, stop: int) -> dict:
        rows = range(start, stop)
        return system.datasets().train.batch([7 * row for row in rows], [row + 1 for row in rows])

    def case(cls: Any, config: Any) -> Case:
        changes = {"data.users": 30, "data.items": 20, "dim": 6}

        def make() -> Any:
            system = create_system(cls, override(config(), changes))
            system.initialize()
            return system

        return Case(make, batch)

    return {"lightgcn": case(LightGCN, LightGCNConfig), "vbpr": case(VBPR, VBPRConfig)}


SEQUENCES = {"dim": 8, "hidden": 16, "length": 12, "dropout": 0.0}
GRAPHS = {
    "dim": 4, "layers": 1, "user_neighbours": 5, "item_neighbours": 3, "self_dropout": 0.0, "cross_dropout": 0.0,
}  # fmt: skip
TOWERS = {"dim": 8, "widths": [16], "field_dim": 4, "dropout": 0.0, "value_dropout": 0.0, "buckets": 512}


def recommenders() -> dict[str, Case]:
    def batch(system: Any, start: int, stop: int) -> dict:
        return cut(system.datasets().train.batch(list(range(ROWS)), list(range(ROWS))), start, stop)

    def case(cls: Any, config: Any, **changes: Any) -> Case:
        small = override(config(), {"data.users": 20, "data.items": 15, **changes})

        def make() -> Any:
            system = create_system(cls, small)
            system.initialize()
            return system

        return Case(make, batch)

    return {
        "bm3": case(BM3, BM3Config, dim=8, dropout=0.0),
        "bm3 (InfoNCE, uniformity)": case(
            BM3, BM3Config, dim=8, dropout=0.0, objective="InfoNCE(temperature=0.2)", uniformity=1.0
        ),
        "ceaa": case(CEAA, CEAAConfig, dim=6, neighbours=3, noise=0.0),
        "rearm": case(REARM, REARMConfig, **GRAPHS, contrast=0.3, orthogonality=0.2),
        "sasrec": case(SASRec, SASRecConfig, **SEQUENCES),
        "sasrec (binary)": case(SASRec, SASRecConfig, **SEQUENCES, loss="binary"),
        "mclrec": case(MCLRec, MCLRecConfig, **SEQUENCES, views=0.3, meta=0.5),
        "two-tower": case(TwoTower, TwoTowerConfig, **TOWERS),
        "two-tower (copies dropped)": case(TwoTower, TwoTowerConfig, **TOWERS, drop_same=True),
    }


def trained(case: Case, start: int, stop: int, world: int) -> dict[str, torch.Tensor]:
    """Losses, gradients, weights and states of two steps on the rows start..stop."""
    torch.manual_seed(0)
    system = case.make().double().train()
    stage = list(system.stages())[case.stage]
    system.stage = stage
    system.on_stage_start(stage)
    system.begin_stage(stage, 2)
    found: dict[str, torch.Tensor] = {}
    optimizer = torch.optim.SGD([p for p in system.parameters() if p.requires_grad], lr=0.1)
    for step in range(2):
        batch = case.batch(system, start, stop)
        with ExitStack() as sharing:
            if world > 1:
                sharing.enter_context(engine_settings(distributed="auto"))
                sharing.enter_context(shared_batch_norm(system))
            terms = system.reduced(system.losses(batch, system.embed(batch)), batch)
            loss = system.total(terms)
            loss.backward()
            if world > 1:
                average_gradients(list(system.parameters()))
            for name, term in {**terms, "loss": loss}.items():
                mean = term.detach().clone()
                if world > 1:
                    dist.all_reduce(mean)
                found[f"{step} {name}"] = mean / world
            for name, parameter in system.named_parameters():
                if parameter.grad is not None:
                    found[f"{step} gradient of {name}"] = parameter.grad.clone()
            optimizer.step()
            optimizer.zero_grad()
            system.update_teachers()
            system.after_update()
    return {**found, **{name: value.detach().clone() for name, value in system.state_dict().items()}}


def difference(mine: dict[str, torch.Tensor], whole: dict[str, torch.Tensor]) -> float:
    """The largest one; a gradient that is missing where the other has zeros is none."""
    gaps = []
    for name in mine.keys() | whole.keys():
        a, b = (d.get(name, torch.zeros(())) for d in (mine, whole))
        if name not in mine or name not in whole:
            assert "gradient" in name, name
        gaps.append(float((a.double() - b.double()).abs().max()) if max(a.numel(), b.numel()) else 0.0)
    assert max(float(value.abs().max()) for name, value in whole.items() if "gradient" in name) > 0
    return max(gaps)


def compared(rank: int, store: str, wholes: dict[str, dict], found: dict[str, Case]) -> dict[str, float]:
    """The differences of every case, for every way to share its rows out."""
    differences = {}
    for world in (3, 2):
        if rank >= world:
            break
        patience = timedelta(seconds=600)
        dist.init_process_group(
            "gloo", init_method=f"file://{store}{world}", rank=rank, world_size=world, timeout=patience
        )
        for name, case in found.items():
            for share in (s for s in SHARES if len(s) == world):
                start = sum(share[:rank])
                mine = trained(case, start, start + share[rank], world)
                differences[f"{name}: {' + '.join(map(str, share))}"] = difference(mine, wholes[name])
        dist.destroy_process_group()
    return differences


def forked(body: Callable[[int], Any], world: int, patience: float) -> list[Any]:
    """What `body(rank)` returns in each of `world` forked processes."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:

        def child(rank: int) -> None:
            torch.set_num_threads(1)
            Path(folder, str(rank)).write_text(json.dumps(body(rank)))

        children = [context.Process(target=child, args=(rank,)) for rank in range(world)]
        for process in children:
            process.start()
        for process in children:
            process.join(patience)
        for process in children:
            if process.is_alive():
                process.kill()
        assert [process.exitcode for process in children] == [0] * world
        return [json.loads(Path(folder, str(rank)).read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    """The largest difference of every case from one process, as any rank saw it; one start of processes serves all."""
    folder = tmp_path_factory.mktemp("ranks")
    found = cases(folder)
    wholes = {name: trained(case, 0, ROWS, 1) for name, case in found.items()}
    ranks = forked(lambda rank: compared(rank, str(folder / "store"), wholes, found), 3, 900)
    return {name: max(rank.get(name, 0.0) for rank in ranks) for name in ranks[0]}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_system_is_trained_alike_by_one_two_and_three_processes(differences):
    assert {name: gap for name, gap in differences.items() if not gap < 1e-6} == {}


def run(cls: Any, config: Any, data: Any, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """The weights that `fit` leaves, after three epochs."""
    train = {"out": str(out), "precision": "64-true", "max_epochs": 3, "validate_every_epochs": 9, **QUIET, **changes}
    fit(create_system(cls, override(config, {"train": train}), data))
    return load_file(out / "checkpoints/last/model.safetensors")


def on_two_processes(tmp_path: Path, cls: Any, config: Any, data: Any, **changes: Any) -> dict[str, torch.Tensor]:
    """The same by two processes that `fit` joins."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def body(rank: int) -> None:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2", LOCAL_RANK=str(rank))
        os.environ.update(RANK=str(rank), NODE_RANK="0", GLOO_SOCKET_IFNAME="lo")
        run(cls, config, data, tmp_path / "two", devices=2, strategy="ddp", **changes)

    forked(body, 2, 600)
    return load_file(tmp_path / "two/checkpoints/last/model.safetensors")


@pytest.mark.parametrize(
    ("cls", "config"), [(GRACE, GRACEConfig), (BGRL, BGRLConfig), (GCool, GCoolConfig), (PamC, PamCConfig)]
)
def test_two_processes_that_hold_the_whole_graph_do_the_work_of_one(tmp_path, cls, config):
    """Its views are random: both processes must draw the same."""
    graph = stochastic_blocks([8, 8], 0.5, 0.1, signal=0.3, seed=3)
    small = override(config(), config.presets["small"])
    if cls is PamC:
        small = override(small, {"widths": [6, 3], "pretrain_epochs": 0})
    single = {"precision": "32-true"}  # the graph is kept in single precision
    one = run(cls, small, graph, tmp_path / "one", **single)
    two = on_two_processes(tmp_path, cls, small, graph, **single)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-6)


def test_two_processes_train_both_stages_of_frame_projections_as_one_does(tmp_path, windows):
    config = override(FrameProjectionsConfig(), {**FRAMES, "mapper_epochs": 2, "train.batch_size": 8})
    one = run(FrameProjections, config, windows, tmp_path / "one")
    two = on_two_processes(tmp_path, FrameProjections, config, windows)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-6)
    alone = tmp_path / "alone"
    alone.mkdir()
    other = on_two_processes(alone, FrameProjections, config, windows, negatives="local")
    assert max(float((other[name] - value).abs().max()) for name, value in one.items()) > 1e-4


@pytest.mark.parametrize(
    ("cls", "config", "changes"),
    [
        (MCLRec, MCLRecConfig, {**SEQUENCES, "views": 0.3, "meta": 0.5}),
        (TwoTower, TwoTowerConfig, TOWERS),
        (BM3, BM3Config, {"dim": 8, "dropout": 0.0}),
        (REARM, REARMConfig, GRAPHS),
    ],
)
def test_two_processes_take_the_steps_of_recommenders_as_one_does(tmp_path, cls, config, changes):
    """Encoder and augmenters in turn; the frequencies of the items of both; trained raw features."""
    small = {"data.users": 20, "data.items": 15, "train.batch_size": 16, "train.checkpoint_every_steps": None}
    made = override(config(), {**small, **changes})
    one = run(cls, made, None, tmp_path / "one", max_steps=4)
    two = on_two_processes(tmp_path, cls, made, None, max_steps=4)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_crops_of_ts2vec_are_of_one_length_on_both_processes(tmp_path, windows):
    """Each row's place is its own; samples are told apart at every step of the overlap, on all processes."""
    config = override(TS2VecConfig(), {**TIME, "train.batch_size": 8, "train.max_steps": 4})
    assert all(value.isfinite().all() for value in on_two_processes(tmp_path, TS2Vec, config, windows).values())
