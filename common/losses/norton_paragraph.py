"""Norton's paragraph term: videos against paragraphs, clips re-aligned with captions by transport with a bucket."""

import math
from itertools import product
from typing import Unpack

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.losses.base import Objective
from counterpoint.common.losses.blocks import block_stats, symmetric_cross_entropy
from counterpoint.common.losses.cards import ObjectiveCard
from counterpoint.common.losses.scale import Temperature, as_scale
from counterpoint.common.losses.sharing import EngineSettings

__all__ = ["NortonParagraph", "bucket_transport", "token_similarity"]


class NortonParagraph(Objective):
    """Whole sequences of clips against sequences of captions, re-aligned by transport (Norton's paragraph term).

        S = (w minmax(caption . clip) + (minmax(words -> frames) + minmax(frames -> words)) / 2) / (w + 1)
        p = the k-th smallest similarity of matching clips,  k = floor(bucket * number of clips)
        Q = entropic plan of [S, p],  rescaled to mass n
        score = scale sum_tu Q_tu S_tu,      L = CE(rows) + CE(columns)      (the sum, as the code)

    minmax brings each similarity of the whole batch to [0, 1] (its ends carry gradient); `token_similarity` says what
    words -> frames is. Without tokens S = minmax(caption . clip). Misaligned clips and captions go to the bucket (see
    `bucket_transport`). Q carries no gradient. Every pair of sequences needs its own small plan, so the scores are
    computed for blocks of rows, twice: the ends of minmax first.

    Call with clips, captions [batch, n, dim]: pooled features, in order; frames, words [batch, n, tokens, dim]: their
    tokens (both or neither), with masks (true: a real token). Sequences are 8 clips long in the paper and several may
    come from one video. The published loss is `Norton` + 0.1 of this.

    Args:
        temperature: 1 / scale, 0.07. The official code declares it learnable but gives it to no optimiser; a
            `LogitScale(0.07)` learns.
        bucket: 0.3. epsilon, iterations: of the transport (0.1, 50).
        fusion: w (0.5). alpha: smoothness of `token_similarity` (1).
        count_padding: as the official code counts padding (see `token_similarity`); off by default.
        block: rows of plans in memory at a time.

    Raises `ValueError` for tokens of one side only, or unequal numbers of clips and captions.

    Source: Lin et al. 2024, official code.

    >>> import torch
    >>> x = torch.eye(6).view(3, 2, 6)
    >>> loss = NortonParagraph(temperature=0.1)
    >>> loss(x, x).item() < loss(x, x.flip(0)).item()
    True
    """

    card = ObjectiveCard(
        paper="Norton 2024",
        needs="sequences of clips and captions; optional tokens",
        engine="none: rows in blocks (one plan per pair)",
        status="official numbers",
        checked="official numbers (XLearning-SCU/2024-ICLR-Norton 6c80470), plan and bucket included",
    )

    def __init__(
        self,
        temperature: Temperature = 0.07,
        *,
        bucket: float = 0.3,
        epsilon: float = 0.1,
        iterations: int = 50,
        fusion: float = 0.5,
        alpha: float = 1.0,
        count_padding: bool = False,
        block: int = 16,
        **engine: Unpack[EngineSettings],
    ):
        super().__init__(**engine)
        self.logit_scale, self.bucket, self.block = as_scale(temperature), bucket, block
        self.epsilon, self.iterations = epsilon, iterations
        self.fusion, self.alpha, self.count_padding = fusion, alpha, count_padding

    def forward(
        self,
        clips: Float[Tensor, "batch n dim"],
        captions: Float[Tensor, "batch n dim"],
        *,
        frames: Float[Tensor, "batch n frames width"] | None = None,
        words: Float[Tensor, "batch n words width"] | None = None,
        frame_mask: Bool[Tensor, "batch n frames"] | None = None,
        word_mask: Bool[Tensor, "batch n words"] | None = None,
    ) -> Float[Tensor, ""]:
        """Sum of both directions' means."""
        if (frames is None) != (words is None):
            raise ValueError("NortonParagraph needs frames and words, or neither")
        here, there = list(self.embed(captions, clips)), []
        if frames is not None:
            tokens = self.embed(words, frames)
            masks = [
                torch.ones_like(t[..., 0], dtype=torch.bool) if m is None else m
                for t, m in zip(tokens, (word_mask, frame_mask), strict=True)
            ]
            here, there = [here[0], tokens[0], masks[0]], [here[1], tokens[1], masks[1]]
        else:
            here, there = here[:1], here[1:]
        there = [self.union(t) for t in there]
        if not len(there[0]):
            return clips.sum() + captions.sum()
        low, spread, bucket = self._ranges(here, there)
        scale = self.logit_scale()

        def score(start: int, stop: int) -> Tensor:
            similarity = self._fuse(self._similarities([t[start:stop] for t in here], there), low, spread)
            plan = bucket_transport(similarity.detach(), bucket, epsilon=self.epsilon, iterations=self.iterations)
            plan = plan * (plan.shape[-1] / plan.sum((-2, -1), keepdim=True))
            return scale * (plan * similarity).sum((-2, -1))

        return 2 * symmetric_cross_entropy(block_stats(score, here[0], block=self.block, over=self), over=self)

    def _similarities(self, here: list[Tensor], there: list[Tensor]) -> list[Float[Tensor, "i j n n"]]:
        """Captions against clips: of the pooled features, and both directions of the tokens."""
        pooled = torch.einsum("itd,jud->ijtu", here[0], there[0])
        if len(here) == 1:
            return [pooled]
        flat = [t.flatten(0, 1) for t in (*here[1:], *there[1:])]
        both = token_similarity(*flat, alpha=self.alpha, count_padding=self.count_padding)
        shape = (len(here[0]), here[0].shape[1], len(there[0]), there[0].shape[1])
        return [pooled, *(s.view(shape).transpose(1, 2) for s in both)]

    def _fuse(self, parts: list[Tensor], low: Tensor, spread: Tensor) -> Float[Tensor, "*pairs"]:
        pooled, *tokens = ((s - a) / b for s, a, b in zip(parts, low, spread, strict=True))
        return pooled if not tokens else (self.fusion * pooled + sum(tokens) / 2) / (self.fusion + 1)

    def _ranges(self, here: list[Tensor], there: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Each similarity's least value and spread over the batch of all ranks, and the bucket's."""
        first, count = self.own(here[0]).start, len(here[0])
        matching, ends = [], []
        with torch.no_grad():
            for start in range(0, count, self.block):
                parts = self._similarities([t[start : start + self.block] for t in here], there)
                rows = torch.arange(len(parts[0]), device=parts[0].device)
                matching.append(torch.stack([s[rows, rows + start + first].diagonal(0, 1, 2) for s in parts], 1))
                # Where the ends lie, not what they are: the two pairs are then worked out with their gradient.
                ends.append([[(sign * s).max(), (sign * s).argmax(), start] for s, sign in product(parts, (-1, 1))])
        kinds, n = (3 if len(here) > 1 else 1), here[0].shape[1]
        # A rank without rows has no ends, but takes part in the way back.
        found = here[0].new_full((1, 2 * kinds), -torch.inf) + here[0].sum()
        if count:
            values = []
            for place in range(2 * kinds):
                _, at, start = max((block[place] for block in ends), key=lambda end: float(end[0]))
                i, j = divmod(int(at) // n**2, len(there[0]))
                t, u = divmod(int(at) % n**2, n)
                pair = [[x[r, s][None, None] for x in side] for side, r, s in ((here, start + i, t), (there, j, u))]
                values.append(self._similarities(*pair)[place // 2].squeeze() * (1 if place % 2 else -1))
            found = torch.stack(values)[None]
        low, high = self.union(found).amax(0).view(kinds, 2).unbind(1)
        low, spread = -low, (high + low).clamp_min(1e-6)
        own = torch.cat(matching) if count else here[0].new_zeros(0, kinds, n)
        fused = self._fuse(list(self.union(own).unbind(1)), low.detach(), spread.detach())
        order = max(int(self.bucket * fused.numel()), 1)
        return low, spread, fused.flatten().kthvalue(order).values


def token_similarity(
    words: Float[Tensor, "captions w dim"],
    word_mask: Bool[Tensor, "captions w"],
    frames: Float[Tensor, "clips f dim"],
    frame_mask: Bool[Tensor, "clips f"],
    *,
    alpha: float = 1.0,
    count_padding: bool = False,
) -> tuple[Float[Tensor, "captions clips"], Float[Tensor, "captions clips"]]:
    """Soft maximum over the other side's tokens, mean over one's own: words -> frames, and frames -> words.

        s_ab = mean_t alpha log sum_v exp(w_at . f_bv / alpha)      over real tokens; 0 where a side has none

    The official code adds alpha log(number of b's real tokens) for each padded token of a to the sum over t, so that
    padding moves the value: `count_padding` does so.

    >>> import torch
    >>> a, real = torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool)
    >>> [round(s.item(), 4) for s in token_similarity(a, real, a, real, alpha=0.01)]    # the hard maximum in the limit
    [1.0, 1.0]
    """
    scores = torch.einsum("atd,bvd->abtv", words, frames) / alpha
    there = _towards(scores, word_mask, frame_mask, count_padding)
    back = _towards(scores.permute(1, 0, 3, 2), frame_mask, word_mask, count_padding)
    return alpha * there, alpha * back.T


def _towards(
    scores: Float[Tensor, "a b t v"], own: Bool[Tensor, "a t"], other: Bool[Tensor, "b v"], count_padding: bool
) -> Float[Tensor, "a b"]:
    some = other.any(1)[None, :, None]
    best = torch.where(other[None, :, None] | ~some[..., None], scores, -torch.inf).logsumexp(3)
    total, real = torch.where(own[:, None] & some, best, 0.0).sum(2), own.sum(1, keepdim=True)
    if count_padding:
        total = total + (own.shape[1] - real) * other.sum(1).clamp_min(1).to(scores.dtype).log()
    return total / real.clamp_min(1)


@torch.no_grad()
def bucket_transport(
    similarity: Float[Tensor, "*batch n m"], bucket: float | Tensor, *, epsilon: float = 0.1, iterations: int = 50
) -> Float[Tensor, "*batch n m"]:
    """Entropic plans of many small similarity matrices with a bucket row and column, bucket dropped.

    Every row and column carries mass 1, the bucket's row m and its column n: it can take everything that matches no
    better than `bucket`. Rows are fitted first, columns last.

    >>> import torch
    >>> plan = bucket_transport(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 0.5)
    >>> [round(x, 2) for x in plan.diagonal().tolist()]       # the second finds nothing
    [0.92, 0.01]
    """
    *batch, n, m = similarity.shape
    full = similarity.new_empty(*batch, n + 1, m + 1)
    full[...] = bucket
    full[..., :n, :m] = similarity
    full = full / epsilon
    rows, columns = similarity.new_zeros(n + 1, 1), similarity.new_zeros(m + 1)
    rows[n], columns[m] = math.log(m), math.log(n)
    f, g = full.new_zeros(*batch, n + 1, 1), full.new_zeros(*batch, 1, m + 1)
    for _ in range(iterations):
        f = rows - torch.logsumexp(full + g, -1, keepdim=True)
        g = columns - torch.logsumexp(full + f, -2, keepdim=True)
    return torch.exp(full + f + g)[..., :n, :m]
