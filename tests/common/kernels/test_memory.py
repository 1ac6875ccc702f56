"""Nothing on the tiled path is rows x columns: peak memory of every primitive, measured in a process of its own."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, json, sys
import torch
from counterpoint.common.kernels import (
    Diagonal, Gibbs, Index, SameLabel, Self, contrast_stats, pair_sum, target_scores, topk_scores
)

torch.set_num_threads(1)
torch.manual_seed(0)


def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith(name)).split()[1]) * 1024


def features(n, dim=16):
    return torch.nn.functional.normalize(torch.randn(n, dim), dim=1).requires_grad_()


def run(case, n):
    q, k = features(n), features(n)
    ids = torch.arange(n) % 97
    if case == "both directions":
        s = contrast_stats(q, k, scale=10.0, positive=Diagonal(), columns=True)
        loss = s.lse.sum() + s.columns.lse.sum() - s.positive.sum()
    elif case == "masks and mean":
        s = contrast_stats(q, k, scale=torch.ones(2, 1), exclude=[Self(), SameLabel(ids)], mean=True, columns=True)
        loss = s.lse.sum() + s.mean.sum() + s.columns.mean.sum()
    elif case == "self-similarity":
        loss = contrast_stats(q, q, scale=10.0, exclude=[Self(), SameLabel(ids)]).lse.sum()
    elif case == "running maxima":
        loss = contrast_stats(100 * q, k, scale=10.0, columns=True).lse.sum()
    elif case == "pair sum":
        loss = pair_sum(q, k, positive=Diagonal()).sum()
    elif case == "teacher":
        loss = target_scores(q, k, Gibbs(q.detach(), k.detach(), 5.0))[0].sum()
    else:
        loss = topk_scores(q, k, 5)[0].sum() + 0 * q.sum()
    loss.backward()


peaks = {}
for case in sys.argv[1:]:
    run(case, 600)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    run(case, 6000)
    peaks[case] = status("VmHWM") - before
print(json.dumps(peaks))
"""

CASES = ("both directions", "masks and mean", "self-similarity", "running maxima", "pair sum", "teacher", "top-k")


@pytest.fixture(scope="module")
def peaks() -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *CASES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize("case", CASES)
def test_peak_memory_is_far_below_the_logits(peaks, case):
    logits = 6000 * 6000 * 4  # 144 MB for one copy; a loss in plain PyTorch holds four
    assert peaks[case] < logits / 3
