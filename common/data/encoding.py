"""The loop that turns rows of a data set into embeddings, for whoever needs them: shards, evaluation, search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from counterpoint.common.data.dataset import BadSample, collate
from counterpoint.common.progress import track


@dataclass(frozen=True)
class EncodedRows:
    """Embeddings of some rows of a data set; row i of every entry belongs to one sample.

    Attributes:
        vectors: modality -> [n, dim], float32 on the CPU.
        positions: places of the rows in the data set (unreadable samples have none).
        ids, groups: of each row.
        facts: further values of each row, as the caller asked for.
        left_out: unreadable samples as (id, reason).
    """

    vectors: dict[str, Tensor]
    positions: list[int]
    ids: list[str]
    groups: list[str]
    facts: dict[str, list]
    left_out: list[tuple[str, str]]


def encode_rows(
    system: Any,
    dataset: Any,
    rows: Sequence[int],
    *,
    facts: Callable[[int, dict], Mapping[str, object]] = lambda position, sample: {},
    change: Callable[[dict, list[int]], dict] | None = None,
    batch_size: int = 128,
    collate_fn: Callable[[list[dict]], dict] = collate,
    device: str | torch.device = "cpu",
    progress: str = "",
) -> EncodedRows:
    """Encode rows of a map-style data set of dictionaries; unreadable ones (`BadSample`) are left out and listed.

    Args:
        system: a module in evaluation mode, on `device`, with `encode(batch) -> {modality: [batch, dim]}`.
        facts: (position, sample) -> values to keep of each sample, under the same names for all.
        change: (batch, positions of its samples) -> batch, applied to every batch before it is encoded (corruption).
        progress: what the progress bar says; none when empty.

    >>> class Twice(torch.nn.Module):
    ...     def encode(self, batch):
    ...         return {"x": 2 * batch["x"]}
    >>> data = [{"x": torch.ones(3) * i, "id": f"s{i}"} for i in range(4)]
    >>> found = encode_rows(Twice(), data, [1, 3], batch_size=1)
    >>> found.ids, found.vectors["x"][:, 0].tolist()
    (['s1', 's3'], [2.0, 6.0])
    """
    vectors: dict[str, list[Tensor]] = {}
    kept: dict[str, list] = {}
    positions: list[int] = []
    ids, groups, left_out = [], [], []
    starts = range(0, len(rows), batch_size)
    with torch.inference_mode():
        for start in track(starts, progress, len(starts)) if progress else starts:
            samples = [(position, dataset[position]) for position in rows[start : start + batch_size]]
            left_out += [(s.id, s.reason) for _, s in samples if isinstance(s, BadSample)]
            good = [(position, s) for position, s in samples if not isinstance(s, BadSample)]
            if not good:
                continue
            batch = {
                k: v.to(device) if isinstance(v, Tensor) else v for k, v in collate_fn([s for _, s in good]).items()
            }
            batch = batch if change is None else change(batch, [position for position, _ in good])
            encoded = system.encode(batch)
            if positions and encoded.keys() != vectors.keys():
                raise ValueError(f"the system encodes {sorted(vectors)} in one batch and {sorted(encoded)} in another")
            for name, value in encoded.items():
                if len(value) != len(good):
                    raise ValueError(f"the system made {len(value)} {name} embeddings of {len(good)} samples")
                vectors.setdefault(name, []).append(value.float().cpu())
            for position, sample in good:
                positions.append(position)
                ids.append(str(sample.get("id", position)))
                groups.append(str(sample.get("group", sample.get("id", position))))
                for name, value in facts(position, sample).items():
                    kept.setdefault(name, []).append(value)
    together = {name: torch.cat(parts) for name, parts in vectors.items()}
    return EncodedRows(together, positions, ids, groups, kept, left_out)
