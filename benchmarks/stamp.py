"""Which commit every page of measurements was made at, and whether the code that it measures has changed since.

    python benchmarks/stamp.py losses graphs      # these pages were just made: stamp them with the checkout's commit
    python benchmarks/stamp.py                    # write the line of every page anew

`objectives.md` stamps its rows itself.
"""

import argparse
import json
import re
from pathlib import Path

from counterpoint.common.fidelity import commit_of
from counterpoint.common.output import write_json
from counterpoint.common.sources import known_hash

HERE = Path(__file__).parent
STAMPS = HERE / "stamps.json"
RESTS_ON = {
    "continual": ("counterpoint.benchmarks.continual:*",),
    "engine": ("counterpoint.benchmarks.engine:*", "counterpoint.common.kernels.api:*"),
    "evaluation_claims": ("counterpoint.benchmarks.evaluation_claims:*", "counterpoint.common.metrics:*"),
    "geospatial": ("counterpoint.benchmarks.geospatial:*", "counterpoint.benchmarks.geospatial_steps:*"),
    "graphs": ("counterpoint.benchmarks.graphs:*",),
    "harmonize": ("counterpoint.benchmarks.harmonize:*",),
    "losses": ("counterpoint.benchmarks.losses:*", "counterpoint.common.losses:*"),
    "manifest": ("counterpoint.benchmarks.manifest:*", "counterpoint.common.data.manifest:*"),
    "medical": (
        "counterpoint.benchmarks.medical:*",
        "counterpoint.medical.volume:*",
        "counterpoint.medical.readers.dicom:*",
    ),
    "recsys": ("counterpoint.benchmarks.recsys:*",),
    "recsys_beauty": ("counterpoint.recsys.checks:beauty",),
    "recsys_training": ("counterpoint.benchmarks.recsys_training:*",),
    "timeseries": ("counterpoint.benchmarks.timeseries:*",),
}
LINE = re.compile(r"^Made at commit `[^`]*`.*$", re.MULTILINE)


def hashed(page: str) -> str:
    return " ".join(map(known_hash, RESTS_ON[page]))


def line(page: str) -> str:
    """What the page says of its age."""
    stamp = json.loads(STAMPS.read_text(encoding="utf-8")).get(page, {})
    stale = stamp.get("code") != hashed(page)
    return f"Made at commit `{stamp.get('commit', 'unknown')}`" + (
        " (stale: the code it measures has changed since)." if stale else "."
    )


def stamped(page: str) -> str:
    """The page with its line, under the title."""
    text = (HERE / f"{page}.md").read_text(encoding="utf-8")
    if LINE.search(text):
        return LINE.sub(lambda _: line(page), text, count=1)
    title, _, rest = text.partition("\n")
    return f"{title}\n\n{line(page)}\n{rest}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("made", nargs="*", choices=[*RESTS_ON, []], help="pages that were just made")
    stamps = json.loads(STAMPS.read_text(encoding="utf-8")) if STAMPS.is_file() else {}
    for page in parser.parse_args().made:
        stamps[page] = {"commit": commit_of(), "code": hashed(page)}
    write_json(stamps, STAMPS)
    for page in RESTS_ON:
        (HERE / f"{page}.md").write_text(stamped(page), encoding="utf-8")


if __name__ == "__main__":
    main()
