"""Randomness that needs no state: every seed follows from the run's seed and the position."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *position: str | int) -> int:
    """Return a seed for one place of a run.

    It is the first 8 bytes, big-endian, of the SHA-256 of ``"seed/part/part/..."``, shifted right by one bit
    (so that it fits int64). Neighbouring positions get unrelated seeds, and no generator's state is ever saved:
    the position is enough to continue.

    Example:
        >>> derive_seed(0, "select", 3, 7) == derive_seed(0, "select", 3, 7)
        True
        >>> derive_seed(0, "select", 3, 7) == derive_seed(0, "select", 37)
        False
    """
    text = "/".join(map(str, (seed, *position)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_global(seed: int, device: torch.device) -> None:
    """Seed torch's global generator of the CPU and, for a CUDA device, those of the GPUs.

    ``torch.manual_seed`` does the same, but formats a stack trace in every call until CUDA is initialised:
    too slow for every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


@contextmanager
def deterministic(device: torch.device, num_threads: int = 0) -> Iterator[None]:
    """Make torch deterministic inside, and leave threads, generators and switches as they were after.

    On the CPU every operation with a deterministic form uses it and the few others raise. Embedding, gather,
    scatter, ``index_add``, segment reductions and sparse products all have one, at no measurable cost. On CUDA
    the switch stays untouched: cuBLAS demands ``CUBLAS_WORKSPACE_CONFIG`` before the process starts, and more
    operations raise there. Runs on a GPU are seeded, but equal only up to rounding.

    Args:
        device: Where the model is.
        num_threads: Threads of torch; 0 = leave as it is.
    """
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            if num_threads:
                torch.set_num_threads(num_threads)
            if device.type == "cpu":
                torch.use_deterministic_algorithms(True)
                # Filling fresh memory with NaN is a debugging aid that costs a pass over every result.
                torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(threads)
