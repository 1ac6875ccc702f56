"""The README's worked example is the loss it says it is, and stays ten lines long."""

import re
from pathlib import Path

import torch

import counterpoint.common.kernels as kernels


def test_the_worked_example_equals_its_definition():
    text = (Path(kernels.__file__).parent / "README.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 10
    names = {}
    exec(code, names)

    torch.manual_seed(0)
    q, k = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    patient = torch.tensor([0, 0, 1, 2, 2, 3])
    found = names["focal_patient_info_nce"](q, k, patient, 2.0)

    logits = 2 * q @ k.T
    keep = (patient[:, None] != patient) | torch.eye(6, dtype=torch.bool)
    loss = torch.logsumexp(logits.masked_fill(~keep, -torch.inf), 1) - logits.diagonal()
    torch.testing.assert_close(found, ((1 - (-loss).exp()) ** 2 * loss).mean())
