"""Progress is for people: nothing on stdout, nothing at all off a terminal."""

import io
import sys

from counterpoint.common.progress import note, status, track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_nothing_is_written(capsys):
    assert list(track(iter(range(5)), "counting", total=5)) == list(range(5))
    with status("thinking"):
        pass
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_bar_goes_to_stderr_and_items_pass_unchanged(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(track("abc", "spelling")) == ["a", "b", "c"]
    with status("thinking"):
        pass
    assert capsys.readouterr().out == ""
    assert "spelling" in sys.stderr.getvalue()


def test_iteration_is_lazy(monkeypatch):
    """A bar must not run ahead of its consumer: a reader that stops early reads no more."""
    taken = []
    items = track((taken.append(i) or i for i in range(10)), total=10)
    next(items)
    assert taken == [0]


def test_notes_are_always_written_to_stderr(capsys):
    note("engraving")
    assert capsys.readouterr() == ("", "engraving\n")
