"""`finetune RUN`: labels on top of a checkpoint; the options are the fields of `FinetuneConfig`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from counterpoint.common.cli.options import new_parser, parse_options, run
from counterpoint.common.cli.plugins import add_options, take_names, with_options
from counterpoint.common.cli.pretrain import build_config, outcome, without_own
from counterpoint.common.cli.verbs import Call
from counterpoint.common.errors import InputError
from counterpoint.common.trainers.configs import FinetuneConfig
from counterpoint.common.vertical import Outcome

# Recorded by `finetune` itself, so that its run stands on its own.
_RECORDED = {"run", "base", "classes", "width"}


def finetune(command: Call) -> int:
    """`finetune RUN [options]` or `finetune --resume FINETUNED`."""
    from jsonargparse import ActionConfigFile

    about = "Train a head for labels on the encoder of RUN: frozen, full, layer-wise or LoRA; calibrate it and test it."
    parser = new_parser(command.program, about, usage=f"{command.program} RUN [options]")
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="folder of the pretrained run")
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file with settings; later options override it")
    parser.add_argument("--resume", type=Path, default=None, metavar="FINETUNED", help="continue an interrupted run")
    parser.add_argument("--print_config", action="store_true", help="print the settings as YAML, for --config")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_class_arguments(FinetuneConfig, None, skip=_RECORDED)
    plugins = add_options(parser)
    argv, named = take_names(command.argv)
    options = parse_options(parser, argv)
    options["train.plugins"] = with_options(options["train.plugins"], named, options, argv, plugins)
    if options.resume is not None:
        return run(lambda: _finetune(FinetuneConfig(), options.resume), options.json)
    if options.print_config:
        from counterpoint.common.cli.options import write

        write(parser.dump(without_own(options, plugins), skip_unset=False, skip_validation=True).rstrip())
        return 0
    if options.run is None:
        raise InputError("which run? give the folder of a pretrained run")
    config = build_config(parser, options, FinetuneConfig, given={"run": str(options.run)})
    return run(lambda: _finetune(config, None), options.json)


def _finetune(config: Any, resume: Path | None) -> Outcome:
    from counterpoint.common.trainers.finetuning import finetune

    return outcome(finetune(config, resume))
