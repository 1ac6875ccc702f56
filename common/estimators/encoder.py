"""`Encoder`: any system of the suite where scikit-learn expects a transformer.

It is `fit` and `embed` underneath, nothing else: the same training loop, checkpoints and encode loop as the command
line's, in a folder that is thrown away unless `run_folder` is given.
"""

from __future__ import annotations

import contextlib
import json
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from counterpoint.common.errors import InputError, NonFiniteLossError
from counterpoint.common.estimators import inputs, pickling
from counterpoint.common.estimators.lookup import KnownSystem, check_options, find_system, in_python, settings_of_system
from counterpoint.common.progress import silent
from counterpoint.common.trainers.config_files import override
from counterpoint.common.vertical import Given

WHAT = ("encode", "features")
_NEVER = 10**9  # steps between two checkpoints of a run that nobody will resume


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A system that is trained by `fit(X, groups=...)` and turns X into embeddings by `transform(X)`.

    What X may hold is the vertical's to say: an array of series `(n, length)` or `(n, channels, length)` in which NaN
    is missing, a list or column of SMILES. Labels `y` are ignored. A row of which no sample can be made (a flat series)
    is left out of training and is NaN in `transform`, each time with a warning.

    Ctrl-C during `fit` ends the training; the encoder keeps the best weights so far and warns. Pickles hold plain
    state (settings, assets, safetensors), from which the system is built again.

    Args:
        system: a system's name (`counterpoint timeseries systems`), or a class derived from a vertical's system.
        preset: named settings to start from; `full` is the paper's scale.
        what: `encode`, what `embed` writes, or `features`, what heads and probes stand on.
        modality: which embedding, where the system makes several.
        validation_fraction: share of the rows, in whole groups, that chooses the best weights by `train__monitor`; with
            0 every row trains and the last weights are kept.
        run_folder: where the run is kept, for `counterpoint ... report` and the like; none is left without it.
        batch_size: rows that `transform` encodes at a time.
        random_state: seed of weights, batches and augmentations; None is `train__seed`, which is 0 unless given.
        verbose: show progress bars and notes.
        **options: the system's own settings, nested by two underscores: `train__max_steps=20`, `encoder__dim=64`.

    Attributes:
        system_: the trained `ContrastiveSystem`.
        n_features_out_: width of the embeddings.
        metrics_: last figures of the training.

    >>> X = np.random.default_rng(0).normal(size=(12, 30))
    >>> encoder = Encoder("ts2vec", preset="small", encoder__dim=8, train__max_steps=2, random_state=0)
    >>> encoder.fit_transform(X).shape, encoder.get_feature_names_out()[:2].tolist()
    ((12, 8), ['encoder0', 'encoder1'])
    """

    def __init__(
        self,
        system: str | type = "ts2vec",
        *,
        preset: str = "full",
        what: str = "encode",
        modality: str | None = None,
        validation_fraction: float = 0.0,
        run_folder: str | Path | None = None,
        batch_size: int = 128,
        random_state: Any = None,
        verbose: bool = False,
        **options: Any,
    ) -> None:
        self.system = system
        self.preset = preset
        self.what = what
        self.modality = modality
        self.validation_fraction = validation_fraction
        self.run_folder = run_folder
        self.batch_size = batch_size
        self.random_state = random_state
        self.verbose = verbose
        self._options = options

    # Parameters ------------------------------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The estimator's own parameters and the system's options that were given."""
        return {**super().get_params(deep), **self._options}

    def set_params(self, **params: Any) -> Encoder:
        """Set parameters and options; an option that the system lacks is refused with the nearest that it has."""
        own = {name: value for name, value in params.items() if name in self._get_param_names()}
        super().set_params(**own)
        options = {name: value for name, value in params.items() if name not in own}
        try:
            found = find_system(self.system)
        except InputError:
            found = None  # `fit` says so: parameters may be set in any order
        if found is not None:
            check_options(found, options)
        self._options = {**self._options, **options}
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    # Training --------------------------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Encoder:
        """Train the system on X.

        Args:
            X: data in memory, of the kind that the system's vertical takes.
            y: ignored.
            groups: what each row belongs to (patient, molecule family): losses that know groups mask false negatives
                by it, and validation keeps it whole.
        """
        found = find_system(self.system)
        with in_python(found), silent(not self.verbose):
            self._fit(found, X, groups)
        return self

    def _fit(self, found: KnownSystem, X: Any, groups: Any) -> None:
        from counterpoint.common.trainers import create_system

        config = self._config(found)
        rows = inputs.rows_of(self, X, reset=True)
        names = inputs.groups_of(groups, len(rows))
        split = inputs.split_at_random(names, self.validation_fraction, config.train.seed)
        given = found.samples_from(rows, config, names, split, None)
        if len(given.left_out) == len(rows):
            raise InputError(f"X makes no sample: {_of_rows(given.left_out)}")
        _tell(given, "not trained on")
        trained = sum(name == "train" for row, name in enumerate(split) if row not in given.left_out)
        if not trained:
            raise InputError(f"no row of X is left to train on; lower validation_fraction ({self.validation_fraction})")
        with self._folder() as folder:
            system = create_system(found.system_class, self._training(given.config, folder, trained), given.data)
            system.given = True
            self.metrics_ = _train(system)
            self.system_ = _trained(folder)
            if self.run_folder is None:
                self.system_.run_dir = None
        self.n_features_out_ = self._encode(given, [0])[0].shape[1]

    def _config(self, found: KnownSystem) -> Any:
        """The system's settings, the seed among them; raises for parameters that cannot be used."""
        if self.what not in WHAT:
            raise InputError(f"what is {self.what!r}; give {' or '.join(WHAT)}")
        if "train__out" in self._options:
            raise InputError("train__out: give run_folder, which says where the run is kept")
        config = settings_of_system(found, self.preset, self._options)
        if self.random_state is None:
            return config
        if "train__seed" in self._options:
            raise InputError("random_state and train__seed are the same setting; give one of them")
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        return override(config, {"train.seed": int(seed)})

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Path]:
        """Where the run is written."""
        if self.run_folder is not None:
            yield Path(self.run_folder)
            return
        with tempfile.TemporaryDirectory(prefix="counterpoint-") as folder:
            yield Path(folder) / "run"

    def _training(self, config: Any, folder: Path, trained: int) -> Any:
        """The configuration of this training: its folder, no larger batch than there are rows, no files that nobody
        will read."""
        if config.train.devices != 1 or config.train.num_nodes != 1:
            raise InputError("Encoder trains in this process, on one device; train on several with pretrain")
        changes: dict[str, Any] = {"train.out": str(folder)}
        if "train__batch_size" not in self._options:
            changes["train.batch_size"] = max(min(config.train.batch_size, trained), 1)
        if self.run_folder is None:
            changes |= {"train.tensorboard": False, "train.checkpoint_every_steps": _NEVER}
        return override(config, changes)

    # Encoding --------------------------------------------------------------------------------------------------------

    def transform(self, X: Any) -> np.ndarray:
        """Embeddings of X, float32 [n, n_features_out_]; rows that make no sample are NaN, with a warning."""
        check_is_fitted(self, "system_")
        found = find_system(type(self.system_))
        with in_python(found), silent(not self.verbose):
            rows = inputs.rows_of(self, X, reset=False)
            everyone, split = inputs.groups_of(None, len(rows)), ["train"] * len(rows)
            given = found.samples_from(rows, self.system_.config, everyone, split, self.system_.assets)
            _tell(given, "NaN in the result")
            out = np.full((len(rows), self.n_features_out_), np.nan, np.float32)
            if len(given.left_out) < len(rows):
                vectors, places = self._encode(given)
                out[places] = vectors
        return out

    def _encode(self, given: Given, positions: list[int] | None = None) -> tuple[np.ndarray, list[int]]:
        """Vectors of samples, and the rows of X that they came from."""
        import torch

        from counterpoint.common.data.encoding import encode_rows

        system = self.system_
        system.stage = list(system.stages())[-1]
        samples = system.use(given.data).datasets().train
        try:
            found = encode_rows(
                system.to("cuda" if torch.cuda.is_available() else "cpu"), samples, positions, what=self.what,
                batch_size=self.batch_size, progress="encoding" if self.verbose else "",
            )  # fmt: skip
        finally:
            system.use(None)
        name = self._modality(found.vectors)
        return found.vectors[name].numpy(), [samples.row_of(position) for position in found.positions]

    def _modality(self, vectors: Mapping[str, Any]) -> str:
        names = list(vectors)
        if self.modality is None and len(names) == 1:
            return names[0]
        if self.modality not in names:
            asked = "several embeddings" if self.modality is None else f"no embedding {self.modality!r}"
            raise InputError(f"the system makes {asked}; choose by modality=: {', '.join(names)}")
        return self.modality

    @property
    def _n_features_out(self) -> int:
        return self.n_features_out_

    # Pickling --------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        known = dict(super().__getstate__())
        return {**known, "system_": pickling.pickled_state(known["system_"])} if "system_" in known else known

    def __setstate__(self, known: dict[str, Any]) -> None:
        super().__setstate__(known)
        if "system_" in known:
            self.system_ = pickling.system(known["system_"])


def _train(system: Any) -> dict[str, float]:
    """`fit`; an interruption (Ctrl-C) ends it with a warning where a checkpoint was written, and goes on otherwise."""
    from counterpoint.common.trainers import fit

    handler = signal.getsignal(signal.SIGINT)
    try:
        return dict(fit(system).metrics)
    except NonFiniteLossError as error:
        raise NonFiniteLossError(_without_file(system, error)) from None
    except SystemExit as stop:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # Lightning leaves it ignored
        if stop.code not in (1, 128 + signal.SIGINT):
            raise
        if not _checkpoints(Path(system.config.train.out)):
            raise KeyboardInterrupt from None
        warnings.warn(
            f"the training was interrupted at step {system.progress.total_step}; the encoder keeps the best weights so "
            "far",
            stacklevel=3,
        )
        return {}


def _without_file(system: Any, error: NonFiniteLossError) -> str:
    """What a training met, with the samples themselves: the file that lists them is thrown away with its folder."""
    file = Path(system.config.train.out) / "non_finite_batch_rank0.json"
    if not file.is_file():
        return str(error)
    record = json.loads(file.read_text(encoding="utf-8"))
    terms = ", ".join(f"{name} = {value}" for name, value in record["terms"].items())
    return (
        f"loss {terms} at step {record['step']}, in the batch of rows {', '.join(record['ids'])} of X. Look at them, "
        "lower the learning rate (optim__lr), or train with train__precision='32-true'"
    )


def _checkpoints(run: Path) -> list[str]:
    return [name for name in ("best", "last") if (run / "checkpoints" / name).is_dir()]


def _trained(run: Path) -> Any:
    """The system of a run with its best weights; with the last where there are no best yet."""
    from counterpoint.common.trainers import load_run

    return load_run(run, _checkpoints(run)[0])


def _tell(given: Given, consequence: str) -> None:
    for said in given.notes:
        warnings.warn(said, stacklevel=3)
    if given.left_out:
        warnings.warn(f"{_of_rows(given.left_out)}: {consequence}", stacklevel=3)


def _of_rows(left_out: Mapping[int, str]) -> str:
    row, reason = next(iter(left_out.items()))
    return f"X[{row}] {reason}" + (f" (and {len(left_out) - 1} more rows)" if len(left_out) > 1 else "")
