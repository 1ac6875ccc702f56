"""Reduced checks of the papers' claims, all arms on the same split and seeds (`counterpoint recsys reproduce`).

Every run is trained under the full-scale defaults until the validation's Recall@20 has not risen for 20 epochs (10 for
sequences), and evaluated with its best epoch; nothing is chosen on the test. A seed decides initial weights, batches
and dropout; the split is the data's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from counterpoint.common.runs.opened import OpenRun
from counterpoint.common.trainers import create_system, fit, load_run, override
from counterpoint.common.trainers.reproduce import Claim
from counterpoint.common.trainers.throwaway import sample_data
from counterpoint.recsys.bm3 import BM3
from counterpoint.recsys.commands import import_edges, import_mmrec, import_recbole, import_sequences
from counterpoint.recsys.configs import LightGCNConfig, VBPRConfig
from counterpoint.recsys.contrast_configs import BM3Config, MCLRecConfig, TwoTowerConfig
from counterpoint.recsys.evaluation.protocol import protocols
from counterpoint.recsys.lightgcn import LightGCN
from counterpoint.recsys.mclrec import MCLRec
from counterpoint.recsys.two_tower import TwoTower
from counterpoint.recsys.vbpr import VBPR

ALL, RARE = "ranking user -> item", "ranking: rare items (1 to 5 interactions)"
Figures = Mapping[str, Mapping[str, float]]


def trained_figures(cls: Any, config: Any, manifest: Path, seed: int, **changes: Any) -> Figures:
    """The test figures of the best epoch: ranking or slice -> figure -> value."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = {"data.manifest": str(manifest), "train.seed": seed, "train.out": f"{folder}/run"}
        quiet = {"train.tensorboard": False, "train.monitor_every": 0}
        fit(create_system(cls, override(config, {**fixed, **quiet, **changes})))
        system = load_run(Path(folder, "run"), "best")
        found = protocols(OpenRun.of(system.eval()).drawing(1, seed))
    return {name: result.metrics for name, result in found.items() if hasattr(result, "metrics")}


# Last.fm-2K: tags as text, music as VGGish vectors ---------------------------------------------------------------


@cache
def _lastfm(source: Path, shuffled: int | None) -> tempfile.TemporaryDirectory:
    """The data set, as it is or with the rows of its features in an order drawn from a seed."""
    kept = tempfile.TemporaryDirectory()
    files = {"text": "all-MiniLM-L6-v2.npy", "audio": "vggish.npy"}
    named = []
    for name, file in files.items():
        path = source / file
        if shuffled is not None:
            values = np.load(path, allow_pickle=False)
            path = Path(kept.name, f"{name}.npy")
            np.save(path, values[np.random.default_rng([shuffled, len(name)]).permutation(len(values))])
        named.append(f"{name}={path}")
    import_mmrec(source / "lfm2k.inter", Path(kept.name, "data"), features=tuple(named))
    return kept


LASTFM: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "LightGCN": (LightGCN, LightGCNConfig(), {}),
    "VBPR": (VBPR, VBPRConfig(), {}),
    "BM3": (BM3, BM3Config(), {}),
    "BM3, features fixed": (BM3, BM3Config(), {"train_features": False}),
    "shuffled features": (BM3, BM3Config(), {}),
    "two towers": (TwoTower, TwoTowerConfig(), {}),
    "no self-supervision": (TwoTower, TwoTowerConfig(), {"alpha": 0.0}),
    "not corrected": (TwoTower, TwoTowerConfig(), {"corrected": False}),
}


@cache
def _lastfm_figures(source: Path, arm: str, seed: int, epochs: int) -> Figures:
    cls, config, changes = LASTFM[arm]
    folder = _lastfm(source, seed if arm.startswith("shuffled") else None)
    manifest = Path(folder.name, "data", "manifest.parquet")
    return trained_figures(cls, config, manifest, seed, **{"train.max_epochs": epochs, **changes})


def lastfm(slice_: str, figure: str = "recall@20", epochs: int = 1000) -> Callable[[Path | None, str, int], float]:
    """A figure of a slice; checks that share an arm share its runs."""

    def run(data: Path | None, arm: str, seed: int) -> float:
        return _lastfm_figures(sample_data(data, "recsys", "lfm2k"), arm, seed, epochs)[slice_][figure]

    return run


# MovieLens 100K: four fields of films, words of titles, years, genres and the id ----------------------------------


MASKS: dict[str, dict[str, Any]] = {"correlated": {}, "random": {"masking": "random"}, "none": {"alpha": 0.0}}


def movielens(data: Path | None, arm: str, seed: int, epochs: int = 1000) -> float:
    """Recall@20 of two towers that hide correlated fields, random ones or none, on every user's random tenth."""
    with tempfile.TemporaryDirectory() as folder:
        source = sample_data(data, "recsys", "ml-100k-recbole")
        manifest = import_recbole(source, Path(folder, "data")).manifest
        fixed = {"data.split": "random", "train.max_epochs": epochs}
        found = trained_figures(TwoTower, TwoTowerConfig(), manifest, seed, **fixed, **MASKS[arm])
    return found[ALL]["recall@20"]


# Amazon ------------------------------------------------------------------------------------------------------------


def beauty(data: Path | None, arm: str, seed: int) -> float:
    """HR@5 on Amazon Beauty, leave-last-out, all items ranked; SASRec here is MCLRec without its contrast: the same
    prefixes, softmax and encoder steps. A threshold is itself."""
    if arm not in ("MCLRec", "SASRec"):
        return float(arm)
    with tempfile.TemporaryDirectory() as folder:
        source = sample_data(data, "recsys", "seq-mclrec", "Amazon_Beauty.txt")
        manifest = import_sequences(source, Path(folder, "data")).manifest
        plain = {"views": 0.0, "meta": 0.0} if arm == "SASRec" else {}
        found = trained_figures(MCLRec, MCLRecConfig(), manifest, seed, **plain)
    return found[ALL]["hr@5"]


def baby(data: Path | None, arm: str, seed: int) -> float:
    """Recall@20 of LightGCN on Amazon Baby as MMRec counts, or the published number itself."""
    if arm != "LightGCN":
        return float(arm)
    with tempfile.TemporaryDirectory() as folder:
        source = sample_data(data, "recsys", "amazon-baby")
        manifest = import_edges(source, Path(folder, "data")).manifest
        found = trained_figures(LightGCN, LightGCNConfig(), manifest, seed, **{"ranking.convention": "mmrec"})
    return found[ALL]["recall@20"]


_BM3, _TOWERS, _MCLREC = "Zhou et al., WWW 2023", "Yao et al., CIKM 2021", "Qin et al., SIGIR 2023"
_LFM = "Last.fm-2K (1,858 users, 1,425 items), split of its publishers, real text and audio features"
_ML = "MovieLens 100K (943 users, 1,682 films), a random tenth of every user's films held out"
CHECKS: dict[str, tuple[Claim, Callable[[Path | None, str, int], float]]] = {
    claim.name: (claim, run)
    for claim, run in (
        *(
            (
                Claim(f"bm3-lastfm-{short}{suffix}", f"BM3 beats {what}{where}", baseline, "BM3", "Recall@20",
                      source=_BM3, data=_LFM, effect=effect),
                lastfm(slice_),
            )
            for slice_, suffix, where in ((ALL, "", ""), (RARE, "-rare", " on items with 5 training users or fewer"))
            for short, baseline, what, effect in (  # as published on Amazon Baby; of the shuffled features one point
                ("lightgcn", "LightGCN", "LightGCN", 0.0129),
                ("vbpr", "VBPR", "VBPR", 0.022),
                ("features", "shuffled features", "itself with the rows of its features shuffled", 0.01),
            )
        ),
        (
            Claim("bm3-lastfm-fixed", "BM3 with fixed features stays within half a point of BM3 with trained ones",
                  "BM3", "BM3, features fixed", "Recall@20", margin=-0.005, data=_LFM,
                  source=""),  # no paper claims it: what fixed features cost
            lastfm(ALL),
        ),
        (
            Claim("two-tower-lastfm-self", "self-supervision raises two towers' recall of rare items",
                  "no self-supervision", "two towers", "Recall@20", source=_TOWERS, data=_LFM, effect=0.01),
            lastfm(RARE),
        ),
        (
            Claim("two-tower-lastfm-corrected", "the correction raises two towers' recall of rare items",
                  "not corrected", "two towers", "Recall@20", source="Yi et al., RecSys 2019", data=_LFM, effect=0.01),
            lastfm(RARE),
        ),
        *(
            (
                Claim(f"two-tower-ml100k-{name}", claim, baseline, "correlated", "Recall@20", source=_TOWERS, data=_ML,
                      effect=0.01),
                movielens,
            )
            for name, claim, baseline in (
                ("masks", "two towers learn more where correlated fields are hidden than where random ones are",
                 "random"),
                ("self", "self-supervision raises two towers' recall", "none"),
            )
        ),
        (
            Claim("mclrec-beauty", "MCLRec beats SASRec with the same softmax and steps on Amazon Beauty", "SASRec",
                  "MCLRec", "HR@5", source=_MCLREC, data="Amazon Beauty (22,363 users, 12,101 items), leave-last-out",
                  effect=0.0204),
            beauty,
        ),
        (
            Claim("mclrec-beauty-published", "MCLRec comes within half a point of the published HR@5 on Amazon Beauty",
                  "0.0581", "MCLRec", "HR@5", margin=-0.005, source=_MCLREC,
                  data="Amazon Beauty (22,363 users, 12,101 items), leave-last-out"),
            beauty,
        ),
        (
            Claim("lightgcn-baby", "LightGCN comes within 0.3 points of MMRec's Recall@20 on Amazon Baby", "0.0754",
                  "LightGCN", "Recall@20", margin=-0.003, source="MMRec's table of 2023",
                  data="Amazon Baby (19,445 users, 7,050 items), random split of its publishers"),
            baby,
        ),
    )
}  # fmt: skip
