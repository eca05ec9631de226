"""How layers and kernels live with torch.compile and autocast: by being left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import torch
from torch.autograd.function import once_differentiable

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Let torch.compile call ``function`` as it is: sparse products leave nothing to fuse."""
    return cast(Callable[P, R], torch.compiler.disable(function))  # type: ignore[no-untyped-call]


def standalone(function: Callable[P, R]) -> Callable[P, R]:
    """As :func:`uncompiled`, and let autocast leave its types alone: sparse products know no half precision."""
    return uncompiled(_without_autocast(function))


def standalone_backward(function: Callable[P, R]) -> Callable[P, R]:
    """As torch's ``once_differentiable``, and let autocast leave its types alone where it is called inside of one."""
    return cast(Callable[P, R], once_differentiable(_without_autocast(function)))


def _without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return call(*args, **kwargs)
        return function(*args, **kwargs)

    return call
