"""What identifies by its shape: numbers, dates, times, telephones, addresses, institutions, ages of 90 and more."""

from __future__ import annotations

import re

_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|"
    r"nov(?:ember)?|dec(?:ember)?|januar|februar|m\u00e4rz|mai|juni|juli|oktober|dezember)"
)
_WRITTEN = (
    "Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    "Nov(?:ember)?|Dec(?:ember)?|JAN(?:UARY)?|FEB(?:RUARY)?|MARCH|APR(?:IL)?|JUNE?|JULY?|AUG(?:UST)?|SEPT?(?:EMBER)?|"
    "OCT(?:OBER)?|NOV(?:EMBER)?|DEC(?:EMBER)?"
)
_DAY = r"\d{1,2}(?:st|nd|rd|th)?"
_YEAR = r"(?:\d{4}|['\u2019]\d{2})"
_NUMBERED = r"(?:\s*(?:no|num|number|nr|id|#|code)\b\.?)"
_VALUE = r"(?:\s+is)?[\s.:#=(]*(?:[A-Z]{1,5}[-\s/]?)?\d[\w/-]*(?:[ .]\d{3,}\w*|(?: \d\d){2,}(?! ?[mc]m))*"
RULES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("uid", re.compile(r"\b[0-2](?:\.\d+){5,}\b")),
    ("email", re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w")),
    ("url", re.compile(r"\b(?:https?://|www\.)\S*[\w/]")),
    ("address", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]\d)")),
    (
        "number",
        re.compile(
            rf"\b(?:MRN|M\.R\.N\.|PID|UHID|NHS(?:{_NUMBERED})?|SSN|CSN|FIN|DOC\s?ID|MR\s?#|"
            rf"med(?:ical)?\.? rec(?:ord)?{_NUMBERED}?|"
            rf"(?:patient|pat|pt|hospital|unit|file|case|order|visit|encounter|account|acct|study|exam|"
            rf"requisition|req|ref(?:erence)?|"
            rf"chart|episode|insurance|policy|medicare|medicaid|health plan|licen[cs]e|passport|member|record)"
            rf"{_NUMBERED}|"
            rf"accession{_NUMBERED}?|acc(?:{_NUMBERED}|(?=\s*[:#])|(?=[-\s]*[A-Z]*\d{{4}}))|"
            rf"ID(?=\s*[:#=])|\#(?=\s?\d{{4}})){_VALUE}",
            re.IGNORECASE,
        ),
    ),
    (
        "date",
        re.compile(
            rf"\b(?:\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}(?:T\d\S*)?|\d{{1,2}}\s?[./-]\s?\d{{1,2}}\s?[./-]\s?(?:\d{{4}}|\d{{2}})|"
            rf"{_DAY}\.?(?:\s+of)?[\s-]+{_MONTH}\.?,?(?:[\s-]+{_YEAR}|-\d{{2}}|\s+\d{{2}}(?=\s*(?:[.,;)]|$)))|"
            rf"{_MONTH}[.\s-]+{_DAY},?\s+{_YEAR}|{_MONTH}\.?,?\s+\d{{4}}|(?:0?[1-9]|1[0-2])/(?:19|20)\d{{2}}|"
            rf"(?:19|20)\d{{2}}-(?:0[1-9]|1[0-2]))(?![\w]|[./-]\d)",
            re.IGNORECASE,
        ),
    ),
    (
        "date",  # a day without a year: only with a month's name as it is written
        re.compile(
            rf"\b(?:{_DAY}\.?(?:[ \t]+of)?[ \t-]+(?:{_WRITTEN})|(?:{_WRITTEN})\.?[ \t]+{_DAY})"
            r"(?![\w]|[ \t]*(?:mm|cm|x|%)|\.\d)"
        ),
    ),
    (
        "date",
        re.compile(
            r"(?<=\b)(?:on|from|dated|dating|since|of|until|to|vom|am|exam|study|prior|scan|ct|mri?|performed|date|dob|born)"
            r"[ \t:]+(\d{1,2}(?:/\d{1,2}|\.\d{1,2}\.))(?![\d/]|[ \t]*(?:mm|cm))",
            re.IGNORECASE,
        ),
    ),
    (
        "date",
        re.compile(
            r"\b(?:d\.?o\.?b\.?|born(?: on| in)?|date of birth|birth ?date|birthday)[\s:.]*(\d[\d./ -]*\d)", re.I
        ),
    ),
    (
        "time",
        re.compile(
            r"\b(?:(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?:\s?[ap]\.?m\.?)?|(?:[01]\d|2[0-3])[0-5]\d\s?(?:hrs|hours|h)|"
            r"(?:0?\d|1[0-2])(?:\.[0-5]\d)?\s?[ap]\.?m\b\.?)(?!\w)",
            re.IGNORECASE,
        ),
    ),
    (
        "phone",
        re.compile(
            r"(?<![\w.])(?:\+\d[\d\s()./-]{6,18}\d|\(\d{2,5}\)[\s./-]*\d{3,4}[\s.-]?\d{3,5}|"
            r"\d{2,5}[-.]\d{3,4}[-.]\d{3,5}|0\d{2,4}[\s/-]{1,3}\d{3,4}[\s-]?\d{3,5}|\d{3}[ ]\d{3}[ ]\d{4})(?!\w|\.\d)"
        ),
    ),
    (
        "phone",
        re.compile(
            r"\b(?:tel(?:ephone)?|phone|ph|fax|mobile|cell|pager|page[dr]?|beeper|bleep|ext(?:ension)?|call(?:ed|back)?)\b"
            r"(?:[ \t]+(?:at|on|no\.?|number|me))*[\s.:#]*(\(?\d[\d()\s./-]{2,16}\d)",
            re.IGNORECASE,
        ),
    ),
    ("number", re.compile(r"\b\d{3}-\d{2}-\d{4}\b")),
    ("long number", re.compile(r"(?<![\d.])(?:[A-Z]{1,4}-?)?\d{6,}(?![\d.]*\d)")),
    (
        "address",
        re.compile(
            r"\b(?:\d{1,5}[A-Za-z]?[ \t]+(?:[NSEW]\.?[ \t]+)?(?:[A-Z][\w'\u2019-]+[ \t]+){1,3}(?:Street|St|Avenue|"
            r"Ave|Road|Rd|Lane|Ln|"
            r"Drive|Dr|Boulevard|Blvd|Court|Way|Place|Square|Terrace|Highway|Hwy|STREET|"
            r"AVENUE|ROAD|LANE|DRIVE|BOULEVARD)\b\.?"
            r"(?:,?[ \t]+(?:Apt|Unit|Suite|Ste|#)\.?[ \t]*\w+)?|"
            r"[A-Z][a-z\u00e4\u00f6\u00fc]+(?:stra\u00dfe|strasse|str\.|weg|gasse|platz)[ \t]+\d+[a-z]?|"
            r"P\.?O\.? Box \d+|"
            r"(?:[A-Z][a-z]+[ \t]?){1,3},[ \t]*[A-Z]{2}[ \t]+\d{5}(?:-\d{4})?|"
            r"(?:ZIP|zip|Zip)(?:[ \t]+code)?[ \t:]*\d{5}(?:-\d{4})?|"
            r"[A-Z]{1,2}\d[A-Z\d]?[ \t]\d(?!MM\b|CM\b)[A-Z]{2})(?!\w)"
        ),
    ),
    (
        "place",
        re.compile(
            r"\b(?:St\.?[ \t]+)?(?:(?!The\b|This\b|Outside\b|Our\b|Your\b|At\b|In\b|From\b|Children)"
            r"[A-Z][\w'\u2019-]+[ \t]+(?:of[ \t]+|and[ \t]+)?){1,4}"
            r"(?:Hospital|Hospitals|Clinic|Medical Cent(?:er|re)|Infirmary|Klinikum|Imaging Cent(?:er|re)|Nursing Home|"
            r"Health System)\b"
        ),
    ),
    (
        "age",
        re.compile(
            r"\b(?:9\d|1[01]\d)(?=[\s-]*(?:years?|yrs?|y\s?/?\s?o\b|y\.\s?o\b|yo\b|Y\b|[mf]\b(?!\w)))|"
            r"(?<=\bage )(?:9\d|1[01]\d)\b|(?<=\bage: )(?:9\d|1[01]\d)\b|(?<=\baged )(?:9\d|1[01]\d)\b",
            re.IGNORECASE,
        ),
    ),
)
"""(rule, pattern), the first takes first; of a pattern with a group only the group is taken."""
