"""Radiology reports: sections, sentences, and whether a sentence denies what it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

SECTIONS = {
    "indication": "(?:clinical )?(?:indication|history|information)|reason for (?:exam|study)",
    "technique": "technique|procedure|exam(?:ination)?|protocol",
    "comparison": "comparison|comparisons|prior studies",
    "findings": "findings?",
    "impression": "impressions?|conclusions?|summary|opinion",
}
"""Section -> how its heading is written (before a colon)."""
_HEADING = re.compile(
    r"(?:(?<=^)|(?<=[\n.;!?])|(?<=[\n.;!?]\s))[ \t]*(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in SECTIONS.items())
    + r")[ \t]*:",
    re.IGNORECASE,
)
_ABBREVIATIONS = frozenset(
    [
        "dr",
        "mr",
        "mrs",
        "ms",
        "prof",
        "vs",
        "approx",
        "fig",
        "st",
        "e.g",
        "i.e",
        "cf",
        "ca",
        "incl",
        "resp",
        "ser",
        "im",
    ]
)
_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z0-9\"'(\[-])|\n\s*\n|\n(?=\s*(?:[-*]|\d+[.)])\s)")
_DENIES = re.compile(
    r"\b(no|not|without|absent|absence of|negative for|free of|clear(?:ed)? of|denies|never|neither|nor|unremarkable|"
    r"normal|excluded?|ruled out|resolved|rather than)\b",
    re.IGNORECASE,
)
_DOUBLE = re.compile(
    r"\b(not excluded|cannot be excluded|can not be excluded|cannot exclude|not ruled out|cannot be ruled out|"
    r"no (?:significant |interval )?change|not (?:significantly )?changed|no longer absent|not only)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class RadiologyReport:
    """A report's text, as it is.

    >>> report = RadiologyReport("Technique: CT. Findings: No nodule. Small effusion. Impression: Effusion.")
    >>> list(report.sections), report.section("findings")
    (['technique', 'findings', 'impression'], 'No nodule. Small effusion.')
    >>> report.sentences
    ('No nodule.', 'Small effusion.', 'Effusion.')
    """

    text: str

    @cached_property
    def sections(self) -> dict[str, str]:
        """Section -> its text; what stands before the first heading is `preamble`. Without any heading all of it is
        `findings`. A section that occurs twice has both texts."""
        marks = list(_HEADING.finditer(self.text))
        if not marks:
            return {"findings": self.text.strip()} if self.text.strip() else {}
        found: dict[str, str] = {}
        if before := self.text[: marks[0].start()].strip():
            found["preamble"] = before
        for mark, after in zip(marks, [*marks[1:], None]):
            name = str(mark.lastgroup)
            part = self.text[mark.end() : after.start() if after else len(self.text)].strip()
            found[name] = f"{found[name]} {part}".strip() if name in found else part
        return found

    def section(self, *names: str) -> str:
        """The texts of these sections, one after the other; empty where there are none."""
        return " ".join(self.sections[name] for name in names if self.sections.get(name))

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """Of findings and impression."""
        return sentences(self.section("findings")) + sentences(self.section("impression"))


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text; numbers (`3.5 mm`), abbreviations and numbered lists are not cut within.

    >>> sentences("A 3.5 mm nodule. Seen by Dr. Roe. 1) No effusion.")
    ('A 3.5 mm nodule.', 'Seen by Dr. Roe.', '1) No effusion.')
    """
    parts: list[str] = []
    for piece in _END.split(text):
        piece = " ".join(piece.split())
        if not piece:
            continue
        last = parts[-1].rsplit(" ", 1)[-1].lower().rstrip(".") if parts else ""
        bare = bool(parts) and re.fullmatch(r"\d+[.)]", parts[-1]) is not None
        if parts and (bare or (parts[-1].endswith(".") and last in _ABBREVIATIONS)):
            parts[-1] = f"{parts[-1]} {piece}"
        else:
            parts.append(piece)
    return tuple(parts)


def denies(sentence: str) -> bool:
    """Whether a sentence denies a finding, or calls something normal. A rule of words, no reading: sentences that deny
    one thing and state another count as denying.

    >>> denies("No pleural effusion."), denies("Effusion cannot be excluded."), denies("Small effusion, no change.")
    (True, False, False)
    """
    return _DENIES.search(_DOUBLE.sub(" ", sentence)) is not None


def plain_words(text: str) -> str:
    """A report as it is compared with others: case, spaces and line breaks do not count.

    >>> plain_words("No  Nodule.\\nClear.")
    'no nodule. clear.'
    """
    return " ".join(text.lower().split())
