"""Layers on [batch, time, channels]: the dilated convolution as matrix products, and a dropout that draws fast."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def _taps(kernel: int, dilation: int, time: int) -> list[tuple[int, int]]:
    """(tap, shift) of the side taps that meet any sample; output step t reads input step t + shift."""
    shifts = [(k, (k - kernel // 2) * dilation) for k in range(kernel)]
    return [(k, shift) for k, shift in shifts if shift and abs(shift) < time]


def _overlap(shift: int, time: int) -> tuple[slice, slice]:
    """The steps of input and output that a shifted tap joins."""
    return slice(max(shift, 0), time + min(shift, 0)), slice(max(-shift, 0), time - max(shift, 0))


class _ShiftedProducts(torch.autograd.Function):
    """y_t = b + sum_k W_k x_{t + shift_k}: one matrix product a tap, over the steps where its input exists.

    A processor's convolution kernels multiply the zero padding too: at a dilation of half the length that is a third
    of the work, at the length two thirds.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight)
        ctx.dilation = dilation
        (batch, time, inputs), (outputs, _, kernel) = x.shape, weight.shape
        middle = weight[:, :, kernel // 2].t()
        y = torch.addmm(bias, x.view(-1, inputs), middle).view(batch, time, outputs)
        for k, shift in _taps(kernel, dilation, time):
            source, target = _overlap(shift, time)
            tap = weight[:, :, k].t().contiguous()
            y[:, target].baddbmm_(x[:, source], tap.expand(batch, -1, -1))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        (batch, time, inputs), (outputs, _, kernel) = x.shape, weight.shape
        middle, sides = kernel // 2, _taps(kernel, ctx.dilation, time)
        flat, of_x, of_weight, of_bias = gradient.view(-1, outputs), None, None, None
        if ctx.needs_input_grad[0]:
            of_x = torch.mm(flat, weight[:, :, middle]).view(batch, time, inputs)
            for k, shift in sides:
                source, target = _overlap(shift, time)
                tap = weight[:, :, k].contiguous()
                of_x[:, source].baddbmm_(gradient[:, target], tap.expand(batch, -1, -1))
        if ctx.needs_input_grad[1]:
            of_weight = torch.zeros_like(weight)
            of_weight[:, :, middle] = flat.t() @ x.view(-1, inputs)
            for k, shift in sides:
                source, target = _overlap(shift, time)
                of_weight[:, :, k] = torch.bmm(gradient[:, target].mT, x[:, source]).sum(0)
        if ctx.needs_input_grad[2]:
            of_bias = flat.sum(0)
        return of_x, of_weight, of_bias, None


def _plain(x: Tensor) -> bool:
    """Eager float arithmetic on a processor; graphics cards, compilers and exporters get the library's operators."""
    graph = torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export()
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not graph


class SameConv(nn.Conv1d):
    """Dilated convolution over the time of [batch, time, channels] that keeps the length.

    >>> SameConv(3, 5, kernel=3, dilation=2)(torch.zeros(1, 10, 3)).shape
    torch.Size([1, 10, 5])
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1):
        if kernel % 2 == 0:
            raise ValueError(f"SameConv: kernel must be odd, got {kernel}")
        super().__init__(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation)

    def forward(self, x: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time outputs"]:
        if _plain(x) and not torch.is_autocast_enabled("cpu"):
            return _ShiftedProducts.apply(x, self.weight, self.bias, self.dilation[0])
        weight, padding = self.weight, self.padding[0]
        # Side taps meet nothing but padding; an exported encoder must not be bound to the length that it is traced at.
        if not torch.compiler.is_exporting() and self.dilation[0] >= x.shape[1]:
            middle = self.kernel_size[0] // 2
            weight, padding = weight[:, :, middle : middle + 1], 0
        dilation = self.dilation[0] if padding else 1
        return F.conv1d(x.transpose(1, 2), weight, self.bias, padding=padding, dilation=dilation).transpose(1, 2)


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        # Two 32-bit numbers from every 64-bit draw of the generator: a third of the time of Bernoulli draws.
        bits = torch.empty((x.numel() + 1) // 2, dtype=torch.int64).random_(-(2**63), None).view(torch.int32)
        keep = (bits[: x.numel()] >= round(p * 2**32) - 2**31).view(x.shape)
        factor = keep.to(x.dtype).mul_(1 / (1 - p))
        ctx.save_for_backward(factor)
        return x * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return gradient * factor, None


class Dropout(nn.Dropout):
    """`nn.Dropout` (p exact to 2^-32), drawn faster on processors from torch's global generator.

    >>> Dropout(0.5).eval()(torch.ones(2)).tolist()
    [1.0, 1.0]
    """

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if self.training and 0 < self.p < 1 and _plain(x):
            return _Drop.apply(x, self.p)
        return super().forward(x)
