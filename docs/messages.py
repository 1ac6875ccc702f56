"""The page of messages: every sentence with which the suite refuses something, read from the code that raises it."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from html import escape
from pathlib import Path

RAISED = {"InputError", "LostProcessError"}
HOLE = "‹…›"
ABOUT = """\
What the suite refuses, it refuses in one sentence that names the file, row or option, what was found, and what to do;
the exit code is 2. All of these sentences stand here, by the part of the code that says them; search for the words of
yours. What stands in ‹› is filled in. A traceback (exit code 1) is a fault of ours: please report it."""


def messages_page(root: Path, outside: set[str]) -> str:
    """All sentences by the room that says them; what stands in ‹› is filled in from the case at hand."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0] in outside or parts[0].startswith("."):
            continue
        room = "/".join(parts[:2]) if parts[0] == "common" and len(parts) > 2 else parts[0]
        rooms[room] |= set(messages_of(path.read_text(encoding="utf-8")))
    rooms = {room: told for room, told in rooms.items() if told}
    lines = ["# Messages", "", ABOUT, ""]
    for room in sorted(rooms, key=lambda name: (not name.startswith("common"), name)):
        told = sorted(rooms[room], key=str.lower)
        lines += [f"## {room}", "", *(f"- {escape(sentence, quote=False)}" for sentence in told), ""]
    return "\n".join(lines)


def messages_of(source: str) -> list[str]:
    """The sentences that a module raises as its user's mistakes.

    >>> messages_of("def read(path):\\n    raise InputError(f'{path.name}: no rows; ' 'write some')")
    ['‹path.name›: no rows; write some']
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in RAISED and node.args:
            told = " ".join(template(node.args[0]).split())
            if len(re.findall(r"[a-z]+", re.sub("‹[^›]*›", "", told))) > 1:  # else all of it is filled in
                found.append(told)
    return found


def template(node: ast.expr) -> str:
    """An expression that makes a text, with what it fills in named where the name is short."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            hole(part.value) if isinstance(part, ast.FormattedValue) else template(part) for part in node.values
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return hole(node)


def hole(node: ast.expr) -> str:
    """The place of a value in a sentence."""
    named = ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""
    return f"‹{named}›" if 0 < len(named) <= 24 else HOLE
