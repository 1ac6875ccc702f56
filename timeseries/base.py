"""What the vertical's systems share: windows of the configured data, their datasets, and whole-set encoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from counterpoint.common.data.encoding import encode_rows
from counterpoint.common.data.manifest import SPLITS
from counterpoint.common.errors import InputError
from counterpoint.common.trainers import Assets, ContrastiveSystem, Datasets
from counterpoint.common.trainers.inputs import Input
from counterpoint.timeseries.backbones import bound_to_length
from counterpoint.timeseries.form import SignalForm
from counterpoint.timeseries.manifest import WindowDataset, load_windows
from counterpoint.timeseries.windows import WindowSet

SIGNAL = Input(
    "float32 signals: the leads `assets.leads` in this order and in the units `assets.units`, resampled to "
    "`assets.fs` hertz, then filtered without phase shift (notch at `notch` hertz; Butterworth of order 4 from "
    "`low` to `high` hertz; null: no such filter), then scaled per lead by `normalize`, (value - mean) / deviation "
    "of the finite values (one below 1e-8 counts as 1): train takes `assets.mean` and `assets.std`, record, trial "
    "and patient those of the unit that the signal belongs to, window those of the window itself, none leaves it; "
    "then cut into windows of `length` samples (0: whole). NaN where a value is missing and behind the end; a lead "
    "that is missing as a whole is 0.",
    ("time", "channels"),
    ("time",),
)


class SignalSystem(ContrastiveSystem):
    """A system over a `WindowSet`, whose signals `config.data` names. Its assets are the form of the training signals
    (`SignalForm`), to which every other recording is brought."""

    modalities = ("signal",)
    inputs: ClassVar[dict[str, Input]] = {"x": SIGNAL}

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> WindowSet:
        """The configured windows."""
        form = None if assets is None else SignalForm.of(assets)
        return load_windows(config.data, form, config.train.on_error, config.train.max_bad)

    @classmethod
    def learn(cls, config: Any, data: WindowSet) -> Assets:
        """Leads, units and rate; with `data.normalize=train` also the training split's mean and deviation; with an
        encoder that is built for windows of one length, that length."""
        assets = SignalForm.learnt(data, config.data.normalize).assets()
        encoder = getattr(config, "encoder", None)
        return assets.replace(length=data.length) if encoder and bound_to_length(encoder) else assets

    @property
    def windows(self) -> WindowSet:
        """The configured windows, or those handed in (`use`)."""
        return self.data

    @property
    def form(self) -> SignalForm:
        """The form in which the system takes signals."""
        return SignalForm.of(self.assets)

    @property
    def channels(self) -> int:
        """Leads of the data."""
        return len(self.assets["leads"])

    def draw_views(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch with what the step draws at random (crops, jitter): here, where it is seeded per batch."""
        return batch

    def datasets(self) -> Datasets:
        """Windows of the three splits; a split without windows is None."""
        parts = {}
        for split in SPLITS:
            part = self.windows.where(split=split)
            options = {"views": self.draw_views, "left_out": self.windows.left_out.get(split, ())}
            parts[split] = WindowDataset(part, of=self.windows, **options) if len(part) else None
        if parts["train"] is None:
            raise InputError(
                f"{self.config.data.manifest}: no window belongs to split train; run `data split` on it "
                "first"
            )
        return Datasets(**parts)

    def represent(self, x: Float[Tensor, "batch time channels"]) -> Float[Tensor, "batch dim"]:
        """The evaluation embedding of windows (not normalized)."""
        raise TypeError(f"{type(self).__name__} does not define represent()")

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """`represent` of the batch's windows under the name `signal`."""
        if modality not in (None, "signal"):
            raise InputError(f"modality {modality!r} is unknown; this system has signal")
        return {"signal": self.represent(batch["x"])}

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """What heads and probes stand on: `represent`."""
        return {"signal": self.represent(batch["x"])}

    def dense_features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The representation of every time step, where the system has one (`represent_steps`)."""
        steps = getattr(self, "represent_steps", None)
        return super().dense_features(batch) if steps is None else {"signal": steps(batch["x"])}

    def before_finetune(self) -> None:
        """Averaged weights are what is evaluated, so they are the ones that train on."""
        average = getattr(self, "average", None)
        if average is not None:
            self.encoder = average.module.requires_grad_(True)

    def embed_windows(self, windows: WindowSet, batch_size: int = 256) -> Float[Tensor, "windows dim"]:
        """Evaluation embeddings of many windows, in evaluation mode; the mode is put back afterwards."""
        return encode_rows(self, WindowDataset(windows), what="features", batch_size=batch_size).vectors["signal"]
