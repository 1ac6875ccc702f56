"""Two times of one sensor as two views: chips of the same ground, seen at different dates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from counterpoint.common.data.samples import BadSample, Part, options_hash
from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.geospatial.data.chips import Chips
from counterpoint.geospatial.data.layers import row_grid

TIMES = ("earlier", "later")


class TimePairs(Part):
    """The grounds that chips of one sensor show at two times or more, one sample each.

    A batch holds `earlier` and `later` [batch, bands, size, size] with `earlier_valid` and `later_valid`, turned alike;
    the other fields are those of the earlier chip. In training two of a ground's times are drawn anew each time;
    otherwise they are its first and its last.

    Raises `InputError` where the chips are of both sensors or drawn at random, and where no ground has two times.
    """

    def __init__(self, chips: Chips, train: bool) -> None:
        if len(chips.cut.bands) != 1:
            raise InputError("two times are those of one sensor (--data.sensors s1, or s2)")
        if chips.cut.random:
            raise InputError("two times show one ground: cut the chips on a grid (--data.sampler grid)")
        self.sensor, self.train = next(iter(chips.cut.bands)), train
        self.seen = _times(chips, self.sensor)
        super().__init__(chips, [places[0] for places in self.seen])

    def __getitem__(self, position: int) -> dict[str, Any] | BadSample:
        position = range(len(self))[position]
        places = self.seen[position]
        first, last = 0, len(places) - 1
        if self.train:
            first, last = sorted(torch.randperm(len(places))[:2].tolist())
        pair = [self.whole[places[i]] for i in (first, last)]
        for sample in pair:
            if isinstance(sample, BadSample):
                return BadSample(position, sample.id, sample.reason)
        a, b = pair
        if "turn" in a:
            b = {**b, "turn": a["turn"]}
        return {**a, "id": self.whole.ids[places[0]], "index": position, "pair": (a, b)}

    @property
    def hash(self) -> str:
        return options_hash(super().hash, times=[list(places) for places in self.seen], train=self.train)

    def collate(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: see the class."""
        views = [self.whole.collate([s["pair"][i] for s in samples]) for i in (0, 1)]
        valid = f"{self.sensor}_valid"
        batch = {k: v for k, v in views[0].items() if k not in (self.sensor, valid, "turn")}
        batch |= {"index": torch.tensor([s["index"] for s in samples]), "id": [s["id"] for s in samples]}
        for name, view in zip(TIMES, views):
            batch |= {name: view[self.sensor], f"{name}_valid": view[valid]}
        return batch


def _times(chips: Chips, sensor: str) -> list[list[int]]:
    """Positions of the chips of every ground with two times or more, in the order of time."""
    found: dict[tuple, list[int]] = defaultdict(list)
    for position, (i, r, c) in enumerate(chips.places.tolist()):
        grid = row_grid(chips.rows[i])
        found[chips.groups[position], grid.crs, grid.left, grid.top, grid.side, r, c].append(position)
    times = {p: str(chips.rows[chips.places[p, 0]].get(f"{sensor}_time") or "") for ps in found.values() for p in ps}
    if unknown := sum(not time for time in times.values()):
        note(f"of {unknown} of {len(times)} chips nothing says when {sensor} saw them; they make no pair of times")
    each = [{times[p]: p for p in sorted(ps, reverse=True) if times[p]} for ps in found.values()]  # one chip a time
    several = [[seen[time] for time in sorted(seen)] for seen in each if len(seen) > 1]
    if not several:
        raise InputError(
            f"{chips.manifest.path or 'manifest'}: no ground is seen twice by {sensor}, at known times; two times of "
            "a place are rows of one grid (import several dates, or --data.seasons 2 with the simulator)"
        )
    if alone := len(found) - len(several):
        note(f"{alone} of {len(found)} grounds are seen at one known time by {sensor} and make no pair of times")
    return several
