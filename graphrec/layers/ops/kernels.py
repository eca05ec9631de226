"""The three products that attention is made of, for one head, without gradients of their own.

Edges are in compressed form: those of row ``d`` are ``ptr[d]..ptr[d + 1]``, ``col`` holds their other end. On the
processor a weighted embedding bag is up to three times as fast as MKL's sparse product, with equal bits.
"""

from __future__ import annotations

import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

# Below this, a sum of exponentials may have lost digits to underflow.
SMALLEST_TOTAL = 1e-25

# torch says once a process that CSR tensors are in beta; hear it here, where it is known, not in a user's program.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64), torch.tensor([]), (1, 1))


def working_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the type to compute in: the widest of the tensors', single precision at least."""
    dtypes = (tensor.dtype for tensor in tensors if tensor is not None)
    return functools.reduce(torch.promote_types, dtypes, torch.float32)


def product(ptr: Tensor, col: Tensor, weight: Tensor, x: Tensor) -> Tensor:
    """Return ``out[d] = Σ_(e in row d) weight_e · x[col_e]``, ``[num_rows, channels]``."""
    if not col.numel():
        return x.new_zeros(ptr.numel() - 1, x.size(1))
    if x.device.type == "cpu" and x.dtype == torch.float32 and col.dtype == torch.int32:
        return F.embedding_bag(
            col, x.detach(), ptr, mode="sum", per_sample_weights=weight.detach().contiguous(), include_last_offset=True
        )
    return _csr(ptr, col, weight.contiguous(), x.size(0)) @ x


def sampled_product(ptr: Tensor, col: Tensor, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Return ``out_e = left[row_e] · right[col_e]``, ``[num_edges]``; ``out``, if given, must hold zeros."""
    if out is None:
        out = left.new_zeros(col.numel())
    num_rows, num_cols = ptr.numel() - 1, right.size(0)
    if col.numel() > num_rows * num_cols:
        # More edges than cells, as parallel edges make them: torch's kernel returns only as many as there are cells.
        rows = torch.repeat_interleave(torch.arange(num_rows, device=col.device), (ptr[1:] - ptr[:-1]).long())
        out.copy_((left @ right.t())[rows, col.long()])
    elif col.numel():
        # Zeros: beta = 0 does not keep the NaN of memory never written out of the sum.
        matrix = _csr(ptr, col, out, num_cols)
        torch.sparse.sampled_addmm(matrix, left.contiguous(), right.contiguous().t(), beta=0.0, out=matrix)
    return out


def segment_sum(values: Tensor, ptr: Tensor, col: Tensor, num_cols: int) -> Tensor:
    """Return the sum of each row's ``values``, ``[num_rows]``; empty rows sum to zero."""
    if not values.numel():
        return values.new_zeros(ptr.numel() - 1)
    if values.device.type != "cpu":
        return torch.segment_reduce(values, "sum", offsets=ptr.long(), initial=0.0)
    return _csr(ptr, col, values.contiguous(), num_cols) @ values.new_ones(num_cols)


def segment_max(values: Tensor, ptr: Tensor) -> Tensor:
    """Return the maximum of each row's ``values``; empty rows get zero, which no edge ever reads."""
    return torch.segment_reduce(values, "max", offsets=ptr.long()).nan_to_num_(neginf=0.0)


def _csr(ptr: Tensor, col: Tensor, values: Tensor, num_cols: int) -> Tensor:
    return torch.sparse_csr_tensor(ptr, col, values, (ptr.numel() - 1, num_cols), check_invariants=False)
