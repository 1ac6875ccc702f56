"""RDKit explains a failed parse in its log only: catch the log, and find the reason in it."""

from __future__ import annotations

import logging
import re

from rdkit import RDLogger, rdBase

_REASONS = (
    (r"(Explicit valence for atom[^\[\n]*)", None),
    (r"kekulize", "its aromatic rings cannot be kekulized"),
    (r"unclosed ring|ring closure", "a ring is not closed"),
    (r"extra open parentheses", "a parenthesis is not closed"),
    (r"extra close parentheses", "a parenthesis closes that was not open"),
    (r"non-ring atom \d+ marked aromatic", "an atom outside rings is marked aromatic"),
    (r"(Element '[^']*' not found)", None),
    (r"EOF hit", "the file ends inside this record"),
    (r"syntax error", "syntax error"),
)


class LogTail:
    """What RDKit has said since the last `clear`."""

    def __init__(self):
        self.lines: list[str] = []

    def write(self, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def clear(self) -> None:
        self.lines.clear()

    def reason(self) -> str:
        """Why the last parse failed, in a few words; empty when RDKit gave no reason that we know."""
        text = "".join(self.lines)
        for pattern, words in _REASONS:
            found = re.search(pattern, text)
            if found:
                return words or " ".join(found.group(1).split())
        return ""


class quiet_rdkit:
    """Route RDKit's log to a `LogTail` while molecules are parsed."""

    def __enter__(self) -> LogTail:
        self._logger = logging.getLogger("rdkit")
        tail = LogTail()
        rdBase.LogToPythonLogger()
        self._old = (self._logger.handlers[:], self._logger.propagate)
        self._logger.handlers, self._logger.propagate = [logging.StreamHandler(tail)], False
        return tail

    def __exit__(self, *_) -> None:
        self._logger.handlers, self._logger.propagate = self._old
        rdBase.LogToCppStreams()
        RDLogger.EnableLog("rdApp.error")
