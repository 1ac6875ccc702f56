"""The form of signals that a system was trained on, to which every later recording is brought."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from counterpoint.common.trainers.assets import Assets
from counterpoint.timeseries.windows import WindowSet


@dataclass(frozen=True)
class SignalForm:
    """Leads in their order with their units, the sampling rate, and the training split's scale where one was learnt.

    Attributes:
        leads: names of the channels.
        units: of each lead; empty where the recordings state none.
        fs: sampling rate in hertz.
        mean, std: of each lead over the training signals, for `normalize=train`.

    >>> form = SignalForm(("II",), ("mV",), 250.0, np.zeros(1), np.ones(1))
    >>> SignalForm.of(form.assets()).units
    ('mV',)
    """

    leads: tuple[str, ...]
    units: tuple[str, ...]
    fs: float
    mean: Float[np.ndarray, " channels"] | None = None
    std: Float[np.ndarray, " channels"] | None = None

    @classmethod
    def learnt(cls, windows: WindowSet, normalize: str) -> SignalForm:
        """The form of windows that were read and scaled at level `normalize`."""
        scaled = normalize == "train" and windows.mean is not None and windows.std is not None
        scale = (windows.mean[0], windows.std[0]) if scaled else (None, None)
        return cls(windows.leads, windows.units, windows.fs, *scale)

    @classmethod
    def of(cls, assets: Assets) -> SignalForm:
        """The form that a system's assets hold."""
        names = (tuple(assets["leads"]), tuple(assets["units"]))
        return cls(*names, assets["fs"], assets.get("mean"), assets.get("std"))

    def assets(self) -> Assets:
        """The same as assets."""
        scale = {} if self.mean is None else {"mean": self.mean, "std": self.std}
        return Assets(leads=self.leads, units=self.units, fs=self.fs, **scale)
