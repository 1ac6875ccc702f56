"""Align With Purpose: a term beside CTC that moves a recogniser towards alignments with a wanted property."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from counterpoint.common.losses.draws import noise_for, uniform

__all__ = ["CTCWithPurpose", "earlier_paths", "path_hinge", "sampled_paths"]

Better = Callable[[Int[Tensor, "batch paths frames"], Int[Tensor, "batch"]], Int[Tensor, "batch paths frames"]]


class CTCWithPurpose(nn.Module):
    """CTC plus a hinge that prefers the better twin `f(a)` of alignments `a` drawn from the recogniser itself.

        L = CTC + weight / batch * sum_i max(0, l(a_i) - l(f(a_i)) + margin),    a_i ~ prod_t p(. | t),  i = 1..paths
        l(a) = mean_t log(p(a_t | t) + eps)

    The gradient flows through both scores, not through the draw. `weight = 0` is CTC to the last bit. The term is meant
    to be switched on when CTC has begun to work (the authors' answer to reviewers), which is up to the caller: `weight`
    may be set at any time.

    Args:
        weight: of the hinge. The paper's values per task are not known here.
        better: `f(paths, lengths)`, the property: alignments of the same shape that have more of it. Left out:
            `earlier_paths`, low latency.
        paths: alignments drawn for every utterance.
        margin: by which the better one shall be more likely. Twins that are equally likely never pay it.
        temperature: of the draw alone.
        blank: the label that says nothing.
        generator: source of the draws.

    After a call `monitors` holds both terms, detached. An utterance with fewer frames than its text needs has an
    infinite CTC loss, as in torch.

    Raises `ValueError` for settings out of range, for lengths that are not between 1 and the number of frames, and
    where `better` gives another shape.

    Source: Segev et al. 2024 (ICLR). The authors' code, read in a copy at ChinmayPimpalkhare/CS753_ASR bf6f30e, awp.py:
    score, sum over paths, mean over utterances, margin and `eps` are as there. It differs in two points. There, frames
    behind an utterance's end are drawn and shifted in with those of the utterance; here each utterance ends at its
    length. There, the last frame that may go is never chosen, and a single one stops the program; here all are equally
    likely.

    >>> import torch
    >>> logits, texts = torch.zeros(2, 6, 4), torch.tensor([[1, 2], [3, 3]])
    >>> loss = CTCWithPurpose(weight=1.0)
    >>> value = loss(logits, torch.tensor([6, 5]), texts, torch.tensor([2, 2]))
    >>> loss.monitors["purpose"].item()    # all alignments are equally likely
    0.0
    """

    def __init__(
        self,
        weight: float,
        better: Better | None = None,
        *,
        paths: int = 5,
        margin: float = 0.0,
        temperature: float = 1.0,
        blank: int = 0,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if weight < 0 or margin < 0 or not temperature > 0 or paths < 1:
            raise ValueError(
                "weight and margin must be 0 or more, temperature above 0, paths at least 1; got "
                f"weight {weight}, margin {margin}, temperature {temperature}, paths {paths}"
            )
        self.weight, self.better, self.paths, self.margin = weight, better, paths, margin
        self.temperature, self.blank, self.generator = temperature, blank, generator
        self.monitors: dict[str, Tensor] = {}

    def forward(
        self,
        logits: Float[Tensor, "batch frames labels"],
        lengths: Int[Tensor, "batch"],
        texts: Int[Tensor, "batch longest"],
        text_lengths: Int[Tensor, "batch"],
    ) -> Float[Tensor, ""]:
        """The sum of both terms; CTC is divided by the texts' lengths and averaged, as torch does by default."""
        _check_lengths(logits, lengths)
        log_probs = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
        ctc = F.ctc_loss(log_probs.transpose(0, 1), texts, lengths, text_lengths, blank=self.blank)
        self.monitors = {"ctc": ctc.detach()}
        if self.weight == 0:
            return ctc
        drawn = sampled_paths(log_probs.detach() / self.temperature, self.paths, self.generator)
        if self.better is None:
            twins = earlier_paths(drawn, lengths, blank=self.blank, generator=self.generator)
        else:
            twins = self.better(drawn, lengths)
        purpose = path_hinge(log_probs, lengths, drawn, twins, self.margin)
        self.monitors["purpose"] = purpose.detach()
        return ctc + self.weight * purpose


def sampled_paths(
    logits: Float[Tensor, "batch frames labels"], paths: int = 5, generator: torch.Generator | None = None
) -> Int[Tensor, "batch paths frames"]:
    """Alignments drawn frame by frame from the softmax of the logits.

    >>> sampled_paths(torch.eye(3)[None] * 100, paths=2).tolist()
    [[[0, 1, 2], [0, 1, 2]]]
    """
    batch, frames, _ = logits.shape
    if not batch * frames:
        return torch.zeros(batch, paths, frames, dtype=torch.long, device=logits.device)
    chances = logits.float().softmax(-1).flatten(0, 1)
    drawn = torch.multinomial(chances, paths, replacement=True, generator=noise_for(generator, logits.device))
    return drawn.view(batch, frames, paths).transpose(1, 2)


def earlier_paths(
    paths: Int[Tensor, "batch paths frames"],
    lengths: Int[Tensor, "batch"],
    *,
    blank: int = 0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "batch paths frames"]:
    """Low latency: the same text one frame earlier. One frame that repeats the frame before it, or a blank at the
    beginning, is taken out at random, what follows moves up, and a blank is added at the utterance's end. Alignments
    without such a frame, and frames behind the end, stay as they are.

    >>> earlier_paths(torch.tensor([[[2, 2, 0, 3]]]), torch.tensor([4])).tolist()
    [[[2, 0, 3, 0]]]
    """
    batch, number, frames = paths.shape
    if not batch * frames:
        return paths
    may_go = torch.cat([paths[..., :1] == blank, paths[..., 1:] == paths[..., :-1]], -1)
    time = torch.arange(frames, device=paths.device)
    ends = lengths.to(paths.device)[:, None, None]
    may_go &= time < ends
    like = torch.zeros((), device=paths.device)
    draws = uniform(batch, number, frames, generator=generator, like=like)
    gone = torch.where(may_go, draws, -1.0).argmax(-1, keepdim=True)
    gone = torch.where(may_go.any(-1, keepdim=True), gone, frames)
    moved = (time >= gone) & (time < ends)
    twins = paths.gather(-1, (time + moved).clamp_max(frames - 1))
    return torch.where(moved & (time == ends - 1), blank, twins)


def path_hinge(
    log_probs: Float[Tensor, "batch frames labels"],
    lengths: Int[Tensor, "batch"],
    paths: Int[Tensor, "batch paths frames"],
    better: Int[Tensor, "batch paths frames"],
    margin: float = 0.0,
    eps: float = 1e-7,
) -> Float[Tensor, ""]:
    """What the alignments `paths` are more likely than their `better` twins, plus `margin`, where that is above 0;
    summed over an utterance's alignments, averaged over utterances. With a margin, twins of equal score count nothing.

    >>> log_probs = torch.tensor([[[0.8, 0.2], [0.5, 0.5]]]).log()
    >>> round(path_hinge(log_probs, torch.tensor([2]), torch.tensor([[[0, 1]]]), torch.tensor([[[1, 1]]])).item(), 4)
    0.6931
    """
    _check_lengths(log_probs, lengths)
    if better.shape != paths.shape:
        raise ValueError(f"better alignments must be {tuple(paths.shape)} as those drawn, got {tuple(better.shape)}")
    lengths = lengths.to(log_probs.device)
    frames = log_probs.shape[1]
    inside = torch.arange(frames, device=log_probs.device) < lengths[:, None, None]
    scores = (log_probs.exp() + eps).log()

    def score(labels: Tensor) -> Float[Tensor, "batch paths"]:
        picked = scores.gather(2, labels.transpose(1, 2)).transpose(1, 2)
        return torch.where(inside, picked, 0.0).sum(-1) / lengths[:, None]

    gap = score(paths) - score(better)
    lacking = (gap + margin).clamp_min(0)
    if margin > 0:
        lacking = torch.where(gap != 0, lacking, 0.0)
    return lacking.sum() / max(len(log_probs), 1)


def _check_lengths(logits: Tensor, lengths: Tensor) -> None:
    if lengths.shape != logits.shape[:1]:
        raise ValueError(f"lengths must be [{len(logits)}], one for every utterance, got shape {tuple(lengths.shape)}")
    low, high = (int(lengths.min()), int(lengths.max())) if len(lengths) else (1, 1)
    if low < 1 or high > logits.shape[1]:
        raise ValueError(f"lengths must be between 1 and the {logits.shape[1]} frames, got {low} to {high}")
