"""Property prediction: what a molecular representation is worth, beside the baselines chemists expect.

Every table holds random and scaffold splits, training from scratch, and ECFP with a random forest, next to the method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from counterpoint.common.metrics.bootstrap import t_interval
from counterpoint.common.metrics.classification import auroc
from counterpoint.common.metrics.probe import logistic_probe, ridge_probe
from counterpoint.common.trainers.configs import RARE
from counterpoint.graphs.molecules.encoders import MoleculeGCN
from counterpoint.graphs.molecules.featurize import MoleculeGraph, featurize, join_molecules
from counterpoint.graphs.molecules.fingerprints import fingerprint_matrix
from counterpoint.graphs.molecules.similar import cluster_groups
from counterpoint.graphs.molecules.splits import scaffold_groups, scaffold_split

FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


@dataclass(frozen=True)
class PropertyTask:
    """One property of one set of molecules. `kind` is `classification` (labels 0/1, nan missing) or `regression`."""

    name: str
    smiles: tuple[str, ...]
    labels: np.ndarray
    kind: str

    @property
    def metric(self) -> str:
        """`AUROC` (larger is better) or `RMSE` (smaller is better)."""
        return "AUROC" if self.kind == "classification" else "RMSE"

    @classmethod
    def of(cls, name: str, smiles: Sequence[str], labels: np.ndarray) -> PropertyTask:
        """Drop molecules without the label; two values make a classification."""
        known = np.isfinite(labels)
        values = np.unique(labels[known])
        kind = "classification" if set(values) <= {0.0, 1.0} else "regression"
        return cls(name, tuple(np.asarray(smiles, dtype=object)[known]), labels[known], kind)


_GROUPS = {"scaffold": scaffold_groups, "cluster": cluster_groups}


@lru_cache(maxsize=8)
def _groups(smiles: tuple[str, ...], how: str) -> tuple[str, ...]:
    return tuple(_GROUPS[how](smiles))


def split_task(task: PropertyTask, how: str, seed: int) -> dict[str, np.ndarray]:
    """Positions of train, val and test: `random`, `scaffold` (balanced: no scaffold in two parts), or `cluster` (no
    Butina cluster in two parts)."""
    if how == "random":
        order = np.random.default_rng(seed).permutation(len(task.labels))
        n_train, n_val = int(0.8 * len(order)), int(0.1 * len(order))
        cut = np.split(order, [n_train, n_train + n_val])
        return dict(zip(FRACTIONS, cut, strict=True))
    if how not in _GROUPS:
        raise ValueError(f"split must be 'random', 'scaffold' or 'cluster', got {how!r}")
    names = scaffold_split(_groups(task.smiles, how), FRACTIONS, balanced=True, seed=seed)
    return {name: np.flatnonzero(names == name) for name in FRACTIONS}


def score(task: PropertyTask, predicted: np.ndarray, rows: np.ndarray, metric: str = "") -> float:
    """AUROC or RMSE of predictions for `rows`, or `metric="AUPRC"`; nan when only one class is left."""
    y = task.labels[rows]
    if task.kind == "classification":
        if not 0 < y.sum() < len(y):
            return float("nan")
        return float(average_precision_score(y == 1, predicted)) if metric == "AUPRC" else auroc(predicted, y == 1)
    return float(np.sqrt(np.mean((predicted - y) ** 2)))


Arm = Callable[[PropertyTask, dict[str, np.ndarray], int], np.ndarray]
"""Takes a task, a split and a seed; returns predictions for the split's test molecules."""


def probe_arm(encode: Callable[[Sequence[str]], Float[Tensor, "n dim"]]) -> Arm:
    """A linear probe on frozen vectors; its penalty is chosen on the validation molecules."""

    def predict(task: PropertyTask, split: dict[str, np.ndarray], seed: int) -> np.ndarray:
        vectors = encode(task.smiles)
        parts = {name: vectors[torch.from_numpy(rows)] for name, rows in split.items()}
        labels = {name: task.labels[rows] for name, rows in split.items()}
        arguments = (parts["train"], labels["train"], parts["test"], labels["test"])
        if task.kind == "classification":
            y = [torch.from_numpy(v).long() for v in (labels["train"], labels["test"], labels["val"])]
            probe = logistic_probe(
                parts["train"], y[0], parts["test"], y[1], val=parts["val"], val_labels=y[2], n_boot=0
            )
            return probe.predictions[:, 1] if probe.predictions.ndim == 2 else probe.predictions
        return ridge_probe(*arguments, val=parts["val"], val_targets=labels["val"], n_boot=0).predictions

    return predict


@lru_cache(maxsize=8)
def fingerprints_of(smiles: tuple[str, ...]) -> np.ndarray:
    """ECFP4 bits [n, 2048] of a task's molecules; the same molecules are not asked for twice."""
    return fingerprint_matrix(smiles)


def ecfp_forest(task: PropertyTask, split: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """ECFP4 (2048 bits) with a random forest of 300 trees: the baseline that is hard to beat."""
    return forest_on(fingerprints_of(task.smiles), task, split, seed)


def forest_on(x: np.ndarray, task: PropertyTask, split: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """Predictions of a random forest of 300 trees on the columns `x` [n, d], fitted on training and validation rows."""
    fit_rows = np.concatenate([split["train"], split["val"]])
    forest = RandomForestClassifier if task.kind == "classification" else RandomForestRegressor
    model = forest(n_estimators=300, max_features="sqrt", n_jobs=1, random_state=seed)
    model.fit(x[fit_rows], task.labels[fit_rows])
    test = x[split["test"]]
    if task.kind != "classification":
        return model.predict(test)
    known = model.classes_.tolist()  # one class alone where the training rows hold no other
    return model.predict_proba(test)[:, known.index(1.0)] if 1.0 in known else np.zeros(len(test))


def from_scratch(
    make: Callable[[], MoleculeGCN], *, epochs: int = 60, batch_size: int = 64, lr: float = 1e-3, patience: int = 15
) -> Arm:
    """The same encoder trained on the labels alone, stopped on the validation molecules. Where a class has less than a
    tenth of the training molecules its terms weigh as much as the other's."""

    def predict(task: PropertyTask, split: dict[str, np.ndarray], seed: int) -> np.ndarray:
        graphs = featurize(task.smiles)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = make()
            head = nn.Sequential(nn.Linear(encoder.out_dim, 32), nn.GELU(), nn.BatchNorm1d(32), nn.Linear(32, 1))
            return _train(nn.ModuleList([encoder, head]), graphs, task, split, epochs, batch_size, lr, patience, seed)

    return predict


def _train(
    model: nn.ModuleList, graphs: list[MoleculeGraph], task: PropertyTask, split, epochs, batch_size, lr, patience, seed
) -> np.ndarray:
    y = torch.from_numpy(task.labels).float()
    centre, spread = y[split["train"]].mean(), y[split["train"]].std().clamp_min(1e-6)
    classify = task.kind == "classification"
    loss_of = nn.BCEWithLogitsLoss(pos_weight=_weight_of_rare(y[split["train"]])) if classify else nn.MSELoss()
    target = y if classify else (y - centre) / spread
    optimizer = torch.optim.Adam(model.parameters(), lr)
    rng = np.random.default_rng(seed)

    def run(rows: np.ndarray) -> Tensor:
        parts = [join_molecules([graphs[i] for i in rows[s : s + 256]]) for s in range(0, len(rows), 256)]
        return torch.cat([model[1](model[0](p))[:, 0] for p in parts])

    best, best_state, waited = -np.inf, None, 0
    for _ in range(epochs):
        model.train()
        order = rng.permutation(split["train"])
        for start in range(0, len(order) - 1, batch_size):
            rows = order[start : start + batch_size]
            if len(rows) < 2:
                continue  # batch norm needs two
            loss = loss_of(run(rows), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            value = score(task, _unscaled(run(split["val"]), classify, centre, spread), split["val"])
        value = value if classify else -value
        if value > best:
            best, waited = value, 0
            best_state = {k: v.clone() for k, v in model.state_dict().items()}
        else:
            waited += 1
            if waited >= patience:
                break
    if best_state is not None:
        model.load_state_dict(best_state)
    model.eval()
    with torch.no_grad():
        return _unscaled(run(split["test"]), classify, centre, spread)


def _weight_of_rare(y: Tensor) -> Tensor | None:
    """Negatives per positive where one of the two is rare; None elsewhere."""
    share = float(y.mean())
    return None if min(share, 1 - share) >= RARE or share in (0.0, 1.0) else torch.tensor((1 - share) / share)


def _unscaled(output: Tensor, classify: bool, centre: Tensor, spread: Tensor) -> np.ndarray:
    return (output if classify else output * spread + centre).double().numpy()


@dataclass(frozen=True)
class Row:
    """One line of a property table: mean over seeds with its 95 % interval."""

    task: str
    split: str
    arm: str
    metric: str
    mean: float
    low: float
    high: float
    seeds: int
    values: tuple[float, ...]


def _row(task: str, how: str, arm: str, metric: str, values: Sequence[float]) -> Row:
    finite = [v for v in values if np.isfinite(v)]
    interval = t_interval(finite) if len(finite) > 1 else None
    mean = float(np.mean(finite)) if finite else float("nan")
    low, high = (interval.low, interval.high) if interval else (float("nan"),) * 2
    if metric != "RMSE":
        low, high = max(low, 0.0), min(high, 1.0)  # no area is larger
    return Row(task, how, arm, metric, mean, low, high, len(finite), tuple(values))


def property_table(
    tasks: Sequence[PropertyTask],
    arms: dict[str, Arm],
    *,
    seeds: Sequence[int],
    splits: Sequence[str] = ("random", "scaffold"),
    progress: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """Every arm on every task and split, with the same splits and seeds for all arms: a row of AUROC and one of AUPRC
    (its chance level is the share of positives) for a classification, one of RMSE for a regression."""
    rows = []
    for task in tasks:
        for how in splits:
            cut = {seed: split_task(task, how, seed) for seed in seeds}
            for name, arm in arms.items():
                found = {seed: arm(task, cut[seed], seed) for seed in seeds}
                for metric in ("AUROC", "AUPRC") if task.kind == "classification" else ("RMSE",):
                    values = [score(task, found[seed], cut[seed]["test"], metric) for seed in seeds]
                    rows.append(_row(task.name, how, name, metric, values))
                    progress(f"{task.name}, {how} split, {name}: {metric} {rows[-1].mean:.3f}")
    return rows
