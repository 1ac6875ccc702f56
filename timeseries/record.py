"""One recording in memory: channels with their own rates and units, annotations, and what the header said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32

from counterpoint.common.errors import InputError
from counterpoint.timeseries.units import canonical_unit, damaged_unit, unit_factor


@dataclass(frozen=True)
class Channel:
    """One lead or sensor axis: `data` [samples] in `unit` at `fs` hertz, NaN where the device recorded nothing."""

    name: str
    unit: str
    fs: float
    data: Float32[np.ndarray, " samples"]

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.data) / self.fs


@dataclass(frozen=True)
class Annotations:
    """Events of a recording: `onset` and `duration` in seconds, `label` as the file writes it.

    >>> Annotations.of([0.5, 1.25], ["N", "V"]).between(1.0, 2.0).label
    ('V',)
    """

    onset: Float[np.ndarray, " events"]
    duration: Float[np.ndarray, " events"]
    label: tuple[str, ...]

    @classmethod
    def of(
        cls, onset: Sequence[float] | np.ndarray, label: Sequence[str], duration: Sequence[float] | None = None
    ) -> Annotations:
        """Build from plain sequences; events without a duration get 0."""
        length = np.zeros(len(onset)) if duration is None else np.asarray(duration, float)
        return cls(np.asarray(onset, float), length, tuple(label))

    def __len__(self) -> int:
        return len(self.label)

    def between(self, start: float, stop: float) -> Annotations:
        """The events whose onset lies in [start, stop) seconds."""
        keep = np.flatnonzero((self.onset >= start) & (self.onset < stop))
        return Annotations(self.onset[keep], self.duration[keep], tuple(self.label[i] for i in keep))


NO_EVENTS = Annotations(np.zeros(0), np.zeros(0), ())


@dataclass(frozen=True)
class Record:
    """A recording: channels (their rates may differ), annotations, header fields and the file it came from.

    `notes` are the sentences that a user must see: what was assumed, left out, renamed or taken as missing. `block` is
    set by readers whose channels are the columns of one array [samples, channels]; `array` then returns that array
    without a copy.

    Units take their one spelling (`units.canonical_unit`). Of channels with one name (compared without case) the
    later ones become `name#2`, `name#3`, so that each can be asked for. Raises `InputError` for a unit that lost a
    character, since its size can then not be known.

    >>> lead = Channel("II", "mV", 4.0, np.arange(8, dtype=np.float32))
    >>> x, present = Record("r1", (lead,)).array(leads=("II", "V5"))
    >>> x.shape, present.tolist()
    ((8, 2), [True, False])
    """

    id: str
    channels: tuple[Channel, ...]
    annotations: Annotations = NO_EVENTS
    meta: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None
    block: Float32[np.ndarray, "samples channels"] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        where, notes = self.source or self.id, []
        taken = {channel.name.casefold() for channel in self.channels}
        seen: set[str] = set()
        channels = []
        for channel in self.channels:
            if damaged_unit(channel.unit):
                raise InputError(
                    f"{where}: channel {channel.name} is in {channel.unit!r}, a unit that cannot be read; write uV, mV "
                    "or V in the file's header"
                )
            name, copy = channel.name, 1
            while name.casefold() in seen or (copy > 1 and name.casefold() in taken):
                copy += 1
                name = f"{channel.name}#{copy}"
            if name != channel.name:
                notes.append(f"has another channel {channel.name}, now called {name}")
            seen.add(name.casefold())
            unit = canonical_unit(channel.unit)
            same = name == channel.name and unit == channel.unit
            channels.append(channel if same else replace(channel, name=name, unit=unit))
        onset, duration = self.annotations.onset, self.annotations.duration
        outside = int(((onset >= self.duration) | ((onset < 0) & (onset + duration <= 0))).sum()) if channels else 0
        if outside:
            notes.append(f"{outside} of {len(onset)} annotations lie outside its {self.duration:g} s")
        object.__setattr__(self, "channels", tuple(channels))
        known = [text.removeprefix(f"{where}: ") for text in self.notes]  # who shows them names the recording
        object.__setattr__(self, "notes", (*known, *(text for text in notes if text not in known)))

    @property
    def names(self) -> tuple[str, ...]:
        """Channel names in file order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def duration(self) -> float:
        """Seconds covered by the longest channel."""
        return max((channel.duration for channel in self.channels), default=0.0)

    def pick(self, leads: Sequence[str], aliases: Mapping[str, str] | None = None) -> list[Channel | None]:
        """The channels behind lead names, None for a lead the record lacks.

        Names compare without case; `aliases` maps a wanted name to the one this record uses (MIT-BIH's "MLII" for
        "II"). Raises `InputError` when the record has none of them.
        """
        by_name = {channel.name.casefold(): channel for channel in reversed(self.channels)}
        translate = {key.casefold(): value.casefold() for key, value in (aliases or {}).items()}
        picked = [by_name.get(name.casefold()) or by_name.get(translate.get(name.casefold(), "")) for name in leads]
        if not any(picked):
            raise InputError(
                f"{self.source or self.id}: none of the leads {', '.join(leads) or '(none)'}; the record has "
                f"{', '.join(self.names) or 'no signals'}; name common leads (--data.leads, "
                "--data.aliases) or drop its row"
            )
        return picked

    def array(
        self,
        fs: float | None = None,
        leads: Sequence[str] | None = None,
        aliases: Mapping[str, str] | None = None,
        units: Sequence[str] = (),
    ) -> tuple[Float32[np.ndarray, "samples leads"], Bool[np.ndarray, " leads"]]:
        """Put the wanted leads on one time grid, in the wanted `units` (as the file has them by default).

        Channels with another rate than `fs` (default: the highest rate among them) are resampled with an
        anti-aliasing filter. A lead the record lacks becomes a NaN column with `present` False (see `pick`).

        Raises `InputError` when the record has none of the wanted leads, when a unit measures something else than the
        wanted one, or when its channels differ in length by more than one sample of the slowest one.
        """
        wanted = tuple(leads) if leads else self.names
        picked = self.pick(wanted, aliases)
        factors = [1.0] * len(wanted)
        for j, (channel, unit) in enumerate(zip(picked, units)):
            factor = 1.0 if channel is None else unit_factor(channel.unit, unit)
            if factor is None:
                raise InputError(
                    f"{self.source or self.id}: channel {channel.name} is in {channel.unit} where {unit} is expected, "
                    "as in earlier recordings; convert the file, or leave the lead out (--data.leads)"
                )
            factors[j] = factor
        present = np.array([channel is not None for channel in picked])
        found = [channel for channel in picked if channel is not None]
        rate = fs or max(channel.fs for channel in found)
        same = wanted == self.names and self.channels[0].fs == rate and set(factors) == {1.0}
        if self.block is not None and same:
            return self.block, present
        lengths = [channel.duration for channel in found]
        if max(lengths) - min(lengths) > 1.001 / min(channel.fs for channel in found):
            shortest = found[int(np.argmin(lengths))]
            raise InputError(
                f"{self.source or self.id}: channel {shortest.name} ends at {min(lengths):.3f} s but others run to "
                f"{max(lengths):.3f} s; select leads of one length"
            )
        from counterpoint.timeseries.preprocess import resample

        columns = {id(channel): resample(channel.data, channel.fs, rate) for channel in found}
        samples = min(len(column) for column in columns.values())
        out = np.full((samples, len(wanted)), np.nan, np.float32)
        for j, channel in enumerate(picked):
            if channel is not None:
                out[:, j] = columns[id(channel)][:samples] * np.float32(factors[j])
        return out, present
