"""How much an installation downloads: `python download_size.py PIP_LOG` adds up the packages that pip's log names, also
those that it found in its cache or in a folder of this machine.
"""

import re
import sys
from pathlib import Path

SAID = re.compile(r"(?:Downloading|Using cached) (\S+\.(?:whl|tar\.gz)) \(([\d.]+) ([kMG]?)B\)")
ON_DISK = re.compile(r"Processing (?:file://)?(/\S+\.(?:whl|tar\.gz))")
BYTES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}


def sizes(log: str) -> dict[str, float]:
    """Package file -> bytes.

    >>> sizes("Downloading https://a/b-1-py3-none-any.whl (2.5 kB)")
    {'b-1-py3-none-any.whl': 2500.0}
    """
    found = {file.rpartition("/")[2]: float(number) * BYTES[unit] for file, number, unit in SAID.findall(log)}
    return found | {Path(file).name: Path(file).stat().st_size for file in ON_DISK.findall(log) if Path(file).is_file()}


if __name__ == "__main__":
    found = sizes(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    sys.stdout.write(f"{len(found)} packages, {sum(found.values()) / 1e6:.0f} MB to download\n")
