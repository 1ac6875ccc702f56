"""Options from signatures: a typed function is a command. Built on jsonargparse; its errors become one sentence."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shutil
import sys
import textwrap
from argparse import ArgumentError
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any, TextIO, get_type_hints

from counterpoint.common.cli.argv import Several, arrange
from counterpoint.common.errors import InputError
from counterpoint.common.main_process import main_process
from counterpoint.common.output import jsonable
from counterpoint.common.suggest import nearest, no_such

_PARSING_ONLY = ContextVar("parsing_only", default=False)


@contextlib.contextmanager
def parsing_only() -> Iterator[None]:
    """Commands within are parsed and checked as ever, and end where their function would run: for tests of examples."""
    token = _PARSING_ONLY.set(True)
    try:
        yield
    finally:
        _PARSING_ONLY.reset(token)


def wants_help(argv: Sequence[str]) -> bool:
    """Whether help is asked for.

    >>> wants_help(["--help"]), wants_help(["audio"])
    (True, False)
    """
    return any(argument in ("-h", "--help") for argument in argv)


def write(text: str, stream: TextIO | None = None) -> None:
    """Write one line (or block) of output; results go to stdout, everything else to stderr.

    >>> write("done")
    done
    """
    stream = stream or sys.stdout
    stream.write(text + "\n")
    stream.flush()


def listing(usage: str, about: str, sections: Mapping[str, Mapping[str, str]], more: str) -> str:
    """Help text of a level that only leads to further levels.

    >>> print(listing("cp VERB", "About.", {"verbs": {"demo": "the whole path"}}, "cp VERB --help"))
    usage: cp VERB
    <BLANKLINE>
    About.
    <BLANKLINE>
    verbs:
      demo  the whole path
    <BLANKLINE>
    More: cp VERB --help
    """
    width = max(shutil.get_terminal_size((100, 20)).columns - 2, 40)
    column = max((len(name) for rows in sections.values() for name in rows), default=0) + 4
    blocks = [f"usage: {usage}", textwrap.fill(about.strip(), width)]
    for title, rows in sections.items():
        lines = [
            textwrap.fill(text, width, initial_indent=f"  {name}".ljust(column), subsequent_indent=" " * column)
            for name, text in rows.items()
        ]
        blocks.append("\n".join([f"{title}:", *lines]))
    return "\n\n".join([*blocks, f"More: {more}"])


def new_parser(program: str, about: str, usage: str | None = None, epilog: str | None = None):
    """A jsonargparse parser without abbreviations; parse with `parse_options`, which raises `InputError`."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter, set_parsing_settings

    # A string under a dataclass field is its help text.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)

    class Plain(DefaultHelpFormatter):
        """Types by their names; nothing about what is switched off anyway."""

        def _expand_help(self, action):
            text = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", super()._expand_help(action))
            return text.replace(" (default: False)", "") if action.nargs == 0 else text

    return ArgumentParser(
        prog=program,
        usage=usage,
        description=about,
        epilog=epilog,
        formatter_class=Plain,
        exit_on_error=False,
        print_config=None,
        allow_abbrev=False,
        default_env=False,
    )


def parser_options(parser) -> list[str]:
    """Every `--option` of the parser."""
    return [name for action in parser._actions for name in action.option_strings if name.startswith("--")]


def parse_options(parser, argv: Sequence[str], help_command: str = ""):
    """Parse, or raise an `InputError` of one sentence that names the option, the value and the nearest valid name."""
    words, typed = arrange(parser, argv)
    try:
        return _filled(parser, parser.parse_args(words))
    except UnicodeDecodeError as error:
        raise InputError(_no_settings(parser, words)) from error
    except ArgumentError as error:
        if "Unable to load config" in str(error):
            raise InputError(_no_settings(parser, words)) from error
        raise InputError(_sentence(str(error), parser, help_command or f"{parser.prog} --help", typed)) from error


def _filled(parser, options):
    """The options, none of whose groups is empty, as `train:` in a file of settings that was cut leaves it."""
    groups = {name.removeprefix("--").rpartition(".")[0] for name in parser_options(parser)} - {""}
    if empty := sorted(group for group in groups if options.get(group, options) is None):
        usual = parser.get_defaults()
        for group in empty:
            if usual.get(group) is not None:
                raise InputError(f"{group}: expected its settings, got none; give them or leave the line out")
    return options


def _no_settings(parser, words: Sequence[str]) -> str:
    """About a file that is no text where an option that stands for several takes their YAML."""
    for word, value in zip(words, [*words[1:], ""]):
        option, _, joined = word.partition("=")
        inner = [name for name in parser_options(parser) if name.startswith(f"{option}.")]
        if inner and Path(joined or value).is_file():
            return f"{option} takes a YAML file of settings, which {joined or value} is not; set {', '.join(inner[:6])}"
    return f"a file of settings is not UTF-8 text; see {parser.prog} --help"


def _sentence(message: str, parser, help_command: str, typed: Mapping[str, str]) -> str:
    options = parser_options(parser)
    if match := re.match(r"unrecognized arguments: (.*)", message, re.IGNORECASE | re.DOTALL):
        words = match[1].split()
        unknown = next((word for word in words if word.startswith("-")), words[0]).partition("=")[0]
        if not unknown.startswith("-"):
            return f"'{unknown}' was not expected; see {help_command}"
        return str(no_such("option", unknown, options, help_command))
    if match := re.match(r"(?:Group '(.+?)' does not accept )?[oO]ption '(.+?)'", message):
        key = ".".join(part for part in match.groups() if part)
        near = nearest(f"--{key}", options)
        return f"unknown setting '{key}'" + (f"; did you mean '{near[2:]}'?" if near else f"; see {help_command}")
    if match := re.match(r'Parser key "(.+?)":\s*(.*)', message, re.DOTALL):
        option = f"--{match[1]}"
        if option in typed:
            action = next(action for action in parser._actions if option in action.option_strings)
            return Several.of(action._typehint).sentence(option, typed[option])
        detail = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", match[2]).replace("typing.", "")
        detail = re.sub(r"^Expected an? ", "expected ", detail).replace(". Got value:", ", got")
        detail = re.sub(r"^[A-Z](?=[a-z])", lambda capital: capital[0].lower(), detail)
        return f"--{match[1]}: {detail}"
    return f"{message.rstrip('.')}; see {help_command}"


def call(
    program: str, function: Callable[..., Any], argv: Sequence[str], *, epilog: str | None = None, **bound: Any
) -> int:
    """Run `function` as a command: its annotated parameters are the options, its docstring the help.

    Parameters without a default are positional, except `out`, which is always `--out`; `*names` takes any number of
    further positionals. Parameters given in `bound` are no options; `epilog` ends the help. `--json` prints the
    result's `as_dict()`; otherwise its `lines` are printed.
    """
    parser = new_parser(program, summary_of(function), epilog=epilog)
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name not in bound]
    given = set(bound)
    plain = [
        p.name
        for p in parameters
        if p.default is p.empty and p.name != "out" and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    more = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    rest = {p.name for p in parameters} - set(plain)
    if plain:
        parser.add_function_arguments(function, as_group=False, as_positional=True, skip=given | rest)
    if more is not None:
        parser.add_argument(more, nargs="*", type=get_type_hints(function)[more], help=_help_of(function, more))
    parser.add_function_arguments(function, as_group=False, skip=given | set(plain))
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    namespace = parse_options(parser, argv)
    values = parser.instantiate(namespace).as_dict()  # vars() would give marked names (`items`)
    as_json = values.pop("json")
    further = values.pop(more) if more is not None else []
    positional = [values.pop(name) for name in plain] if further else []  # only `*names` must be given by place
    return run(partial(function, *positional, *further, **values, **bound), as_json)


def _help_of(function: Callable[..., Any], name: str) -> str:
    """The docstring's line about a `*name` parameter, which jsonargparse leaves out."""
    match = re.search(rf"^ *\*{name}: (.+?)\n(?=\s*\w+:|\s*\n|\s*$)", f"{inspect.getdoc(function)}\n", re.M | re.S)
    return " ".join(match[1].split()) if match else ""


def run(function: Callable[[], Any], as_json: bool) -> int:
    """Call `function` and print what it returns. With `--json` nothing but the JSON reaches stdout.

    Of the processes that torchrun or srun started, the first alone prints.
    """
    if _PARSING_ONLY.get():
        return 0
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        result = function()
    if not main_process():
        pass
    elif as_json:
        write(json.dumps(jsonable(result), indent=2, ensure_ascii=False))
    else:
        for line in getattr(result, "lines", ()):
            write(line)
    if failed := getattr(result, "failed", ""):
        raise InputError(failed)
    return 0


def summary_of(function: Callable[..., Any]) -> str:
    """First paragraph of the docstring, on one line.

    >>> summary_of(wants_help)
    'Whether help is asked for.'
    """
    return " ".join((inspect.getdoc(function) or "").split("\n\n")[0].split())
