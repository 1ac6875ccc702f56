"""Captions as words: the vocabulary of the training captions, and a caption as numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

PADDING, UNKNOWN = 0, 1
SPECIAL = ("<padding>", "<unknown>")
WORD = re.compile(r"[\w']+")


def words_of(caption: str) -> list[str]:
    """Words in lower case, without punctuation.

    >>> words_of("A dog barks, then it's quiet.")
    ['a', 'dog', 'barks', 'then', "it's", 'quiet']
    """
    return WORD.findall(caption.lower())


def learn_words(captions: Iterable[str]) -> list[str]:
    """The vocabulary, the most frequent words first."""
    counts = Counter(word for caption in captions for word in words_of(caption))
    return [*SPECIAL, *sorted(counts, key=lambda word: (-counts[word], word))]


class Vocabulary:
    """Captions as places of their words.

    >>> Vocabulary([*SPECIAL, "a", "dog"], length=4).numbers("A dog, a cat!")
    tensor([2, 3, 2, 1])
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.places = {word: place for place, word in enumerate(words)}
        self.length = length

    def numbers(self, caption: str) -> Int[Tensor, " length"]:
        """As many as `length`; unknown words share a number, the rest is padding."""
        found = [self.places.get(word, UNKNOWN) for word in words_of(caption)[: self.length]]
        return torch.tensor(found + [PADDING] * (self.length - len(found)))

    def unknown(self, caption: str) -> list[str]:
        """Words that no training caption has."""
        return [word for word in words_of(caption) if word not in self.places]
