"""Cross-modality gradient harmonisation: gradients that conflict at a shared embedding are projected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from counterpoint.common.errors import InputError
from counterpoint.common.progress import note
from counterpoint.common.trainers.plugin_configs import HarmonizeConfig
from counterpoint.common.trainers.plugins import Gradients, Plugin


def realign(gradients: Sequence[Float[Tensor, "*rows dim"]]) -> list[Float[Tensor, "*rows dim"]]:
    r"""Remove from each gradient its component against every other one it conflicts with, row by row.

    For two, :math:`g_a' = g_a - \frac{\langle g_a, g_b\rangle}{\lVert g_b\rVert^2} g_b` where
    :math:`\langle g_a, g_b\rangle < 0`, and the same with a and b exchanged; else nothing changes. For more than two,
    the projections follow one another in the order given, each against the other's original gradient.

    Source: "Scaling multimodal pre-training via cross-modality gradient harmonization", NeurIPS 2022 (our reading);
    the projection is that of Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020.

    >>> a, b = realign([torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 1.0]])])
    >>> a, b
    (tensor([[0.5000, 0.5000]]), tensor([[0., 1.]]))
    """
    result = []
    for i, own in enumerate(gradients):
        for j, other in enumerate(gradients):
            if i != j:
                inner = (own * other).sum(-1, keepdim=True)
                norm = (other * other).sum(-1, keepdim=True)
                own = own - torch.where((inner < 0) & (norm > 0), inner / norm.where(norm > 0, 1.0), 0.0) * other
        result.append(own)
    return result


def agreement(gradients: Sequence[Float[Tensor, "*rows dim"]]) -> Float[Tensor, "*rows"]:
    """Smallest cosine between two of the gradients, row by row: low where the pairing is likely wrong.

    >>> agreement([torch.tensor([[1.0, 0.0]]), torch.tensor([[-2.0, 0.0]])])
    tensor([-1.])
    """
    cosines = [
        torch.nn.functional.cosine_similarity(a, b, dim=-1) for i, a in enumerate(gradients) for b in gradients[i + 1 :]
    ]
    return torch.stack(cosines).amin(0)


class Harmonizer:
    """Gradients at the embeddings of several losses, realigned where they meet.

    Row i of every embedding belongs to sample i, so a row of the gradient is that sample's own gradient (up to its
    role as a negative of others). With `gamma`, samples whose `agreement` is below it are left out of this step: their
    rows are zero at every embedding. `cosine` keeps the last agreement, a score of pair quality; None where no two
    losses met.
    """

    def __init__(self, shared: str = "", gamma: float | None = None) -> None:
        self.shared, self.gamma = shared, gamma
        self.cosine: Tensor | None = None
        self.kept = 1.0

    def __call__(self, found: Gradients) -> Gradients:
        """Gradients by embedding and term, harmonised."""
        self.cosine, self.kept, result = None, 1.0, {}
        for name, terms in found.items():
            result[name] = terms
            if len(terms) > 1 and self.shared in ("", name):
                flat = [g.flatten(1) for g in terms.values()]
                self._agree(name, agreement(flat))
                result[name] = {t: g.view_as(terms[t]) for t, g in zip(terms, realign(flat))}
        if self.gamma is None or self.cosine is None:
            return result
        keep: Bool[Tensor, " rows"] = self.cosine >= self.gamma
        self.kept = float(keep.double().mean())
        return {name: {t: self._rows(name, g, keep) for t, g in terms.items()} for name, terms in result.items()}

    def _agree(self, name: str, cosine: Float[Tensor, " rows"]) -> None:
        if self.cosine is not None and len(self.cosine) != len(cosine):
            raise _other_rows(name, len(cosine), len(self.cosine))
        self.cosine = cosine if self.cosine is None else torch.minimum(self.cosine, cosine)

    def _rows(self, name: str, gradient: Tensor, keep: Bool[Tensor, " rows"]) -> Tensor:
        if len(gradient) != len(keep):
            raise _other_rows(name, len(gradient), len(keep))
        return gradient * keep.view(-1, *[1] * (gradient.ndim - 1))


def _other_rows(name: str, here: int, there: int) -> InputError:
    return InputError(
        f"harmonize: embedding {name!r} has {here} rows and another one {there}, so their samples cannot be compared; "
        "name the one where the losses meet in harmonize.shared, without gamma_start"
    )


class Harmonize(Plugin):
    """The plug-in `harmonize`, in every stage: where two losses meet at the shared embedding, their gradients are
    realigned; a stage without that embedding adds its gradients up as they are, and says so."""

    Config = HarmonizeConfig

    def __init__(self, config: HarmonizeConfig) -> None:
        super().__init__(config)
        self.met, self.said = False, -1

    def gradients(self, found: Gradients) -> Gradients:
        system, config = self.system, self.config
        gamma = config.gamma_start
        if gamma is not None:
            done = system.progress.step / max(1, system.total_steps)
            gamma += (config.gamma_end - gamma) * min(1.0, done)
        harmonizer = Harmonizer(config.shared, gamma)
        result = harmonizer(found)
        self.met = self.met or config.shared in found or (not config.shared and harmonizer.cosine is not None)
        if harmonizer.cosine is None:
            self._tell(found)
        else:
            system.record({"train/gradient_cosine": harmonizer.cosine.mean(), "train/gradient_kept": harmonizer.kept})
        return result

    def _tell(self, found: Gradients) -> None:
        """No two losses met: fine in one of several stages, a slip where the embedding is in none of them."""
        number, shared = self.system.progress.stage, self.config.shared
        names = ", ".join(found)
        if shared and not self.met and number + 1 == len(self.system.stages()):
            raise InputError(f"harmonize.shared: {shared!r} is not among the embeddings {names}; name one of them")
        if self.said != number:
            self.said = number
            where = f"at {shared!r}" if shared in found else f"at an embedding ({names})"
            note(f"harmonize: in stage {self.system.stage.name!r} no two losses meet {where}: nothing is harmonised")

    def state_dict(self) -> dict[str, Any]:
        return {"met": self.met, "said": self.said}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.met, self.said = bool(state["met"]), int(state["said"])
