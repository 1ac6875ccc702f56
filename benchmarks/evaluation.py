"""kNN and retrieval of many embeddings: wall time, CPU time and peak memory, one protocol per fresh process.

    OMP_NUM_THREADS=2 python benchmarks/evaluation.py --n 100000 --dim 256

kNN is leave-one-out over all n (n x n scores), retrieval is one-to-one in both directions (n x n scores, one pass).
The floor is the CPU time of a bare matrix product of the same size, measured in the same process on the same threads.

Measured at n = 100 000 on two free cores of an AMD EPYC (AVX2 only), whole process:

    retrieval, both directions   54 s wall, 108 s CPU (bare product 85 s), peak 1.3 GB
    kNN at 1, 5, 20, 200         44 s wall, 85 s CPU (bare product 78 s), peak 1.9 GB

Imports and data are 1.0 GB of these. kNN of a set against itself needs half the products.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import torch

from counterpoint.common.metrics import knn, retrieval


def data(n: int, dim: int, classes: int = 20) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (n,), generator=g)
    centre = 0.4 * torch.randn(classes, dim, generator=g)
    a = centre[y] + 2 * torch.randn(n, dim, generator=g)
    return a, a + 8 * torch.randn(n, dim, generator=g), y


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(protocol: str, n: int, dim: int) -> dict[str, object]:
    a, b, y = data(n, dim)
    q, k = a[:2048], b[:8192]
    torch.mm(q, k.T)
    start = time.process_time()
    for _ in range(4):
        torch.mm(q, k.T)
    floor = (time.process_time() - start) / 4 * n * n / (len(q) * len(k))
    base = peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    if protocol == "retrieval":
        result = retrieval(a, b)
        figure = {"R@10": result.a_to_b.metrics["R@10"], "R@10 back": result.b_to_a.metrics["R@10"]}
    else:
        result = knn(a, y, ks=(1, 5, 20, 200))
        figure = {"accuracy at 20": result.by_k[20].metrics["accuracy"]}
    return {
        "protocol": protocol,
        "n": n,
        "dim": dim,
        "threads": torch.get_num_threads(),
        "wall_s": round(time.perf_counter() - start, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "matmul_floor_cpu_s": round(floor, 1),
        "peak_mb": round(peak_mb()),
        "peak_before_mb": round(base),
    } | figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--protocol", choices=("retrieval", "knn"))
    args = parser.parse_args()
    if args.protocol:
        print(json.dumps(measure(args.protocol, args.n, args.dim)), flush=True)
        return
    for protocol in ("retrieval", "knn"):
        command = [sys.executable, __file__, "--n", str(args.n), "--dim", str(args.dim), "--protocol", protocol]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
