"""The vertical's own verbs; what they need is imported inside."""

from __future__ import annotations

from pathlib import Path

from counterpoint.common.vertical import ImportReport, Outcome


def import_tunes(source: Path, out: Path, singer: str = "unknown") -> ImportReport:
    """Turn SOURCE (a folder of .tune files, with what is said in .txt files beside them) into a manifest.

    Args:
        source: a .tune file, or a folder that is searched with all below it.
        out: folder that receives manifest.parquet.
        singer: who sings them.
    """
    import os

    from counterpoint.common.data.importing import find_files, name_files, read_files, save_manifest
    from counterpoint.common.data.places import folders_of

    from .importing import facts

    found = find_files(source, (".tune",))
    names, rejected, rows = name_files(found.files, found.root), [], []
    for file, known in read_files(facts, found.files, rejected):
        rows.append(
            {"id": names[file], "group": f"{singer}-{names[file]}", "file": os.path.relpath(file, out), **known}
        )
    return save_manifest(out, rows, [*found.rejected, *rejected], outside=folders_of(found.files, found.root))


def simulate(out: Path, songs: int = 24, seed: int = 0, newer: bool = False) -> ImportReport:
    """Write synthetic songs of two verses with what people say of them.

    Args:
        out: folder that receives manifest.parquet and the tunes.
        songs: how many; two of each singer.
        seed: the same seed gives the same songs.
        newer: songs of another day, of which people say words that no older song has.
    """
    from .simulate import write_songs

    return write_songs(out, songs, seed, newer)


def preview(manifest: Path, out: Path = Path("preview.html"), songs: int = 3) -> Outcome:
    """Look at the first songs of MANIFEST.

    Args:
        manifest: made by `data import` or `data simulate`.
        out: the HTML file to write.
        songs: how many to show.
    """
    from counterpoint.common.data import Manifest
    from counterpoint.common.report import Media, Report

    from .songs import read_verses

    table = Manifest.load(manifest)
    page = Report("Songs", f"{len(table)} songs of {manifest}", synthetic=table.meta.get("synthetic", ""))
    rows = [table.row(i) for i in range(min(songs, len(table)))]
    tunes = [(row["id"], read_verses(Path(table.file(row["file"])))[0]) for row in rows]
    page.gallery("First verses", [Media(name, image=_steps(pitches)) for name, pitches in tunes])
    return Outcome({"songs": len(rows)}, (f"wrote {out}",), {"preview": page.write(out)})


def _steps(pitches: list[int]) -> str:
    bars = "".join(f'<rect x="{8 * i}" y="{100 - p}" width="6" height="4"/>' for i, p in enumerate(pitches))
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {8 * len(pitches)} 100">{bars}</svg>'


def demo(out: Path = Path("runs/ballads-demo"), songs: int = 24, steps: int = 8, seed: int = 0) -> Outcome:
    """Simulate songs, learn from them, and show what was learnt.

    Args:
        out: folder of the songs, the run and its report.
        songs: how many to simulate.
        steps: training steps.
        seed: of songs and weights.
    """
    from counterpoint.common import runs
    from counterpoint.common.trainers import create_system, fit, override

    from .configs import BalladConfig
    from .system import CommonWords

    made = simulate(out / "songs", songs, seed)
    changes = {"data.manifest": str(made.manifest), "train.out": str(out / "run"), "train.max_steps": steps}
    changes |= {"train.seed": seed, "train.overwrite": True, "train.batch_size": 8, "dim": 6}
    result = fit(create_system(CommonWords, override(BalladConfig(), changes)))
    found = runs.evaluate(result.run_dir, bootstrap=20)
    shown = runs.report(result.run_dir, bootstrap=20, examples=1)
    return Outcome(found.figures, (*found.lines, *shown.lines), {**found.files, **shown.files})


def hum(run: Path, caption: str = "low rising") -> Outcome:
    """Find a tune for what is said.

    Args:
        run: the run's folder.
        caption: what is said.
    """
    from counterpoint.common import runs

    found = runs.search(run, text=caption, source="caption", to="tune", top=1)
    return Outcome({"tune": found.figures["neighbours"][0]["id"]}, found.lines)
