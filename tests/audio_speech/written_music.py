"""Small MusicXML scores, written bar by bar."""

from pathlib import Path

TIME = "<time><beats>2</beats><beat-type>4</beat-type></time>"


def quarter(step: str, marks: str = "") -> str:
    return (
        f"<note><pitch><step>{step}</step><octave>5</octave></pitch><duration>2</duration>{marks}<voice>1</voice>"
        "<type>quarter</type></note>"
    )


def direction(sound: str, sign: str = "<words>mark</words>") -> str:
    return f"<direction><direction-type>{sign}</direction-type><sound {sound}/></direction>"


def repeat(side: str, way: str, more: str = "") -> str:
    return f'<barline location="{side}"><repeat direction="{way}" {more}/></barline>'


def ending(side: str, number: str, kind: str, inner: str = "") -> str:
    return f'<barline location="{side}"><ending number="{number}" type="{kind}"/>{inner}</barline>'


BACK = '<repeat direction="backward"/>'


def score(path: Path, bars: list[tuple[str, str]], transpose: str = "") -> Path:
    """Bars of two quarters, the first of them C, D, E, ... in turn, with something before and behind the notes."""
    text = "".join(
        f'<measure number="{i + 1}">'
        + (f"<attributes><divisions>2</divisions>{TIME}{transpose}</attributes>" if i == 0 else "")
        + f"{before}{quarter('CDEFGAB'[i])}{quarter('C')}{after}</measure>"
        for i, (before, after) in enumerate(bars)
    )
    head = '<part-list><score-part id="P1"><part-name>Piano</part-name></score-part></part-list>'
    path.write_text(f'<score-partwise version="3.1">{head}<part id="P1">{text}</part></score-partwise>')
    return path
