"""The reports of synthetic patients: paraphrases, denials, omissions, synonyms, and what every sentence is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from counterpoint.medical.configs import PhantomConfig
from counterpoint.medical.phantom import FINDINGS, LABELS, Case

ABSENT = {
    "lung nodule": ("No pulmonary nodule.", "The lungs show no nodules."),
    "pleural effusion": ("No pleural effusion.", "Both pleural spaces are free of fluid."),
    "cardiomegaly": ("Heart size is normal.", "No cardiomegaly."),
    "liver lesion": ("No focal liver lesion.", "The liver shows no focal abnormality."),
}
PRESENT = {
    "lung nodule": (
        "There is a {size} {type} nodule in the {side} {lobe} lobe measuring {mm} mm.",
        "{Side} {lobe} lobe shows a {mm} mm {type} pulmonary nodule.",
    ),
    "pleural effusion": ("{Size} {side} pleural effusion.", "There is {size} fluid in the {side} pleural space."),
    "cardiomegaly": ("The heart is enlarged.", "Cardiomegaly is present."),
    "fatty liver": (
        "Diffuse hepatic steatosis.",
        "The liver is hypoattenuating relative to the spleen, in keeping with fatty liver.",
    ),
    "liver lesion": ("A {mm} mm hepatic {type} is seen.", "{Size} liver {type}."),
    "renal cyst": ("{Side} renal cyst of {mm} mm.", "A {size} cyst of the {side} kidney."),
    "kidney stone": ("Calculus in the {side} kidney.", "{Side} nephrolithiasis."),
    "aortic calcification": ("Aortic wall calcification.", "The aorta shows mural calcification."),
}
PROJECTED = ("lung nodule", "pleural effusion", "cardiomegaly", "kidney stone", "aortic calcification")
"""Findings that a radiograph can show: soft tissue in soft tissue casts no shadow to speak of."""
SUMMARY = {
    "lung nodule": "{Type} {side} {lobe} lobe nodule.",
    "pleural effusion": "{Side} pleural effusion.",
    "cardiomegaly": "Cardiomegaly.",
    "fatty liver": "Hepatic steatosis.",
    "liver lesion": "Hepatic {type}.",
    "renal cyst": "{Side} renal cyst.",
    "kidney stone": "{Side} nephrolithiasis.",
    "aortic calcification": "Aortic calcification.",
}
SYNONYMS = {
    "nodule": "nodular opacity", "measuring": "with a diameter of", "enlarged": "increased in size", "hepatic": "liver",
    "pleural effusion": "hydrothorax", "calculus": "stone", "There is": "We see",
}  # fmt: skip


@dataclass(frozen=True)
class SaidFinding:
    """A sentence of a report: the finding that it is about, whether it affirms it, and the label of the place."""

    text: str
    finding: str
    present: bool
    label: int


def write_report(
    case: Case, seed: int, config: PhantomConfig | None = None, radiograph: bool = False
) -> tuple[str, list[SaidFinding]]:
    """A report of a case, and its sentences. Another seed is another reader: other words, order and omissions. That of
    a radiograph speaks of the findings `PROJECTED` alone.

    >>> from counterpoint.medical.phantom import make_case
    >>> text, said = write_report(make_case(3, PhantomConfig(size=24, spacing=14.0)), 3)
    >>> text.startswith("Technique: "), all(s.text in text for s in said)
    (True, True)
    """
    config = config or PhantomConfig()
    rng = np.random.default_rng([seed, 7])
    said, summary = [], []
    for finding in PROJECTED if radiograph else FINDINGS:
        if case.findings[finding]:
            if rng.random() < config.omissions:
                continue
            words = _words(case.attributes.get(finding, {}))
            text = str(rng.choice(PRESENT[finding])).format(**words)
            if rng.random() < 0.1:
                text = f"Unchanged: {text[:1].lower()}{text[1:]}"
            said.append(SaidFinding(_synonym(text, rng, config.synonyms), finding, True, LABELS[finding]))
            summary.append(SaidFinding(SUMMARY[finding].format(**words), finding, True, LABELS[finding]))
        elif finding in ABSENT:
            said.append(SaidFinding(str(rng.choice(ABSENT[finding])), finding, False, 0))
    told = {s.finding for s in said if s.present}
    calm = ("The bones are unremarkable.", "spine") if radiograph else ("The spleen is unremarkable.", "spleen")
    others = [SaidFinding(calm[0], "", False, LABELS[calm[1]])]
    if not radiograph and not told & {"renal cyst", "kidney stone"}:
        others.append(SaidFinding("Both kidneys are unremarkable.", "", False, 0))
    if "aortic calcification" not in told:
        others.append(SaidFinding("The aorta is of normal calibre.", "", False, LABELS["aorta"]))
    said += others
    order = rng.permutation(len(said))
    findings = [said[i] for i in order]
    impression = summary or [SaidFinding("No acute abnormality.", "", False, 0)]
    technique = "Frontal radiograph" if radiograph else f"{case.nuisance['phase']} CT"
    text = f"Technique: {technique}. Findings: {' '.join(s.text for s in findings)} Impression: "
    return text + " ".join(s.text for s in impression), [*findings, *impression]


def _words(attributes: dict[str, Any]) -> dict[str, str]:
    words = {name: str(value) for name, value in attributes.items()}
    if "diameter" in attributes:
        words["mm"] = str(int(2 * round(attributes["diameter"] / 2)))
    return words | {name.capitalize(): word.capitalize() for name, word in words.items()}


def _synonym(text: str, rng: np.random.Generator, share: float) -> str:
    """With a small probability one word of the sentence by another of the same meaning."""
    known = [word for word in SYNONYMS if word in text]
    if known and rng.random() < share:
        word = str(rng.choice(known))
        return text.replace(word, SYNONYMS[word], 1)
    return text
