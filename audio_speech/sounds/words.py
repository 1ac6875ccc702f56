"""Captions as words: lower case, without punctuation; their vocabulary is that of the training captions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from jaxtyping import Int
from torch import Tensor

from counterpoint.common.data.vocabulary import WordVocabulary

WORD = re.compile(r"[\w']+")


def caption_words(caption: str) -> str:
    """Words in lower case, a space between them.

    >>> caption_words("A dog barks, then it's quiet.")
    "a dog barks then it's quiet"
    """
    return " ".join(WORD.findall(caption.lower()))


def learn_words(captions: Iterable[str]) -> list[str]:
    """The vocabulary of captions, special words first."""
    return list(WordVocabulary.learn(map(caption_words, captions)).words)


class CaptionWords:
    """Captions as the numbers of their words, as many as `length`.

    >>> CaptionWords(learn_words(["a dog"]), length=4).numbers("A dog, a cat!")
    tensor([5, 6, 5, 4])
    """

    def __init__(self, words: Sequence[str], length: int) -> None:
        self.vocabulary, self.length = WordVocabulary(words), length

    def numbers(self, caption: str) -> Int[Tensor, " length"]:
        """Unknown words share a number, the rest is padding."""
        return self.vocabulary.encode(caption_words(caption), self.length, ends=False)

    @property
    def facts(self) -> list[Any]:
        """What numbers depend on."""
        return [list(self.vocabulary.words), self.length]

    def unknown(self, caption: str) -> list[str]:
        """Words that no training caption has."""
        return self.vocabulary.unknown(caption_words(caption))
