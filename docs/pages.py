"""The pages of `make docs` that nobody writes: MkDocs calls `on_files`, which makes them of the READMEs, the docstrings
and the tables as they are, so that they cannot say anything else.

A link of a README to another page becomes a link to its page here; one to a module becomes its name.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections import defaultdict
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from messages import messages_page
from mkdocs.structure.files import File, Files

from counterpoint.common.cli.listings import list_systems
from counterpoint.common.discover import find_verticals
from counterpoint.common.lazy import resolve
from counterpoint.common.losses import objectives
from counterpoint.common.vertical import Vertical

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ("losses", "kernels", "metrics", "models", "data", "trainers", "runs", "report", "estimators")
OUTSIDE = {"tests", "benchmarks", "notebooks", "docs", "build", "runs"}


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those of `docs/`."""
    verticals = [load() for _, load in sorted(find_verticals().items())]
    sources = sources_of(verticals)
    pages = {page: rewritten(ROOT / source, page, sources) for source, page in sources.items()}
    pages["systems/index.md"] = index_of_systems(verticals)
    for vertical in verticals:
        for entry, row in zip(vertical.systems, list_systems(vertical)):
            pages[f"systems/{vertical.name}-{entry.name}.md"] = system_page(vertical, entry, row)
    pages["objectives.md"] = objectives_page()
    pages |= {f"reference/{name}.md": reference_page(name) for name in REFERENCE}
    pages["architecture.md"] = architecture_page()
    pages["messages.md"] = messages_page(ROOT, OUTSIDE)
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    for picture in (path for path in ROOT.glob("*/*.png") if path.parent.name not in OUTSIDE):
        files.append(File.generated(config, f"pictures/{picture.name}", abs_src_path=str(picture)))
    return files


def sources_of(verticals: list[Vertical]) -> dict[str, str]:
    """Path in the repository -> page here, of the texts that are taken as they are."""
    found = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
    for package, name in [(v.package.rpartition(".")[2], v.name) for v in verticals]:
        found[f"{package}/README.md"] = f"verticals/{name}.md"
    for folder in ("kernels", "losses"):
        found[f"common/{folder}/README.md"] = f"reference/about-{folder}.md"
    return found | {f"benchmarks/{path.name}": f"measured/{path.name}" for path in sorted(ROOT.glob("benchmarks/*.md"))}


def rewritten(source: Path, page: str, sources: dict[str, str]) -> str:
    """A text of the repository with its links turned to the pages here."""
    up = "../" * page.count("/")

    def link(match: re.Match) -> str:
        picture, words, target, anchor = match.groups(default="")
        if re.match(r"[a-z]+:", target) or not target:
            return match[0]
        place = (source.parent / target).resolve()
        path = place.relative_to(ROOT).as_posix() if place.is_relative_to(ROOT) else ""
        if picture:
            return f"![{words}]({up}pictures/{place.name})"
        known = sources.get(path) or sources.get(f"{path}/README.md")
        return f"[{words}]({up}{known}{anchor})" if known else words

    return re.sub(r"(!?)\[([^\]]*)\]\(([^)#\s]*)(#[^)\s]*)?\)", link, source.read_text(encoding="utf-8"))


# Systems ------------------------------------------------------------------------------------------------------------


def index_of_systems(verticals: list[Vertical]) -> str:
    """One table of all systems: status, verdict, what is missing."""
    lines = ["# Systems", "", "| vertical | system | status | verdict | |", "|---|---|---|---|---|"]
    for vertical in verticals:
        for entry, row in zip(vertical.systems, list_systems(vertical)):
            name = f"[{entry.name}]({vertical.name}-{entry.name}.md)"
            cells = (vertical.name, name, row["status"], cell(row["verdict"]), cell(entry.summary))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def system_page(vertical: Vertical, entry: Any, row: dict[str, Any]) -> str:
    """What, whose, on what; how it stands; its equations; its configuration."""
    facts = [("Paper", entry.paper), ("Needs", entry.needs), ("Status", row["status"]), ("Verdict", row["verdict"])]
    facts += [("Missing", row["missing"])] if row["missing"] else []
    lines = [f"# {entry.name}", "", entry.summary, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {cell(value)} |" for name, value in facts]
    lines += ["", "```sh", f"counterpoint {vertical.name} pretrain {entry.name} --data.manifest PATH --train.out RUN"]
    lines += [f"counterpoint {vertical.name} pretrain {entry.name} --help", "```", ""]
    module = importlib.import_module(entry.module)
    lines += ["## Method", "", text_of(module), "", "## Configuration", ""]
    lines += [f"Of `{entry.config}`; `--print_config` writes all of it, nested parts included.", ""]
    lines += configuration(resolve(entry.config))
    return "\n".join(lines) + "\n"


def text_of(module: Any) -> str:
    """A module's text: `.. math::` as MathML, double backticks as code, what is indented as it stands."""
    lines, out, formula = inspect.getdoc(module).splitlines(), [], []
    inside = False
    for line in [*lines, ""]:
        if line.strip().startswith(".. math::"):
            inside, formula = True, [line.partition(".. math::")[2].strip()]
        elif inside and (line.startswith("    ") or (not line.strip() and not formula)):
            formula.append(line.strip())
        elif inside:
            out += ["", mathml(" ".join(f for f in formula if f)), "", line]
            inside = False
        else:
            out.append(line)
    return re.sub(r":math:`([^`]*)`", lambda m: mathml(m[1], "inline"), "\n".join(out).replace("``", "`"))


def mathml(formula: str, display: str = "block") -> str:
    """LaTeX as MathML, which browsers draw without a script or a network."""
    from latex2mathml.converter import convert

    rows = formula.split(r"\\") if display == "block" and r"\begin" not in formula else [formula]
    return " ".join(convert(part.replace("&", ""), display=display) for part in rows)


def configuration(cls: Any) -> list[str]:
    """A table of a configuration's own fields, their defaults and what stands below each in the class's text."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls)))
    told, body = {}, tree.body[0].body
    for field, below in zip(body, [*body[1:], None]):
        if isinstance(field, ast.AnnAssign):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            value = ast.unparse(field.value) if field.value else ""
            value = re.sub(r"^field\(default_factory=(lambda: )?(.*)\)$", r"\2", value)
            told[field.target.id] = (value, inspect.cleandoc(below.value.value) if is_text else "")
    lines = ["| option | default | |", "|---|---|---|"]
    return lines + [f"| `--{name}` | `{cell(value)[:80]}` | {cell(text)} |" for name, (value, text) in told.items()]


def cell(text: Any) -> str:
    """A text inside of a table."""
    return " ".join(escape(str(text), quote=False).split()).replace("|", r"\|")


# Objectives and reference --------------------------------------------------------------------------------------------


def objectives_page() -> str:
    """Every objective with its paper, what it needs and what it rests on."""
    lines = ["# Objectives", "", "Which one to use: measured [on real data](measured/objectives.md) and"]
    lines += ["[on digits](measured/losses.md). What each computes: [reference](reference/losses.md).", ""]
    lines += ["| objective | paper | needs | rests on |", "|---|---|---|---|"]
    for row in map(asdict, objectives()):
        lines.append(f"| `{row['name']}` | {cell(row['paper'])} | {cell(row['needs'])} | {cell(row['status'])} |")
    return "\n".join(lines) + "\n"


def reference_page(name: str) -> str:
    """Every public name of a package of `common`, where it is defined."""
    package = importlib.import_module(f"counterpoint.common.{name}")
    lines = [f"# common.{name}", "", inspect.getdoc(package) or "", ""]
    names = getattr(package, "__all__", None) or [name for name in dir(package) if not name.startswith("_")]
    for public in sorted(names, key=str.lower):
        found = getattr(package, public)
        module = getattr(found, "__module__", "") or ""
        if module.startswith("counterpoint.") and (inspect.isclass(found) or inspect.isfunction(found)):
            lines += [f"::: {module}.{found.__qualname__}", ""]
        else:
            lines += [f"## {public}", "", f"`{type(found).__name__}` of `{package.__name__}`", ""]
    return "\n".join(lines)


# Architecture ---------------------------------------------------------------------------------------------------------


def imports() -> dict[str, set[str]]:
    """Room -> rooms that its modules import, read from the code: a room is a vertical or a folder of `common`."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).parts
        if parts[0] in OUTSIDE or parts[0].startswith(".") or len(parts) < 2:
            continue
        own = room_of(parts[:-1])
        found[own] |= set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("counterpoint."):
                other = room_of(node.module.split(".")[1:])
                found[own] |= {other} - {own}
    return dict(found)


def room_of(parts: Any) -> str:
    """The room of a module's path."""
    folder = ROOT.joinpath(*parts[:2])
    return f"common/{parts[1]}" if parts[0] == "common" and len(parts) > 1 and folder.is_dir() else parts[0]


def architecture_page() -> str:
    """Who imports whom, as a picture and a table."""
    graph = imports()
    lines = ["# Architecture", "", "Read from the imports of the code; a line leads down from who imports to what.", ""]
    lines += [picture_of_rooms(graph), "", "| room | imports |", "|---|---|"]
    lines += [f"| `{room}` | {', '.join(f'`{other}`' for other in sorted(graph[room]))} |" for room in sorted(graph)]
    return "\n".join([*lines, "", "How to add to it: [contributing](contributing.md).", ""])


def picture_of_rooms(graph: dict[str, set[str]]) -> str:
    """The rooms in layers, each below all that import it where no circle forbids it."""
    depth = dict.fromkeys(graph, 0)
    for _ in graph:
        for room, others in graph.items():
            for other in others:
                if other in depth and room not in graph.get(other, ()):
                    depth[other] = min(max(depth[other], depth[room] + 1), len(graph))
    layers = defaultdict(list)
    for room in sorted(graph):
        layers[depth[room]].append(room)
    place, height = {}, 70
    for row, level in enumerate(sorted(layers)):
        for column, room in enumerate(layers[level]):
            place[room] = ((column + 0.5) * 960 / len(layers[level]), 30 + row * height)
    parts = [f'<svg viewBox="0 0 960 {height * len(layers)}" role="img" aria-label="who imports whom" width="100%">']
    for room, others in graph.items():
        for other in sorted(others & set(place)):
            (x, y), (u, v) = place[room], place[other]
            bend = f"C{x:.0f},{(y + v) / 2:.0f} {u:.0f},{(y + v) / 2:.0f}"
            line = f'd="M{x:.0f},{y + 14:.0f} {bend} {u:.0f},{v - 14:.0f}"'
            parts.append(f'<path {line} fill="none" stroke="currentColor" stroke-opacity="0.22"/>')
    for room, (x, y) in place.items():
        label = room.removeprefix("common/")
        width = 9 * len(label) + 16
        parts.append(
            f'<rect x="{x - width / 2:.0f}" y="{y - 14:.0f}" width="{width}" height="28" rx="6" '
            'fill="var(--md-default-bg-color, white)" stroke="currentColor"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" font-size="14" fill="currentColor">{label}</text>'
        )
    return "".join([*parts, "</svg>"])
