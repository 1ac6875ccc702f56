"""`search RUN`: nearest neighbours within and across modalities, asked by id, by a file of one's own or by text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from counterpoint.common.vertical import Outcome, Vertical


def search(
    run: Path,
    id: str | None = None,
    file: Path | None = None,
    text: str | None = None,
    source: str | None = None,
    to: str | None = None,
    top: int = 10,
    where: tuple[str, ...] = (),
    index: Literal["exact", "faiss"] = "exact",
    checkpoint: Literal["best", "last"] = "best",
    split: str = "test",
    manifest: Path | None = None,
    embeddings: Path | None = None,
    threshold: str = "",
    html: Path | None = None,
    *,
    vertical: Vertical | None = None,
) -> Outcome:
    """Find the nearest neighbours of a sample (--id), of a file of your own (--file) or of a text (--text, where the
    vertical takes one, as graphs takes SMILES) among the embeddings of RUN. The vectors of
    another encoder need no RUN: see `search --embeddings --help`.

    Args:
        run: the run's folder.
        id: the sample to start from.
        file: the file to start from, in the field's format.
        text: the text to start from.
        source: modality of the query; unless given what the file's kind says, else the system's first one.
        to: modality to search in; another one than the query's unless given.
        top: how many neighbours.
        where: only those whose columns meet all of these, as in category=jazz,released>=2019 (also !=, <=, <, >, and ~
            for texts that contain).
        index: compare with every vector, or through an approximate FAISS index (extra search).
        checkpoint: which weights.
        split: split to search in.
        manifest: search in this manifest instead of the run's own data.
        embeddings: folder made by the verb embed; RUN/embeddings-SPLIT, filled first when needed, unless given.
        threshold: leave out answers that score below it, so that there may be nothing similar: a number, or auto, the
            score that 5 % of the run's unrelated validation pairs reach (auto:0.01 for 1 %), noted in the run.
        html: also write query and neighbours as pictures into this HTML file.
        vertical: the vertical of the run's system; looked up among the installed ones unless given.
    """
    from counterpoint.common.runs.encode import vertical_of_run
    from counterpoint.common.runs.neighbours import Question, neighbours_page

    question = Question(vertical or vertical_of_run(run), run, checkpoint, split, manifest, embeddings)
    found = question.ask(
        id=id, file=file, text=text, source=source, to=to, top=top, kind=index, where=where, threshold=threshold
    )
    files = {}
    if html is not None:
        files["html"] = neighbours_page(question, found, html)
    wrote = [f"wrote {path}" for path in files.values()]
    return Outcome(found.as_dict(), (*found.lines, *wrote), files)
