"""Remove what looks like a name, date, number of a patient, telephone or address from reports, with an audit of it.

Rules of words and shapes, no certified de-identification: unusual names, nicknames and identifying descriptions stay.
Look at the audit file and at a sample of the reports before they are shared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?)"
)
_NAME = r"[A-Z][\w'\u2019\u00C0-\u024F-]+"
RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("uid", re.compile(r"\b[0-2](?:\.\d+){5,}\b")),
    ("email", re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+\b")),
    ("url", re.compile(r"\bhttps?://\S+")),
    (
        "date",
        re.compile(
            rf"\b(?:\d{{4}}-\d{{1,2}}-\d{{1,2}}|\d{{1,2}}[./-]\d{{1,2}}[./-]\d{{2,4}}|"
            rf"\d{{1,2}}(?:st|nd|rd|th)?\.?\s+{_MONTH}\.?,?\s+\d{{4}}|{_MONTH}\.?\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}}|"
            rf"{_MONTH}\.?\s+\d{{4}})\b",
            re.IGNORECASE,
        ),
    ),
    ("time", re.compile(r"\b(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?:\s?[ap]\.?m\.?)?(?!\w)", re.IGNORECASE)),
    (
        "number",
        re.compile(
            r"\b(?:MRN|PID|patient(?:\s+(?:id|no|number))|accession(?:\s+(?:no|number))?|acc|case(?:\s+(?:no|number))|"
            r"SSN|order(?:\s+(?:no|number)))\b\s*[.:#]*\s*[A-Z]{0,4}[-\s]?\d[\w-]*",
            re.IGNORECASE,
        ),
    ),
    (
        "phone",
        re.compile(r"(?<![\w.])(?:\+\d{1,3}[\s.-]?)?(?:\(\d{2,4}\)|\d{2,4})[\s.-]\d{3,4}[\s.-]?\d{3,5}(?!\w|\.\d)"),
    ),
    ("long number", re.compile(r"(?<![\d.])\d{6,}(?![\d.]*\d)")),
    (
        "name",
        re.compile(
            rf"\b(?:(?:Dr|Prof|Mr|Mrs|Ms|Miss)\b\.?\s+(?:med\.?\s+)?|(?:[Pp]atient(?:'s)? [Nn]ame|"
            rf"[Nn]ame|[Ss]igned(?: by)?|[Dd]ictated by|[Rr]ead by|[Rr]eported by|"
            rf"[Rr]eferr(?:ed by|ing physician)|[Aa]ttending|[Rr]adiologist|"
            rf"[Pp]hysician)\s*:?\s+(?:Dr\.?\s+)?)(?:[A-Z]\.\s*){{0,3}}{_NAME}(?:[ ,]+(?:{_NAME}|[A-Z]\b\.?)){{0,3}}"
        ),
    ),
    ("age", re.compile(r"\b(?:9\d|1[01]\d)(?=[\s-]*(?:years?|yrs?|y/?o\b|year-old))", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Removed:
    """What was taken out of a report: by which rule, where (character), and the words."""

    rule: str
    at: int
    text: str


def scrub(text: str, known: Mapping[str, str] | None = None) -> tuple[str, tuple[Removed, ...]]:
    """A report with `[RULE]` in the place of what looks identifying, and what was removed.

    Args:
        text: the report.
        known: further words to remove, word -> rule (the patient's own name and number, where a table gives them).

    >>> scrub("Compared to 12.03.2021. Signed by Dr. Jane Roe. A 12.5 mm nodule.")[0]
    'Compared to [DATE]. [NAME]. A 12.5 mm nodule.'
    """
    rules = list(RULES)
    for word, rule in (known or {}).items():
        if len(word.strip()) >= 3:
            rules.insert(0, (rule, re.compile(rf"(?<!\w){re.escape(word.strip())}(?!\w)", re.IGNORECASE)))
    taken: list[tuple[int, int, str]] = []
    for rule, pattern in rules:
        for found in pattern.finditer(text):
            start, end = found.span()
            if all(end <= a or start >= b for a, b, _ in taken):
                taken.append((start, end, rule))
    taken.sort()
    parts, at = [], 0
    for start, end, rule in taken:
        parts += [text[at:start], f"[{rule.upper()}]"]
        at = end
    removed = tuple(Removed(rule, start, text[start:end]) for start, end, rule in taken)
    return "".join([*parts, text[at:]]), removed
