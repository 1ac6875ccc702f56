r"""Pictures and their words: ALBEF, TCL and CoCa over any encoder that gives features of a picture's places.

A vertical subclasses one of them and says what its pictures are (`places`, `places_shape`), where its data come from,
and what its words are (batches hold `words` [batch, length], see `WordVocabulary`).

ALBEF (Li et al., "Align before Fuse", NeurIPS 2021; salesforce/ALBEF b9727e4), with momentum encoders f':

    L = ITC + ITM + MLM
    ITC   contrast of picture and text against momentum features and queues, soft targets  (alpha)
    ITM   does this text belong to this picture: true pairs, and for each picture and each text one wrong partner drawn
          by likeness, through the fusion layers; partners are drawn within a rank, as in the official code
    MLM   masked words from their neighbours and the picture; of the target, alpha is the momentum model's softmax

TCL (Yang et al., "Vision-Language Pre-Training with Triple Contrastive Learning", CVPR 2022; uta-smile/TCL 74a3e4f) has
its own contrast in place of ITC: within each modality (the momentum picture is another view), across, and of places
and words with the whole.

CoCa (Yu et al., "Contrastive Captioners are Image-Text Foundation Models", TMLR 2022; no code of the authors):

    L = contrast(pooled picture, text token) + 2 caption
    caption = mean over words of -log p(word | words before, picture)

Where their terms stand:

    ITC                    common/losses/albef.py: ALBEFContrast
    ITM, its negatives     common/losses/albef.py: matching_loss, hard_negatives
    MLM, its masking       common/losses/albef.py: masked_lm_loss; common/data/vocabulary.py: mask_words
    TCL's contrast         common/losses/tcl.py: TCL
    CoCa                   common/losses/coca.py: CoCa
    layers                 common/models/fusion.py
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.data.vocabulary import END, PAD, START, WordVocabulary, mask_words
from counterpoint.common.losses import (
    TCL,
    ALBEFContrast,
    CoCa,
    LogitScale,
    hard_negatives,
    masked_lm_loss,
    matching_loss,
)
from counterpoint.common.models import (
    AttentionalPooler,
    CaptionDecoder,
    EMATeacher,
    FusionEncoder,
    PlaceEncoder,
    TextEncoder,
)
from counterpoint.common.trainers.assets import Assets
from counterpoint.common.trainers.configs import FusionConfig
from counterpoint.common.trainers.system import ContrastiveSystem


class ImageText(ContrastiveSystem):
    """What the three share. `picture` is the modality of the pictures; the other one is `words`."""

    def __init__(self, config: Any, assets: Assets, picture: str) -> None:
        super().__init__(config, assets)
        self.vocabulary, self.length = WordVocabulary(assets["words"]), int(assets["length"])
        self.picture, self.modalities = picture, (picture, "words")

    def places(self, batch: Mapping[str, Any], tower: nn.Module, augment: bool) -> Float[Tensor, "batch places width"]:
        """A tower's features of every place of the batch's pictures, or of a random view of them."""
        raise TypeError(f"{type(self).__name__} does not define places()")

    def same(self, batch: Mapping[str, Any]) -> Int[Tensor, " batch"] | None:
        """Numbers that samples of one picture share, which are no negatives; None where each has its own."""
        return None

    def encode(self, batch: Mapping[str, Any], modality: str | None = None) -> dict[str, Tensor]:
        """Unit embeddings of the modalities that the batch has."""
        wanted = [m for m in self.modalities if m in batch and modality in (None, m)]
        return {m: normalize(self.vector(batch, m), dim=-1) for m in wanted}

    def vector(self, batch: Mapping[str, Any], modality: str) -> Float[Tensor, "batch dim"]:
        """The embedding of one modality."""
        raise TypeError(f"{type(self).__name__} does not define vector()")

    def features(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """As `encode`."""
        return self.encode(batch)


class FusedNetwork(nn.Module):
    """Encoders, projections and fusion layers of ALBEF: what the momentum model copies."""

    def __init__(self, tower: nn.Module, shape: tuple[int, int], words: int, length: int, net: FusionConfig) -> None:
        super().__init__()
        places, features = shape
        self.tower = tower
        self.picture = PlaceEncoder(features, net.width, places, net.picture_layers, net.heads)
        self.text = TextEncoder(words, length, net.width, net.text_layers, net.heads)
        self.fusion = FusionEncoder(net.width, net.width, net.fusion_layers, net.heads)
        self.picture_projection = nn.Linear(net.width, net.dim)
        self.text_projection = nn.Linear(net.width, net.dim)
        self.words = nn.Linear(net.width, words)

    def mix(self, states: Tensor, words: Tensor, context: Tensor) -> Float[Tensor, "batch n width"]:
        """Text states that have looked at the picture; the first stands for the pair."""
        return self.fusion(states, context, words == PAD)


class ALBEFSystem(ImageText):
    """ALBEF (see the module's text). `config.net` is a `FusionConfig`."""

    def __init__(self, config: Any, assets: Assets, picture: str, tower: nn.Module, shape: tuple[int, int]) -> None:
        super().__init__(config, assets, picture)
        net: FusionConfig = config.net
        self.student = FusedNetwork(tower, shape, len(self.vocabulary), self.length, net)
        self.teacher = EMATeacher(self.student, net.momentum)
        self.matching = nn.Linear(net.width, 2)
        self.contrast = self._contrast(net)

    def _contrast(self, net: FusionConfig) -> nn.Module:
        return ALBEFContrast(net.dim, net.queue)

    def vector(self, batch: Mapping[str, Any], modality: str) -> Float[Tensor, "batch dim"]:
        net = self.student
        if modality == "words":
            return net.text_projection(net.text(batch["words"])[:, 0])
        return net.picture_projection(net.picture(self.places(batch, net.tower, False))[:, 0])

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Projections of both sides, and the states that the fusion layers read."""
        net = self.student
        places = net.picture(self.places(batch, net.tower, self.training))
        states = net.text(batch["words"])
        return {
            self.picture: net.picture_projection(places[:, 0]),
            "words": net.text_projection(states[:, 0]),
            "places": places,
            "states": states,
        }

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        picture, text = embeddings[self.picture], embeddings["words"]
        with torch.no_grad():
            teacher = self.teacher.module
            places = teacher.picture(self.places(batch, teacher.tower, self.training and self.second_view))
            states = teacher.text(batch["words"])
        known = {"alpha": self.alpha, "group": self.same(batch)}
        return {
            "itc": self._aligned(batch, (picture, text), (places, states), known),
            "itm": self._matched(batch, embeddings),
            "mlm": self._masked(batch["words"], embeddings["places"], places),
        }

    second_view: ClassVar[bool] = False
    """Whether the momentum model sees another view of the picture (TCL) or the picture itself."""

    @property
    def alpha(self) -> float:
        """Weight of the momentum model's targets: it grows over the first epoch."""
        steps = max(self.total_steps / max(self.epochs, 1), 1.0)
        return self.config.net.alpha * min(self.progress.total_step / steps, 1.0)

    def _aligned(self, batch: Any, ours: tuple[Tensor, Tensor], teachers: tuple[Tensor, Tensor], known: Any) -> Tensor:
        return self.contrast(*ours, *self._projected(*teachers), **known)

    def _projected(self, places: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        teacher = self.teacher.module
        with torch.no_grad():
            return teacher.picture_projection(places[:, 0]), teacher.text_projection(states[:, 0])

    def _matched(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Matching of true pairs, of every picture with a wrong text, and of every text with a wrong picture."""
        places, states, words = embeddings["places"], embeddings["states"], batch["words"]
        picture, text = (normalize(embeddings[k].detach(), dim=-1) for k in (self.picture, "words"))
        draw = torch.Generator(picture.device).manual_seed(int(torch.randint(2**62, ())))
        scale, group = float(self.contrast.logit_scale().detach()), self.same(batch)
        texts = hard_negatives(picture, text, scale=scale, group=group, generator=draw)
        pictures = hard_negatives(text, picture, scale=scale, group=group, generator=draw)
        a, b = (torch.nonzero(chosen >= 0)[:, 0] for chosen in (texts, pictures))
        # One pass: true pairs, pictures with wrong texts, texts with wrong pictures.
        which = torch.cat([torch.arange(len(words), device=words.device), texts[a], b])
        seen = torch.cat([torch.arange(len(words), device=words.device), a, pictures[b]])
        fused = self.student.mix(states[which], words[which], places[seen])[:, 0]
        no, yes = self.matching(fused).unbind(-1)
        return matching_loss((yes - no)[: len(words)], (yes - no)[len(words) :])

    def _masked(self, words: Int[Tensor, "batch n"], places: Tensor, teacher_places: Tensor) -> Float[Tensor, ""]:
        masked, chosen = mask_words(words, len(self.vocabulary), self.config.net.masked)
        net, teacher = self.student, self.teacher.module
        logits = net.words(net.mix(net.text(masked), masked, places))
        with torch.no_grad():
            soft = teacher.words(teacher.mix(teacher.text(masked), masked, teacher_places)) if self.alpha else None
        return masked_lm_loss(logits, words, masked=chosen, teacher=soft, alpha=self.alpha)


class TCLSystem(ALBEFSystem):
    """TCL (see the module's text). The picture's places form no square here and are not averaged over cells."""

    second_view = True

    def _contrast(self, net: FusionConfig) -> nn.Module:
        return TCL(net.dim, net.queue, pool=False)

    def _aligned(self, batch: Any, ours: tuple[Tensor, Tensor], teachers: tuple[Tensor, Tensor], known: Any) -> Tensor:
        places, states = teachers
        teacher = self.teacher.module
        with torch.no_grad():
            local = teacher.picture_projection(places[:, 1:]), teacher.text_projection(states[:, 1:])
        more = {"image_tokens": local[0], "text_tokens": local[1], "text_mask": batch["words"][:, 1:] != PAD}
        return self.contrast(*ours, *self._projected(places, states), **more, **known)


class CoCaSystem(ImageText):
    """CoCa (see the module's text). `config.net` is a `FusionConfig`."""

    def __init__(self, config: Any, assets: Assets, picture: str, tower: nn.Module, shape: tuple[int, int]) -> None:
        super().__init__(config, assets, picture)
        net: FusionConfig = config.net
        places, features = shape
        self.tower = tower
        self.encoder = PlaceEncoder(features, net.width, places, net.picture_layers, net.heads)
        self.pooler = AttentionalPooler(net.width, net.width, 1 + net.queries, net.heads)
        self.decoder = CaptionDecoder(
            len(self.vocabulary), self.length, net.width, net.width, net.text_layers, net.fusion_layers, net.heads
        )
        self.picture_projection = nn.Linear(net.width, net.dim)
        self.text_projection = nn.Linear(net.width, net.dim)
        self.loss = CoCa(LogitScale(0.07), caption_weight=net.caption_weight, pad_id=PAD)

    def _pooled(self, batch: Mapping[str, Any], augment: bool) -> Float[Tensor, "batch queries width"]:
        return self.pooler(self.encoder(self.places(batch, self.tower, augment)))

    def vector(self, batch: Mapping[str, Any], modality: str) -> Float[Tensor, "batch dim"]:
        if modality == "words":
            return self.text_projection(self.decoder.text(batch["words"])[1])
        return self.picture_projection(self._pooled(batch, False)[:, 0])

    def embed(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Projections of both sides, and what the caption's words are made from."""
        pooled = self._pooled(batch, self.training)
        states, whole = self.decoder.text(batch["words"])
        return {
            self.picture: self.picture_projection(pooled[:, 0]),
            "words": self.text_projection(whole),
            "places": pooled[:, 1:],
            "states": states,
        }

    def losses(self, batch: Mapping[str, Any], embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits = self.decoder.logits(embeddings["states"][:, :-1], embeddings["places"])
        pair = embeddings[self.picture], embeddings["words"]
        return {"coca": self.loss(*pair, logits, batch["words"][:, 1:], group=self.same(batch))}

    @torch.no_grad()
    def captions(self, batch: Mapping[str, Any]) -> list[str]:
        """The likeliest words for every picture, one after the other."""
        places = self._pooled(batch, False)[:, 1:]
        words = torch.full((len(places), 1), START, device=places.device)
        while words.shape[1] < self.length and not bool((words == END).any(1).all()):
            states, _ = self.decoder.text(words)
            best = self.decoder.logits(states, places)[:, -1].argmax(-1)
            words = torch.cat([words, best[:, None]], 1)
        return [self.vocabulary.decode(row[1:]) for row in words]
