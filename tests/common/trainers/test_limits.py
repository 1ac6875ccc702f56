"""Settings out of their bounds are refused where they are made, with their option and what is allowed."""

import math

import pytest

from counterpoint.common.discover import find_verticals
from counterpoint.common.errors import InputError
from counterpoint.common.lazy import resolve
from counterpoint.common.trainers.config_files import override
from counterpoint.common.trainers.limits import require
from counterpoint.graphs.configs import CircuitGCLConfig, GRACEConfig, GraphCLConfig, KCLConfig
from counterpoint.timeseries.configs import CometConfig, TS2VecConfig


class Settings:
    def __init__(self, value):
        self.x = value


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        ("1 or more", (1, 10**9, None, (1, 2)), (0, -1, math.nan, math.inf, (1, 0))),
        ("above 0", (1e-9, 1), (0, 0.0, -1e-9, math.nan)),
        ("from 0 to 1", (0, 1, 0.5), (-0.1, 1.1, math.nan)),
        ("from 0 to below 1", (0, 0.99), (1, -0.01)),
        ("above 0 and at most 1", (1, 0.01), (0, 1.01)),
        (("a", "b"), ("a", "b", ("a", "b"), None), ("c", "", ("a", "c"))),
    ],
)
def test_bounds_mean_what_they_say(bounds, good, bad):
    for value in good:
        require(Settings(value), x=bounds)
    for value in bad:
        with pytest.raises(InputError, match="--data.x is .*; it must be "):
            require(Settings(value), "data.", x=bounds)


@pytest.mark.parametrize(
    ("config", "setting", "value", "said"),
    [
        (KCLConfig, "temperature", 0.0, "--temperature is 0.0; it must be above 0"),
        (KCLConfig, "node_dim", 7, "--node_dim is 7; RotatE's complex vectors need an even number"),
        (GraphCLConfig, "views", ["drop", "x"], "--views is x; it must be one of drop, perturb, mask, subgraph"),
        (GRACEConfig, "activation", "gelu", "--activation is gelu; it must be one of relu, prelu"),
        (CircuitGCLConfig, "fanout", [8, 0], r"--fanout is \(8, 0\); give neighbours per hop"),
        (TS2VecConfig, "data.length", -1, "--data.length is -1; it must be 0 or more"),
        (TS2VecConfig, "encoder.dim", 0, "--encoder.dim is 0; it must be 1 or more"),
        (CometConfig, "data.normalize", "all", "--data.normalize is all; it must be one of none, window"),
    ],
)
def test_a_setting_is_named_with_its_option(config, setting, value, said):
    with pytest.raises(InputError, match=said):
        override(config(), {setting: value})


def test_every_preset_is_within_its_bounds():
    for load in find_verticals().values():
        for entry in load().systems:
            config = resolve(entry.config)
            for changes in getattr(config, "presets", {}).values():
                override(config(), changes)
