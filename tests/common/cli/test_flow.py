"""`flow`: the graph behind made-up dialogues is found from vectors and from a run, and odd input ends in a sentence."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from counterpoint.common.errors import InputError
from counterpoint.common.runs.flows import Events, ordered

WAY = (("user", "hello"), ("system", "greet"), ("user", "ask"), ("system", "answer"))


@pytest.fixture
def dialogues(tmp_path):
    """Twenty dialogues of one way, every fourth without its last step, in mixed rows."""
    rng = np.random.default_rng(0)
    base = {act: rng.normal(size=8) for _, act in WAY}
    rows = [
        {"id": f"d{d}-{t}", "group": f"d{d}", "turn": t, "speaker": who, "text": f"{act} {d}", "half": "xy"[t % 2],
         "embedding": (base[act] + 0.05 * rng.normal(size=8)).astype("float32")}
        for d in range(20) for t, (who, act) in enumerate(WAY[: 3 if d % 4 == 0 else 4])
    ]  # fmt: skip
    pd.DataFrame(rows).sample(frac=1, random_state=1).to_parquet(tmp_path / "d.parquet")
    return tmp_path / "d.parquet"


def test_the_flow_of_the_dialogues_is_found_whatever_the_order_of_the_rows(toy, cli, dialogues):
    words = ("--embeddings", dialogues, "--order", "turn", "--roles", "speaker", "--names", "text", "--json")
    code, out, err = cli("toy", "flow", *words)
    assert code == 0, err
    found = json.loads(out)
    assert (found["events"], found["sequences"], found["ties"], len(found["actions"])) == (75, 20, 0, 4)
    called = {a["id"]: {name.split()[0] for name in a["nearest"]} for a in found["actions"]}
    assert all(len(acts) == 1 for acts in called.values()), "an action is one act"
    assert [min(called.get(node, {node})) for node in found["path"]] == [
        "START", "hello", "greet", "ask", "answer", "END"
    ]  # fmt: skip
    steps = {(min(called.get(e["from"], {"START"})), e["to"]): e["count"] for e in found["edges"]}
    assert steps["START", next(n for n, acts in called.items() if acts == {"hello"})] == 20
    assert steps["ask", "END"] == 5
    page = Path(str(dialogues).replace("d.parquet", "d-flow.html")).read_text()
    assert "<svg" in page
    assert "hello" in page


def test_dates_sort_as_text_and_equal_places_are_counted(toy, cli, dialogues):
    frame = pd.read_parquet(dialogues)
    frame.assign(when=[f"2024-01-{1 + t // 2:02d}" for t in frame["turn"]]).to_parquet(dialogues)
    code, out, err = cli("toy", "flow", "--embeddings", dialogues, "--order", "when", "--threshold", 4, "--json")
    assert code == 0, err
    assert json.loads(out)["ties"] == 20 + 15
    assert {a["id"].partition(":")[0] for a in json.loads(out)["actions"]} == {"event"}


def test_a_run_s_samples_flow_in_the_order_of_a_column(toy, cli):
    assert cli("toy", "data", "simulate", "--out", "toy")[0] == 0
    assert cli("toy", "pretrain", "toy-pair", "--train.max_epochs", "1", "--train.out", "run")[0] == 0
    code, out, err = cli("toy", "flow", "run", "--order", "index", "--threshold", "3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["synthetic"]
    assert len(found["actions"]) == 3
    assert Path("run/flow-test.html").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--order names the column that says it"),
        (("--order", "trun"), "unknown column or file 'trun'; did you mean 'turn'"),
        (("--order", "turn", "--groups", "nowhere"), "--groups: unknown column or file 'nowhere'"),
        (("--order", "turn", "--threshold", "0"), "--threshold is 0.0; give a distance above 0"),
        (("--order", "gap"), "has no order (1 have none)"),
    ],
)
def test_what_cannot_be_a_flow_is_said(toy, cli, dialogues, words, said):
    frame = pd.read_parquet(dialogues)
    gap = [None, *map(float, range(len(frame) - 1))]
    frame.assign(gap=gap).to_parquet(dialogues)
    code, _, err = cli("toy", "flow", "--embeddings", dialogues, *words)
    assert code == 2
    assert said in err.strip().splitlines()[-1]
    assert "Traceback" not in err


def test_places_that_are_neither_all_numbers_nor_all_text_have_no_order():
    events = Events(torch.eye(2), ["a", "b"], ["s", "s"], [1, "x"], ["", ""])
    with pytest.raises(InputError, match="some of its values are numbers and some are text"):
        ordered(events)
    assert ordered(Events(torch.eye(3), [*"abc"], [*"sts"], ["10", "1", "9"], [""] * 3)) == ({"t": [1], "s": [2, 0]}, 0)
