"""`compare SYSTEM --objectives a,b,c`: several objectives on the same data, batches and seeds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from counterpoint.common.cli.options import listing, parse_options, run, wants_help, write
from counterpoint.common.cli.plugins import add_options, take_names, with_options
from counterpoint.common.cli.pretrain import build_config, config_parser, preset_defaults
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.suggest import no_such
from counterpoint.common.vertical import Vertical

_OWN = ("objectives", "seeds", "label", "split", "figure", "bootstrap", "out")


def compare(call: Call) -> int:
    """Run the verb."""
    entries = {entry.name: entry for entry in call.vertical.systems}
    name = call.argv[0] if call.argv else ""
    if not name or wants_help([name]):
        about = "Train a system under several objectives on the same data, batches and seeds, and compare."
        rows = {n: entries[n].summary for n in choosable(call.vertical)}
        usage = f"{call.program} SYSTEM --objectives a,b,c [--seeds 5] [options of pretrain]"
        write(listing(usage, about, {"systems": rows}, f"{call.program} SYSTEM --help"))
        return 0
    if name not in entries:
        raise no_such("system", name, entries)
    entry, program = entries[name], f"{call.program} {name}"
    config_class = resolve(entry.config)
    if name not in choosable(call.vertical):
        others = ", ".join(choosable(call.vertical)) or "none"
        raise InputError(f"the objective of {name} is part of its method; systems that take another one: {others}")
    parser = config_parser(program, entry, config_class)
    plugins = add_options(parser)
    parser.add_argument(
        "--objectives",
        type=str,
        required=True,
        metavar="A,B,...",
        help="names with options, as in "
        "'published,DCL,HCL(beta=0.5)'; published is the system's own, and the first one is compared with",
    )
    parser.add_argument("--seeds", type=str, default="5", help="how many, as in 5, or which, as in 0,1,2")
    parser.add_argument("--label", type=str, default=None, help="column of the labels that figures are measured by")
    parser.add_argument("--split", type=str, default="test", help="split to measure on")
    parser.add_argument("--figure", type=str, default=None, help="as evaluate names it, protocol: metric")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the intervals")
    parser.add_argument(
        "--out", type=Path, default=None, help="folder of the runs; runs/SYSTEM-objectives unless given"
    )
    argv, named = take_names(preset_defaults(entry, config_class, parser, call.argv[1:]))
    options = parse_options(parser, argv)
    if plugins:
        options["train.plugins"] = with_options(options["train.plugins"], named, options, argv, plugins)
    for option in ("resume", "continue_from"):
        if getattr(options, option) is not None:
            raise InputError(
                f"--{option} belongs to pretrain; compare goes on with the runs that --out holds by itself"
            )
    own = {key: options.pop(key) for key in _OWN}
    config = build_config(parser, options, config_class)
    if getattr(config, "objective", ""):
        raise InputError("--objective belongs to pretrain; name the objectives to compare in --objectives")

    def compared():
        from counterpoint.common.runs.comparing import compare as run_all

        chosen = {k: own[k] for k in ("out", "label", "split", "figure", "bootstrap")}
        return run_all(call.vertical, entry, config, several(own["objectives"]), seeds_of(own["seeds"]), **chosen)

    return run(compared, options.json)


def choosable(vertical: Vertical) -> list[str]:
    """Systems whose contrastive term can be another one: their configuration has a field `objective`."""
    return [e.name for e in vertical.systems if "objective" in {f.name for f in fields(resolve(e.config))}]


def several(text: str) -> list[str]:
    """Names with options, separated by commas that stand in no parentheses.

    >>> several("published, HCL(beta=0.5, tau_plus=0.1),DCL")
    ['published', 'HCL(beta=0.5, tau_plus=0.1)', 'DCL']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def seeds_of(text: str) -> list[int]:
    """Seeds, or as many as a single number says.

    >>> seeds_of("3"), seeds_of("4,7")
    ([0, 1, 2], [4, 7])
    """
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"--seeds {text}: give how many, as in 5, or which, as in 0,1,2") from None
    return list(range(numbers[0])) if len(numbers) == 1 else numbers
