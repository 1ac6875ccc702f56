"""Which piece is it? Every snippet of a recording retrieves score snippets, and these vote for their pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from counterpoint.common.kernels import topk_scores
from counterpoint.common.metrics import Interval
from counterpoint.common.metrics.bootstrap import bootstrap_columns
from counterpoint.common.metrics.result import Result
from counterpoint.common.metrics.voting import VOTES, vote_shares
from counterpoint.common.runs.opened import OpenRun


@dataclass(frozen=True)
class Identification(Result):
    """How well whole pieces are found.

    Attributes:
        name: direction, for example "audio -> sheet".
        queries: pieces looked for.
        pool: pieces among which they were looked for.
        metrics: R@1, R@5, MRR and median_rank of the right piece.
        chance: the same for random votes.
        intervals: 95 % bootstrap intervals over groups.
        ranks: [queries] place of the right piece.
    """

    name: str
    queries: int
    pool: int
    metrics: dict[str, float]
    chance: dict[str, float]
    intervals: dict[str, Interval]
    ranks: Tensor = field(metadata={"json": False})

    def __str__(self) -> str:
        return (
            f"{self.name}: {100 * self.metrics['R@1']:.0f} % of {self.queries} pieces first among {self.pool} "
            f"(chance {100 * self.chance['R@1']:.0f} %), median rank {self.metrics['median_rank']:g}"
        )


def identify(
    queries: Float[Tensor, "snippets dim"],
    query_pieces: Sequence[str],
    keys: Float[Tensor, "keys dim"],
    key_pieces: Sequence[str],
    *,
    name: str = "audio -> sheet",
    votes: int = VOTES,
    groups: Mapping[str, str] | None = None,
    n_boot: int = 1000,
    seed: int = 0,
) -> Identification:
    """Rank the pieces of the keys for each piece of the queries.

    Every query snippet gives its `votes` nearest key snippets one vote each; a piece's votes are divided by how many
    key snippets it has, so that long pieces have no advantage. Equal votes share the middle rank. `groups` names a
    group (the tune) for each piece, for the intervals.

    >>> z = torch.eye(4)
    >>> identify(z, ["a", "a", "b", "b"], z, ["a", "a", "b", "b"], votes=1).metrics["R@1"]
    1.0
    """
    if len(queries) != len(query_pieces) or len(keys) != len(key_pieces):
        raise ValueError("every query and every key needs the name of its piece")
    names, key_codes = np.unique(np.asarray(key_pieces, dtype=str), return_inverse=True)
    place = {piece: i for i, piece in enumerate(names)}
    wanted = sorted(set(query_pieces))
    missing = [piece for piece in wanted if piece not in place]
    if missing:
        raise ValueError(f"piece {missing[0]!r} is looked for but has no key snippet")
    found = topk_scores(queries, keys, min(votes, len(keys)))[1].cpu().numpy()
    asked = np.asarray(query_pieces, dtype=str)
    ranks = []
    for piece in wanted:
        share = vote_shares(found[asked == piece], key_codes, len(names))
        mine = share[place[piece]]
        ranks.append(1 + (share > mine).sum() + ((share == mine).sum() - 1) / 2)
    rank = torch.tensor(ranks, dtype=torch.float64)
    columns = {"R@1": (rank <= 1).double(), "R@5": (rank <= 5).double(), "MRR": 1 / rank, "median_rank": rank}
    by = None if groups is None else [groups[piece] for piece in wanted]
    intervals = bootstrap_columns(columns, by, n=n_boot, seed=seed, medians=("median_rank",))
    n = len(names)
    chance = {
        "R@1": 1 / n,
        "R@5": min(5 / n, 1.0),
        "MRR": float((1 / np.arange(1, n + 1)).mean()),
        "median_rank": (n + 1) / 2,
    }
    return Identification(name, len(wanted), n, {k: v.value for k, v in intervals.items()}, chance, intervals, rank)


def protocols(run: OpenRun) -> dict[str, Result]:
    """Piece identification in both directions, for `evaluate`; the truth is the piece, whatever `run.label` says."""
    encoded, dataset = run.encoded(), run.samples()
    pieces = [dataset.piece_ids[position] for position in encoded.positions]
    groups = dict(zip(dataset.piece_ids, (dataset.tunes[moment.piece] for moment in dataset.moments)))
    ways = (("audio", "sheet"), ("sheet", "audio"))
    return {
        f"piece identification {a} -> {b}": identify(
            encoded.vectors[a],
            pieces,
            encoded.vectors[b],
            pieces,
            name=f"{a} -> {b}",
            groups=groups,
            n_boot=run.n_boot,
            seed=run.seed,
        )
        for a, b in ways
    }
