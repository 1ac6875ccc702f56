"""Flows: graphs equal to the official code's (frozen), actions of known groups, a drawing of all of it."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoint.common.data.flow import END, START, Flow, extract_actions, transition_graph
from counterpoint.common.report.flow import flow_chart

HELD = json.loads((Path(__file__).parent / "oracles" / "flows.json").read_text())


def ours(name):
    return name if name in (START, END) else f"{name[0]}:{name[1:]}"


@pytest.mark.parametrize("policy", sorted(HELD))
def test_the_graph_is_that_of_the_official_code(policy):
    held = HELD[policy]
    params = held["params"]
    sequences = [[ours(n) for n in s] for s in held["sequences"]]
    flow = transition_graph(sequences, weight=policy, least_node=params["nodes"], least_edge=params["edges"])
    assert flow.nodes == pytest.approx({ours(n): w for n, w in held["nodes"].items()}, abs=1e-11)
    wanted = {(ours(a), ours(b)): (count, w) for a, b, count, w in held["edges"]}
    assert {e: c for e, (c, _) in flow.edges.items()} == {e: c for e, (c, _) in wanted.items()}
    assert {e: w for e, (_, w) in flow.edges.items()} == pytest.approx(
        {e: w for e, (_, w) in wanted.items()}, abs=1e-11
    )
    assert flow.path == [{"start": START, "end": END}.get(n, ours(n)) for n in held["widest"]]


def dialogues(seed=0, count=60):
    """Synthetic dialogues between two roles with known actions, and a noisy vector per utterance."""
    rng = np.random.default_rng(seed)
    centres = {f"{role}{i}": rng.normal(size=24) for role in ("agent", "caller") for i in range(3)}
    follows = {
        "agent0": ["caller0"],
        "caller0": ["agent1"],
        "agent1": ["caller1", "caller1", "caller2"],
        "caller1": ["agent2"],
        "caller2": ["agent2"],
        "agent2": ["end"],
    }
    sequences, vectors, roles = [], [], []
    for _ in range(count):
        state, sequence = "agent0", []
        while state != "end":
            sequence.append(state)
            vectors.append(centres[state] + 0.3 * rng.normal(size=24))
            roles.append(state[:-1])
            state = rng.choice(follows[state])
        sequences.append(sequence)
    return sequences, torch.tensor(np.array(vectors)), roles


def test_actions_are_the_groups_and_the_flow_is_the_one_behind_the_dialogues():
    sequences, vectors, roles = dialogues()
    true = [state for sequence in sequences for state in sequence]
    ids, actions = extract_actions(vectors, roles, threshold=0.6)
    names = dict(zip(ids, true))
    assert len(set(zip(ids, true))) == len(names) == 6 == len(actions)
    assert all(true[i] == names[a.id] for a in actions for i in a.nearest)
    assert sum(a.size for a in actions) == len(true)
    rest = iter(ids)
    flow = transition_graph([[next(rest) for _ in s] for s in sequences], least_edge=0.2)
    named = {(names.get(a, a), names.get(b, b)) for a, b in flow.edges}
    assert named == {
        (START, "agent0"), ("agent0", "caller0"), ("caller0", "agent1"), ("agent1", "caller1"),
        ("agent1", "caller2"), ("caller1", "agent2"), ("caller2", "agent2"), ("agent2", END),
    }  # fmt: skip
    assert [names.get(n, n) for n in flow.path][1:5] == ["agent0", "caller0", "agent1", "caller1"]


def test_a_number_of_clusters_may_be_asked_for_and_zero_vectors_are_no_crash():
    _, vectors, roles = dialogues(count=10)
    vectors[0] = 0
    ids, actions = extract_actions(vectors, roles, threshold=2)
    assert {a.id for a in actions} == {"agent:0", "agent:1", "caller:0", "caller:1"} == set(ids)
    with pytest.raises(ValueError, match="roles"):
        extract_actions(vectors, roles[:-1])


def test_rare_actions_and_dead_ends_are_left_out():
    common = [["a:0", "b:0"]] * 50
    flow = transition_graph([*common, ["a:0", "b:9"]], least_node=0.05)
    assert "b:9" not in flow.nodes
    assert flow.edges[("a:0", "b:0")] == (50, 1.0)
    assert transition_graph([]).nodes == {START: 1.0, END: 1.0}


def test_the_drawing_is_one_picture_with_every_action_and_step():
    sequences, vectors, roles = dialogues()
    ids, _ = extract_actions(vectors, roles)
    rest = iter(ids)
    flow = transition_graph([[next(rest) for _ in s] for s in sequences])
    text = flow_chart(flow, {n: f"<{n}>" for n in flow.nodes})
    root = ET.fromstring(text)
    assert len(root.findall(".//{*}rect") or root.findall(".//rect")) == len(flow.nodes)
    assert len(root.findall(".//path")) == len(flow.edges)
    assert "&lt;agent:0&gt;" in text  # texts are escaped
    assert flow_chart(Flow({START: 1.0, END: 1.0}, {})).startswith("<svg")
