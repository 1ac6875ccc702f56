"""Words as numbers: a vocabulary learnt from the training texts, plain data that travels as an asset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from counterpoint.common.errors import InputError

__all__ = ["SPECIAL", "WordVocabulary"]

SPECIAL = ("<pad>", "<start>", "<end>", "<mask>", "<unknown>")
"""Numbers 0 to 4 in every vocabulary."""
PAD, START, END, MASK, UNKNOWN = range(5)


class WordVocabulary:
    """Words of a text by their numbers; a text is `<start> words <end>`, padded with 0.

    >>> vocabulary = WordVocabulary.learn(["b a", "a c"])
    >>> vocabulary.words[5:], vocabulary.encode("a d", 5).tolist()
    (('a', 'b', 'c'), [1, 5, 4, 2, 0])
    >>> vocabulary.decode(vocabulary.encode("a b", 6))
    'a b'
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        if self.words[: len(SPECIAL)] != SPECIAL or len(set(self.words)) != len(self.words):
            raise InputError("a vocabulary begins with its special words and holds each word once")
        self._numbers = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def learn(cls, texts: Iterable[str], least: int = 1) -> WordVocabulary:
        """The words that occur at least so often, in alphabetical order."""
        counts = Counter(word for text in texts for word in text.split())
        return cls((*SPECIAL, *sorted(w for w, n in counts.items() if n >= least and w not in SPECIAL)))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, text: str, length: int, ends: bool = True) -> Int[Tensor, " length"]:
        """The numbers of a text, cut to `length`; without `ends` the words alone, without `<start>` and `<end>`.

        >>> WordVocabulary.learn(["b a"]).encode("a d", 3, ends=False).tolist()
        [5, 4, 0]
        """
        if length < 2:
            raise ValueError(f"a text takes at least 2 places, got {length}")
        numbers = [self._numbers.get(word, UNKNOWN) for word in text.split()]
        found = [START, *numbers[: length - 2], END] if ends else numbers[:length]
        return torch.tensor(found + [PAD] * (length - len(found)))

    def unknown(self, text: str) -> list[str]:
        """Words of a text that have no number of their own."""
        return [word for word in text.split() if word not in self._numbers]

    def decode(self, numbers: Int[Tensor, " length"] | Sequence[int]) -> str:
        """The words up to the end, special ones left out."""
        words = []
        for number in map(int, numbers):
            if number == END:
                break
            if number >= len(SPECIAL):
                words.append(self.words[number])
        return " ".join(words)


def mask_words(
    words: Int[Tensor, "batch n"], vocabulary: int, probability: float
) -> tuple[Int[Tensor, "batch n"], Tensor]:
    """BERT's masking: of the words (not the special ones) a share is chosen, of which 80 % become `<mask>`, 10 % any
    word, 10 % stay. Returns the masked words and which were chosen. Random numbers are torch's."""
    chosen = (torch.rand(words.shape, device=words.device) < probability) & (words >= len(SPECIAL))
    fate = torch.rand(words.shape, device=words.device)
    others = torch.randint(len(SPECIAL), max(vocabulary, len(SPECIAL) + 1), words.shape, device=words.device)
    masked = torch.where(chosen & (fate < 0.8), MASK, words)
    return torch.where(chosen & (fate >= 0.9), others, masked), chosen
