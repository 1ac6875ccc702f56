"""Words of reports as numbers: a WordPiece vocabulary learnt from the training split's reports, with no download."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)


def learn_tokenizer(texts: Iterable[str], size: int = 2000, least: int = 2) -> bytes:
    """`tokenizer.json` (of the library tokenizers) with a WordPiece vocabulary of at most `size` pieces.

    Every character of the texts is a piece, so that no word of them is unknown; then whole words, the most frequent
    first, and the beginnings and endings that many words share. Equal texts give equal bytes (the library's own trainer
    breaks ties as its hash tables fall).
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = Counter(word for text in texts for word in split_words(text))
    pieces: dict[str, None] = dict.fromkeys(SPECIAL)
    letters = sorted({letter for word in words for letter in word})
    pieces |= dict.fromkeys([*letters, *(f"##{letter}" for letter in letters)])
    parts: Counter[str] = Counter()
    for word, count in words.items():
        for cut in range(2, len(word)):
            parts[word[:cut]] += count
            parts[f"##{word[cut:]}"] += count
    whole = sorted((w for w, c in words.items() if c >= least and len(w) > 1), key=lambda w: (-words[w], w))
    shared = sorted((p for p, c in parts.items() if c >= least and len(p) > 2), key=lambda p: (-parts[p], p))
    room = max(size - len(pieces), 0)
    kept = whole[:room]
    pieces |= dict.fromkeys([*kept, *shared[: min(room - len(kept), room // 4)]])
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made.to_str().encode()


def split_words(text: str) -> list[str]:
    """Lower-case words, numbers and signs, as the tokenizer parts them.

    >>> split_words("A 12 mm nodule, right-sided.")
    ['a', '12', 'mm', 'nodule', ',', 'right', '-', 'sided', '.']
    """
    return re.findall(r"\w+|[^\w\s]", text.lower())


class ReportTokenizer:
    """Texts to numbers by a `tokenizer.json`.

    >>> tokenizer = ReportTokenizer(learn_tokenizer(["no nodule", "a nodule"]))
    >>> tokenizer(["no nodule", "nodule"], 4).tolist()[1][2:]
    [3, 0]
    """

    def __init__(self, file: bytes) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(file.decode())

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size()

    def ids(self, text: str) -> list[int]:
        """The numbers of a text's pieces."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def word_starts(self) -> Bool[Tensor, " vocabulary"]:
        """Which pieces begin a word."""
        starts = torch.ones(len(self), dtype=torch.bool)
        for piece, number in self.tokenizer.get_vocab().items():
            starts[number] = not piece.startswith("##")
        return starts

    def sentences(self, texts: Sequence[str], length: int) -> tuple[Int[Tensor, " length"], Int[Tensor, " length"]]:
        """Of a text's sentences one row of numbers, [CLS] sentence [SEP] sentence [SEP] ..., and the sentence of each;
        cut to `length`, padded with 0 and -1.

        >>> tokenizer = ReportTokenizer(learn_tokenizer(["no nodule", "no nodule"]))
        >>> tokenizer.sentences(["No nodule", "A nodule"], 8)[1].tolist()
        [0, 0, 0, 0, 1, 1, 1, -1]
        """
        pieces, place = [CLS], [0]
        for number, text in enumerate(texts):
            found = [*self.ids(text), SEP]
            pieces, place = pieces + found, place + [number] * len(found)
        pieces, place = pieces[:length], place[:length]
        if len(pieces) == length:
            pieces[-1] = SEP
        tokens, sentence_of = torch.zeros(length, dtype=torch.long), torch.full((length,), -1)
        tokens[: len(pieces)], sentence_of[: len(place)] = torch.tensor(pieces), torch.tensor(place)
        return tokens, sentence_of

    def __call__(self, texts: Sequence[str], length: int) -> Int[Tensor, "texts length"]:
        """[CLS] pieces [SEP], cut to `length` and padded with 0; [SEP] ends what was cut, too."""
        out = torch.zeros(len(texts), length, dtype=torch.long)
        for row, text in enumerate(texts):
            found = [CLS, *self.ids(text)[: length - 2], SEP]
            out[row, : len(found)] = torch.tensor(found)
        return out


STOP = frozenset(
    ["a", "an", "the", "of", "in", "is", "are", "was", "were", "with", "and", "or", "to", "at", "by", "for", "on", "as"]
    + [
        "there",
        "this",
        "it",
        "its",
        "we",
        "see",
        "seen",
        "show",
        "shows",
        "be",
        "been",
        "has",
        "have",
        "from",
        "mm",
        "cm",
    ]
)
"""Words that say nothing of a place; `no` and `not` do."""


def content_pieces(tokenizer: ReportTokenizer) -> Tensor:
    """[vocabulary] whether a piece means something: no special one, no sign, no number, no stop word."""
    kept = torch.zeros(len(tokenizer), dtype=torch.bool)
    for piece, number in tokenizer.tokenizer.get_vocab().items():
        bare = piece.removeprefix("##")
        kept[number] = piece not in SPECIAL and bare.isalpha() and len(bare) > 1 and bare not in STOP
    return kept
