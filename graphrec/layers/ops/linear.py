"""Several linear maps of the same vectors, whose gradients are added up in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from graphrec.layers.ops.standalone import uncompiled

# The number of the tensor that is mapped, weight [out_channels, in_channels], bias [out_channels].
Map = tuple[int, Tensor, Tensor | None]


def linear_maps(x: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    """Return ``x @ weight.t()`` for each weight; see :func:`stacked_maps`.

    Args:
        x: ``[num_nodes, in_channels]``.
        weights: Each ``[out_channels, in_channels]``.

    Returns:
        As many tensors ``[num_nodes, out_channels]``.
    """
    return stacked_maps([x], [[(0, weight, None)] for weight in weights])


@uncompiled
def stacked_maps(xs: Sequence[Tensor], stacks: Sequence[Sequence[Map]]) -> tuple[Tensor, ...]:
    """Map tensors linearly, and stack what belongs together.

    Left to autograd, every map writes a gradient as large as what it read and adds it to the last one's; here there is
    one gradient for each tensor. Each map writes into its own rows of the stack: nothing is copied to be joined.

    Args:
        xs: Each ``[num_rows, in_channels]``.
        stacks: For each result its maps, triples of a number ``i`` into ``xs``, a weight ``[out_channels,
            in_channels]`` and a bias ``[out_channels]`` or ``None``. At least one map in all; the maps of one stack
            agree in ``out_channels``.

    Returns:
        For each stack ``[total_rows, out_channels]``: ``xs[i] @ weight.t() + bias``, one map below the other; without
        maps, no rows, as wide as the first map's.
    """
    maps = [each for stack in stacks for each in stack]
    weights = [weight for _, weight, _ in maps]
    if torch.is_autocast_enabled(weights[0].device.type):
        none = weights[0].new_empty(0, weights[0].size(0))
        mapped = [[F.linear(xs[number], weight, bias) for number, weight, bias in stack] for stack in stacks]
        return tuple(torch.cat(parts) if parts else none for parts in mapped)
    numbers = tuple(tuple(number for number, *_ in stack) for stack in stacks)
    biases = [bias for *_, bias in maps]
    return cast(
        tuple[Tensor, ...],
        _StackedMaps.apply(numbers, len(xs), *xs, *weights, *biases),  # type: ignore[no-untyped-call]
    )


class _StackedMaps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, stacks: tuple[tuple[int, ...], ...], num_xs: int, *tensors: Tensor | None
    ) -> tuple[Tensor, ...]:
        xs, weights, biases = _parted(tensors, num_xs)
        ctx.save_for_backward(*xs, *weights)
        ctx.set_materialize_grads(False)
        ctx.stacks = stacks
        maps = zip(weights, biases, strict=True)
        outs = []
        for numbers in stacks:
            sizes = [xs[number].size(0) for number in numbers]
            own = [next(maps) for _ in numbers]
            width = own[0][0].size(0) if own else weights[0].size(0)
            out = xs[0].new_empty(sum(sizes), width)
            for number, (weight, bias), rows in zip(numbers, own, out.split(sizes) if sizes else (), strict=True):
                if bias is None:
                    torch.mm(xs[number], weight.t(), out=rows)
                else:
                    torch.addmm(bias, xs[number], weight.t(), out=rows)
            outs.append(out)
        return tuple(outs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        num_maps = sum(map(len, ctx.stacks))
        num_xs = len(ctx.saved_tensors) - num_maps
        xs, weights = ctx.saved_tensors[:num_xs], ctx.saved_tensors[num_xs:]
        of_x, of_weight, of_bias = _parted(ctx.needs_input_grad[2:], num_xs)
        grad_x: list[Tensor | None] = [None] * num_xs
        grad_weights: list[Tensor | None] = [None] * num_maps
        grad_biases: list[Tensor | None] = [None] * num_maps
        place = 0
        for numbers, grad in zip(ctx.stacks, grads, strict=True):
            sizes = [xs[number].size(0) for number in numbers]
            parts = torch.split(grad, sizes) if grad is not None and numbers else ()
            for at, (number, part) in enumerate(zip(numbers, parts, strict=False), start=place):
                if of_x[number]:
                    so_far = grad_x[number]
                    grad_x[number] = part @ weights[at] if so_far is None else so_far.addmm_(part, weights[at])
                if of_weight[at]:
                    grad_weights[at] = part.t() @ xs[number]
                if of_bias[at]:
                    grad_biases[at] = part.sum(dim=0)
            place += len(numbers)
        return None, None, *grad_x, *grad_weights, *grad_biases


def _parted(values: tuple[Any, ...], num_xs: int) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
    """Return what belongs to the tensors that are mapped, to the weights and to the biases."""
    half = (len(values) - num_xs) // 2
    return values[:num_xs], values[num_xs : num_xs + half], values[num_xs + half :]
