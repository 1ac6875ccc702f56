"""Where a text names a person: after a title, a label or a verb that says so, before a degree, or by a given name.

A name is read word by word from such a place, since a pattern cannot tell `Patient John Doe` from `Patient Has Cough`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from counterpoint.medical.scrub_words import EPONYMS, GIVEN, ORDINARY, word_list

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_GAP = re.compile(r"\.?[ \t]+|[ \t]*,[ \t]*|\.(?=[^\W\d_])")
_PARTICLES = frozenset(
    word_list("al bin da das de del della den der di dos du el ibn la le mac san st ten ter van von y zu")
)
_AFTER = frozenset(word_list("jr sr ii iii iv"))
_LABELS = frozenset(
    word_list("mrn dob age sex id date exam ct mr study accession acc gender phone tel ward bed room born on at")
)
_MOST = 5

_TITLE = re.compile(
    r"(?<!\w)(?:(?:Dr|Prof|Mr|Mrs|Ms|Miss|Mister|Sir|Doctor|Professor|Nurse|Herrn?|Frau|Mme|Se\u00f1ora?)\b|"
    r"(?:DR|PROF|MR|MRS|MS|MISS|dr|prof|mr|mrs|ms)\b)\.?[ \t]*(?:(?:med|Dr|dent|nat|rer)\b\.?[ \t]*)*"
)
_FIELD = re.compile(
    r"(?<!\w)(?:(?:patient(?:['\u2019]s)?|pt\.?|full|last|first|family|given|sur|maiden|"
    r"mother(?:['\u2019]s)?|next of kin|"
    r"physician|doctor|provider|technologist|operator)[ \t_-]*name|name(?: of (?:the )?patient)?|surname|"
    r"(?:referr(?:ing|ed by)|ordering|requesting|attending|reporting|interpreting|responsible|primary(?: care)?|"
    r"performing|consulting|supervising)[ \t]*(?:physician|doctor|provider|clinician|radiologist|md|consultant|surgeon|"
    r"technologist)?|radiologist|technologist|transcriptionist|radiographer|physician|surgeon|resident|fellow|consultant|"
    r"pcp|attn|attention|cc|(?:(?:electronically|digitally)[ \t]+)?(?:signed|dictated|read|reported|verified|approved|"
    r"transcribed|reviewed|interpreted|performed|requested|referred|ordered|authenticated|finali[sz]ed)"
    r"(?:[ \t]+(?:and[ \t]+\w+[ \t]+)?by)?|"
    r"nachname|vorname|nom|nombre|apellidos?)[ \t]*[:=][ \t]*\n?[ \t]*(?:R\.?T\.?(?:\(\w+\))+[ \t]*)?",
    re.IGNORECASE,
)
_PATIENT = re.compile(r"(?<!\w)(?:patient|pat|pt|client|re|regarding|dear)\b\.?[ \t]*[:=]?[ \t]*", re.IGNORECASE)
_BY = re.compile(
    r"(?<!\w)(?:(?:signed|dictated|read|reported|verified|approved|transcribed|reviewed|interpreted|performed|requested|"
    r"referred|ordered|authenticated|finali[sz]ed|seen|examined|operated|confirmed|supervised|discussed|prepared)[ \t]+"
    r"(?:(?:off|on|electronically|and[ \t]+\w+)[ \t]+)?(?:by|with)|"
    r"(?:discussed|communicated|spoke|conveyed|relayed|called|notified|told|informed|reported|telephoned|paged)"
    r"(?:[ \t]+(?:to|with|by phone to|by telephone to))?|"
    r"(?:referring|attending|ordering) (?:physician|doctor|provider)|"
    r"radiologist|technologist|physician|attending|surgeon|nurse|per|signed|son|daughter|wife|husband|mother|father|"
    r"brother|sister|partner|spouse|guardian)[ \t]+",
    re.IGNORECASE,
)
_DEGREE = re.compile(
    r"(?:[ \t]*,[ \t]*|[ \t]+)(?:M\.D\.|MD|Ph\.D\.|PhD|MBBS|MBChB|FRCR|FRANZCR|FACR|MRCP|DDS|DPM|R\.T\.|ARRT)(?!\w)|"
    r"[ \t]*,[ \t]*(?:D\.O\.|DO|R\.N\.|RN|PA(?:-C)?|NP|RT)(?!\w)"
)
_CARET = re.compile(r"(?<!\w)[^\W\d_][\w'\u2019-]*(?:\^+[\w'\u2019-]*)+")


def names_of(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of every name that something in the text gives away; the same place may come twice.

    >>> text = "Patient John Doe, MRN 12345, was seen by Dr. Roe."
    >>> [text[a:b] for a, b in sorted(set(names_of(text)))]
    ['John Doe', 'Dr. Roe']
    """
    for found in _CARET.finditer(text):
        yield found.span()
    for pattern, sure in ((_TITLE, True), (_FIELD, True), (_PATIENT, False), (_BY, False)):
        for found in pattern.finditer(text):
            field = pattern is _FIELD
            bare = (
                pattern is _TITLE and "." not in found[0] and found[0].strip().isupper()
            )  # DR and MR are machines too
            end = read_name(text, found.end(), sure and not bare, field)
            if end:
                yield found.start() if pattern is _TITLE else found.end(), end
    for found in _DEGREE.finditer(text):
        if (start := _before(text, found.start())) is not None:
            yield start, found.end()
    for word in _WORD.finditer(text):
        if word[0].lower() in GIVEN:
            end = read_name(text, word.start(), True, False)
            start = word.start()
            family = re.search(r"([^\W\d_][\w'\u2019-]*)[ \t]*,[ \t]*$", text[max(0, start - 60) : start])
            if family and _name_like(family[1]):
                start += family.start(1) - min(60, start)
            if end:
                yield start, end


def read_name(text: str, at: int, sure: bool, field: bool) -> int:
    """Where the name ends that begins at `at`; 0 where none does.

    Args:
        sure: a title or label says that a name follows: its first word may also be an ordinary word (`Dr. Stone`).
        field: it stands behind a label with a colon, so that all words of it may be ordinary ones (`Name: Mary Stone`).
    """
    end, count, commas, at0 = 0, 0, 0, at
    while count < _MOST and (word := _WORD.match(text, at)):
        token, low = word[0], word[0].lower()
        if text[word.end() : word.end() + 2].lstrip(" \t")[:1] in (":", "=") and low in ORDINARY | _LABELS:
            break  # the next label
        initial = len(token) == 1 and token.isupper()
        if count and low in _LABELS:
            break
        if low in _PARTICLES and (count or _follows_capital(text, word.end())):
            accepted = None
        elif count and low in _AFTER:
            accepted = True
        elif initial:
            accepted = bool(count or sure or _follows_capital(text, word.end()))
        elif _name_like(token) or low in GIVEN:
            accepted = True
        elif low not in ORDINARY:  # lower case
            accepted = (sure and count == 0) or (field and commas == 0) or (count > 0 and _given_low(text, at0))
        elif count == 0:
            accepted = sure and token[:1].isupper() and (not field or "\n" not in text[at0 - 2 : at])
        elif _given_low(text, at0):  # name: mary stone
            accepted = field and re.match(r"[ \t]*(?:[,;\n]|$)", text[word.end() :]) is not None
        else:  # an ordinary word as a surname: Mary Stone
            accepted = token[:1].isupper() and (field or (not token.isupper() and count == 1))
        if accepted is False:
            break
        count += 1
        if accepted:
            end = word.end()
        gap = _GAP.match(text, word.end())
        if gap is None:
            break
        if "," in gap[0]:
            commas += 1
            if commas > 1 or not _WORD.match(text, gap.end()):
                break
            following = _WORD.match(text, gap.end())
            if not (_name_like(following[0]) or following[0].lower() in GIVEN or _initial(following[0])):
                break
        elif "." in gap[0] and not (initial or low in _AFTER | {"st"}):
            break
        at = gap.end()
    if end and text[end : end + 1] == "." and len(re.split(r"\W+", text[:end])[-1]) == 1:
        end += 1  # the point of an initial
    return end


def parts_of(name: str) -> list[str]:
    """The words of a name by which the person may be called elsewhere in the same report.

    >>> parts_of("Dr. Jane van der Berg, MD"), parts_of("Baker")
    (['Jane', 'Berg'], [])
    """
    found = [w[0] for w in _WORD.finditer(name)]
    return [w for w in found if len(w) > 2 and w.lower() not in ORDINARY | EPONYMS | _PARTICLES | _DEGREES]


_DEGREES = frozenset(
    word_list("prof mrs miss mister sir doctor professor nurse herr herrn frau mme med dent phd mbbs frcr facr")
)


def _name_like(token: str) -> bool:
    return token[:1].isupper() and len(token) > 1 and token.lower() not in ORDINARY


def _initial(token: str) -> bool:
    return len(token) == 1 and token.isupper()


def _given_low(text: str, at: int) -> bool:
    """Whether the name at `at` begins with a given name in lower case (`john doe`)."""
    word = _WORD.match(text, at)
    return word is not None and word[0].islower() and word[0] in GIVEN


def _follows_capital(text: str, at: int) -> bool:
    """Whether a particle or an initial is followed by a word that can be a name."""
    following = re.match(r"\.?[ \t]*(?:(?:[^\W\d_]\.|[a-z]{2,3})[ \t]*)*([^\W\d_][\w'\u2019-]+)", text[at : at + 40])
    return following is not None and _name_like(following[1])


def _before(text: str, at: int) -> int | None:
    """Where the name begins that ends at `at` (before a degree): up to three words and initials."""
    words = list(re.finditer(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*\.?", text[max(0, at - 80) : at]))
    start, offset, taken = None, max(0, at - 80), 0
    end = at - offset
    for word in reversed(words):
        token = word[0].rstrip(".")
        gap = text[offset + word.end() : offset + end]
        low = token.lower()
        known = _name_like(token) or low in GIVEN or _initial(token) or (low in _PARTICLES and taken > 0)
        ordinary_surname = taken == 0 and token[:1].isupper() and not token.isupper() and low in ORDINARY
        if gap.strip(" \t,") or "\n" in gap or not (known or ordinary_surname) or taken == 4:
            break
        if word[0].endswith(".") and not _initial(token):
            break
        if ordinary_surname and not _given_before(text[offset : offset + word.start()]):
            break
        start, end, taken = offset + word.start(), word.start(), taken + 1
    return start


def _given_before(text: str) -> bool:
    word = re.search(r"([^\W\d_]+)\.?[ \t]+$", text)
    return word is not None and (word[1].lower() in GIVEN or _initial(word[1]))
