"""Several linear maps of the same vectors, whose gradients are added up in place."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphrec.layers.ops.standalone import uncompiled


@uncompiled
def linear_maps(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """Return ``x @ weight.t()`` for each weight.

    Left to autograd, every map writes a gradient as large as ``x`` and adds it to the last; here there is one.

    Args:
        x: ``[num_nodes, in_channels]``.
        weights: Each ``[out_channels, in_channels]``.

    Returns:
        As many tensors ``[num_nodes, out_channels]``.
    """
    if torch.is_autocast_enabled(x.device.type):
        return tuple(torch.nn.functional.linear(x, weight) for weight in weights)
    return cast(tuple[Tensor, ...], _LinearMaps.apply(x, *weights))  # type: ignore[no-untyped-call]


class _LinearMaps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x, *weights)
        ctx.set_materialize_grads(False)
        return tuple(x @ weight.t() for weight in weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        grad_x: Tensor | None = None
        grad_weights: list[Tensor | None] = []
        for grad, weight, needed in zip(grads, weights, ctx.needs_input_grad[1:], strict=True):
            grad_weights.append(grad.t() @ x if grad is not None and needed else None)
            if grad is not None and ctx.needs_input_grad[0]:
                grad_x = grad @ weight if grad_x is None else grad_x.addmm_(grad, weight)
        return grad_x, *grad_weights
