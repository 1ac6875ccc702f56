"""Run by test_ranks.py, one process per rank: sharded losses against the single-process loss of the whole batch."""

import json
import sys

import torch
import torch.distributed as dist

import counterpoint.common.losses as losses

ROWS, DIM, WORLD = 4, 5, 2
GROUP = torch.tensor([0, 0, 1, 2, 2, 3, 1, 4])
LABEL = torch.tensor([0, 1, 0, 2, 1, 0, 2, 2])
INDEX = torch.randperm(12, generator=torch.Generator().manual_seed(3))[: ROWS * WORLD]


def cases():
    """name: (objective for a mode, views, what travels with each row)."""
    return {
        "InfoNCE": (lambda m: losses.InfoNCE(losses.LogitScale(0.1), distributed=m), 2, {}),
        "InfoNCE grouped, smoothed": (
            lambda m: losses.InfoNCE(0.1, label_smoothing=0.1, distributed=m),
            2,
            {"group": GROUP},
        ),
        "NTXent": (lambda m: losses.NTXent(losses.LogitScale(0.1), distributed=m), 2, {}),
        "NTXent grouped": (lambda m: losses.NTXent(0.1, distributed=m), 2, {"group": GROUP}),
        "MultiViewNTXent": (lambda m: losses.MultiViewNTXent(0.1, distributed=m), 3, {}),
        "SigLIP": (lambda m: losses.SigLIP(distributed=m), 2, {}),
        "SigLIP grouped": (lambda m: losses.SigLIP(distributed=m), 2, {"group": GROUP}),
        "DCL": (lambda m: losses.DCL(0.1, distributed=m), 2, {}),
        "SupCon": (lambda m: losses.SupCon(0.1, distributed=m), 2, {"label": LABEL}),
        "MoCo": (lambda m: losses.MoCo(DIM, 12, 0.2, distributed=m), 2, {"index": INDEX}),
        "DHEL": (lambda m: losses.DHEL(0.3, distributed=m), 2, {"group": GROUP}),
        "MVDHEL": (lambda m: losses.MVDHEL(0.3, distributed=m), 3, {}),
        "MVInfoNCE": (lambda m: losses.MVInfoNCE(0.3, distributed=m), 3, {}),
        "MVInfoNCE per view": (lambda m: losses.MVInfoNCE(0.3, per_view=True, distributed=m), 3, {}),
        "HCL": (lambda m: losses.HCL(0.5, tau_plus=0.01, distributed=m), 2, {}),
        "CrossModalHCL": (lambda m: losses.CrossModalHCL(0.5, tau_plus=0.01, distributed=m), 2, {}),
        "CACR": (lambda m: losses.CACR(distributed=m), 3, {}),
        "SogCLR": (lambda m: losses.SogCLR(12, 0.3, gamma=0.6, distributed=m), 2, {"index": INDEX}),
        "ISogCLR": (lambda m: losses.ISogCLR(12, 0.3, gamma=0.6, bimodal=True, distributed=m), 2, {"index": INDEX}),
        "FastCLIP": (lambda m: losses.FastCLIP(12, 0.3, gamma=0.6, distributed=m), 2, {"index": INDEX}),
    }


def gradients(loss, views, keywords, passes=2):
    """Gradients after two calls (states then hold something), with those of the objective's own parameters."""
    for _ in range(passes):
        leaves = [v.clone().requires_grad_() for v in views]
        loss.zero_grad()
        loss(*leaves, **keywords).backward()
    rows = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]  # MoCo detaches its keys
    return rows, [p.grad for p in loss.parameters()], [b.clone() for b in loss.buffers()]


def main(rank: int, store: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD)
    here, errors = slice(rank * ROWS, (rank + 1) * ROWS), {}
    for name, (make, count, keywords) in cases().items():
        generator = torch.Generator().manual_seed(0)
        whole = [torch.randn(ROWS * WORLD, DIM, generator=generator, dtype=torch.float64) for _ in range(count)]
        rows, parameters, buffers = gradients(make("none").double(), whole, keywords)
        for mode in ("gather", "ring"):
            local = {k: v[here] for k, v in keywords.items()}
            mine, own, state = gradients(make(mode).double(), [v[here] for v in whole], local)
            gaps = [(g / WORLD - w[here]).abs().max().item() for g, w in zip(mine, rows, strict=True)]
            for g, w in zip(own, parameters, strict=True):
                dist.all_reduce(g)
                gaps.append((g / WORLD - w).abs().max().item())
            gaps += [torch.nan_to_num(a - b, nan=0.0).abs().max().item() for a, b in zip(state, buffers, strict=True)]
            gaps += [float((torch.isinf(a) != torch.isinf(b)).any()) for a, b in zip(state, buffers, strict=True)]
            errors[f"{name}, {mode}"] = max(gaps)
    sys.stdout.write(json.dumps(errors) + "\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
