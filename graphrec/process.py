"""Memory and threads of a process of our own."""

from __future__ import annotations

import ctypes
import os

# Parameters of glibc's mallopt(3).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -2, -3, -4, -8
LARGE_BYTES = 2**20
_libc = ctypes.CDLL(None) if os.name == "posix" else None


def settle_process() -> None:
    """Make waiting threads sleep, and keep freed memory for the next allocation: called where a program starts.

    Threads that spin while they wait make a busy machine many times slower; this part is read when torch is imported,
    so it must come before. And glibc gives large blocks back to the system at once, so each step of training would
    fault in the same pages anew (1,500 faults and 15 % of a step on ml-100k). Elsewhere than on glibc this second part
    does nothing.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _tune((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * 2**20))


def keep_little_memory() -> None:
    """Let a process that lives long keep little of what it frees, where :func:`settle_process` let it keep all.

    Blocks of 1 MiB and more are the system's again when they are freed, and so is the end of a heap once 4 MiB of it
    are free; what is freed amid blocks in use waits for :func:`return_freed_memory`. Threads that start from now on
    share two heaps, so that one takes what another has freed. Elsewhere than on glibc this does nothing.
    """
    _tune(
        (M_MMAP_THRESHOLD, LARGE_BYTES),
        (M_MMAP_MAX, 2**16),
        (M_TOP_PAD, LARGE_BYTES),
        (M_TRIM_THRESHOLD, 4 * LARGE_BYTES),
        (M_ARENA_MAX, 2),
    )


def return_freed_memory() -> None:
    """Give what was freed back to the system: before something large is made, or where a process lives long.

    See :func:`settle_process`. It takes some milliseconds, and what is allocated next faults its pages in again.
    Elsewhere than on glibc this does nothing.
    """
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)


def _tune(*values: tuple[int, int]) -> None:
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        for parameter, value in values:
            mallopt(parameter, value)
