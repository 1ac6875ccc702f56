"""Rules for the tests themselves."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
READS_THE_CLOCK = re.compile(r"\btime\.(time|perf_counter|process_time|monotonic|thread_time)(_ns)?\b")


def test_no_test_depends_on_the_clock():
    """A busy machine is slow, and that is no fault: tests count work. Timeouts only end what hangs."""
    found = [
        f"{file.relative_to(TESTS)}:{number}"
        for file in TESTS.rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if READS_THE_CLOCK.search(line)
    ]
    assert found == []
