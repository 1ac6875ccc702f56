"""TriBERT: one BERT body whose layers read words, then sentences, then the report.

VELVET-Med (arXiv 2508.12108) names a "TriBERT" for multi-level textual semantics; neither its levels nor its masks are
public, and there is no code. This is our reading of it: one stack of blocks in three stages,

    words      a word attends to the words of its own sentence;
    sentences  [SENT_i] joins: it attends to the words of sentence i and to the other [SENT], words to their [SENT] too;
    report     [REP] joins and attends to every [SENT] and every word; the others attend as before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from counterpoint.medical.configs import TriBERTConfig
from counterpoint.medical.models import TextBlock, used_length


@dataclass(frozen=True)
class Levels:
    """States of one text at three levels.

    Attributes:
        words: [batch, length, width], and which are words: `word_mask` [batch, length].
        sentences: [batch, sentences, width], and which there are: `sentence_mask` [batch, sentences].
        report: [batch, width].
    """

    words: Tensor
    word_mask: Tensor
    sentences: Tensor
    sentence_mask: Tensor
    report: Tensor


class TriBERT(nn.Module):
    """Words, sentences and the report of a text, see the module. `layers` are of the three stages."""

    def __init__(self, vocabulary: int, length: int, sentences: int, config: TriBERTConfig) -> None:
        super().__init__()
        width = config.width
        self.sentences = sentences
        self.pieces = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.sent = nn.Parameter(0.02 * torch.randn(sentences, width))
        self.rep = nn.Parameter(0.02 * torch.randn(width))
        nn.init.normal_(self.pieces.weight, std=0.05)
        self.stages = nn.ModuleList(
            nn.ModuleList(TextBlock(width, config.heads, config.dropout) for _ in range(n)) for n in config.layers
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Int[Tensor, "batch length"], sentence_of: Int[Tensor, "batch length"]) -> Levels:
        """`sentence_of` is the sentence of every token, -1 for padding; sentences beyond the known number are cut."""
        word = (sentence_of >= 0) & (sentence_of < self.sentences)
        longest = used_length(word)
        tokens, sentence_of, word = tokens[:, :longest], sentence_of[:, :longest], word[:, :longest]
        masks = stage_masks(sentence_of.masked_fill(~word, -1), self.sentences)
        x = self.pieces(tokens) + self.places[:longest]
        for block in self.stages[0]:
            x = block(x, masks[0])
        x = torch.cat([x, self.sent.expand(len(x), -1, -1)], 1)
        for block in self.stages[1]:
            x = block(x, masks[1])
        x = torch.cat([x, self.rep.expand(len(x), 1, -1)], 1)
        for block in self.stages[2]:
            x = block(x, masks[2])
        x = self.norm(x)
        there = (sentence_of[:, :, None] == torch.arange(self.sentences, device=x.device)).any(1)
        return Levels(x[:, :longest], word, x[:, longest:-1], there, x[:, -1])


def stage_masks(sentence_of: Int[Tensor, "batch length"], sentences: int) -> tuple[Tensor, Tensor, Tensor]:
    """Who attends to whom in the three stages; every row attends at least to itself.

    >>> a, b, c = stage_masks(torch.tensor([[0, 0, 1, -1]]), 2)
    >>> a[0].int().tolist()
    [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    >>> b[0, 4].int().tolist(), c[0, 6].int().tolist()  # [SENT_0]; [REP]
    ([1, 1, 0, 0, 1, 1], [1, 1, 1, 0, 1, 1, 1])
    """
    word = sentence_of >= 0
    same = (sentence_of[:, :, None] == sentence_of[:, None, :]) & word[:, :, None] & word[:, None, :]
    self_ = torch.eye(sentence_of.shape[1], dtype=torch.bool, device=sentence_of.device)
    first = same | self_
    mine = sentence_of[:, None, :] == torch.arange(sentences, device=sentence_of.device)[None, :, None]  # [b, s, n]
    there = mine.any(2)
    between = (there[:, :, None] & there[:, None, :]) | torch.eye(sentences, dtype=torch.bool, device=there.device)
    second = torch.cat([torch.cat([first, mine.transpose(1, 2)], 2), torch.cat([mine, between], 2)], 1)
    all_ = torch.cat([word, there], 1)[:, None]
    b, n = second.shape[:2]
    column = torch.zeros(b, n, 1, dtype=torch.bool, device=second.device)
    row = torch.cat([all_, torch.ones(b, 1, 1, dtype=torch.bool, device=second.device)], 2)
    third = torch.cat([torch.cat([second, column], 2), row], 1)
    return first, second, third
