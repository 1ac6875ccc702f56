"""Remove what looks like a name, date, number of a patient, telephone or address from reports, with an audit of it.

Rules of words and shapes, no certified de-identification: what they cannot know is said in the audit file (`UNKNOWN`),
and what stays although it may identify is listed there (`suspects`). Look at both, and at a sample of the reports,
before they are shared.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from counterpoint.medical.scrub_names import names_of, parts_of
from counterpoint.medical.scrub_rules import RULES
from counterpoint.medical.scrub_words import EPONYMS, ORDINARY

UNKNOWN = (
    "Rules of words and shapes cannot know: names in lower case without a title or a given name of the list; "
    "names in scripts without capitals; a single capitalised word at the start of a sentence; names in texts that are "
    "all capitals, without a title, label or given name of the list; nicknames and initials alone; names of villages, "
    "employers and relatives; rare diseases, occupations and events that point to one person; bare years and ages "
    "below 90 (both stay)."
)
"""What no rule here finds, for the audit file."""


@dataclass(frozen=True)
class Removed:
    """What was taken out of a report: by which rule, where (character), and the words."""

    rule: str
    at: int
    text: str


def scrub(text: str, known: Mapping[str, str] | None = None) -> tuple[str, tuple[Removed, ...]]:
    """A report with `[RULE]` in the place of what looks identifying, and what was removed.

    A name that something gives away at one place (`Dr. Roe`) is removed wherever its words stand in the report.

    Args:
        text: the report.
        known: further words to remove, word -> rule (the patient's own name and number, where a table gives them).

    >>> scrub("Patient John Doe, MRN 12345. Compared to 12.03.2021. Signed by Dr. Jane Roe. A 12.5 mm nodule.")[0]
    'Patient [NAME], [NUMBER]. Compared to [DATE]. Signed by [NAME]. A 12.5 mm nodule.'
    """
    taken: list[tuple[int, int, str]] = []
    for word, rule in (known or {}).items():
        if len(word.strip()) >= 3:
            for found in _whole(word.strip()).finditer(text):
                _take(taken, *found.span(), rule, text)
    for rule, pattern in RULES:
        for found in pattern.finditer(text):
            _take(taken, *found.span(1 if pattern.groups and found[1] else 0), rule, text)
    names = _joined(names_of(text))
    for start, end in names:
        _take(taken, start, end, "name", text)
    for part in dict.fromkeys(p for start, end in names for p in parts_of(text[start:end])):
        for found in _whole(part).finditer(text):
            if found[0][:1].isupper():
                _take(taken, *found.span(), "name", text)
    taken.sort()
    parts, at = [], 0
    for start, end, rule in taken:
        parts += [text[at:start], f"[{rule.upper()}]"]
        at = end
    removed = tuple(Removed(rule, start, text[start:end]) for start, end, rule in taken)
    return "".join([*parts, text[at:]]), removed


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that overlap as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((start, end))
    return found


def _whole(word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)


def _take(taken: list[tuple[int, int, str]], start: int, end: int, rule: str, text: str) -> None:
    """Take what no earlier rule took of a passage: of a name with a date within, both its ends."""
    for a, b, _ in sorted(taken):
        if start < a < end:
            _take(taken, start, a, rule, text)
        if a < end and start < b:
            start = b
    while start < end and not text[start].isalnum() and text[start] not in "([+#":
        start += 1
    while end > start and not text[end - 1].isalnum() and text[end - 1] not in ".)":
        end -= 1
    if start < end and any(c.isalnum() for c in text[start:end]):
        taken.append((start, end, rule))


_CAPITAL = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_START = re.compile(r"(?:^|[.!?:\n\u2022*\])-]\s*|\d[.)]\s+|[\"'(\[]\s*)$")


def suspects(clean: str, ordinary: Collection[str] = ()) -> tuple[tuple[int, str], ...]:
    """(character, words) of what stayed in a scrubbed report and may yet identify: capitalised words within a sentence
    that are not known as ordinary ones or as signs and diseases, and numbers of five digits.

    Args:
        clean: the scrubbed report.
        ordinary: lower-case words that the reports use otherwise.

    >>> suspects("Results were left with Okonkwo. Right lung clear.")
    ((23, 'Okonkwo'),)
    """
    found = [(m.start(), m[0]) for m in re.finditer(r"(?<![\d.\w])\d{5}(?![\w.]\d)", clean)]
    for word in _CAPITAL.finditer(clean):
        token = word[0]
        titled = token[:1].isupper() and not token.isupper() and len(token) > 2
        parts = {p.lower() for p in re.split(r"['\u2019-]", token) if len(p) > 1}
        if not titled or all(p in ORDINARY or p in EPONYMS or p in ordinary for p in parts):
            continue
        if _START.search(clean[max(0, word.start() - 8) : word.start()]):
            continue
        found.append((word.start(), token))
    return tuple(sorted(found))
