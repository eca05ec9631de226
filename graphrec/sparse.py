"""Histories as a sparse matrix, and the co-occurrences of items: what the closed forms count with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from graphrec.histories import Histories


def history_matrix(histories: Histories, num_items: int) -> Any:
    """Return the histories as a 0/1 matrix, scipy CSR float32 ``[batch_size, num_items]``.

    Weights are left out, and an item that a history names twice counts once.
    """
    items, offsets = histories.items.cpu().numpy(), histories.offsets.cpu().numpy()
    ones = np.ones(len(items), dtype=np.float32)
    matrix = sparse.csr_matrix((ones, items, offsets), shape=(len(histories), num_items))
    matrix.sum_duplicates()
    matrix.data.fill(1.0)
    return matrix


def cooccurrence_blocks(
    histories: Histories,
    num_items: int,
    block_rows: int = 1024,
    user_power: float = 0.0,
    user_weights: NDArray[np.float32] | None = None,
) -> Iterator[tuple[slice, Any]]:
    r"""Yield :math:`X^\top W X` of the history matrix :math:`X` in blocks of rows, never the whole.

    Entry (i, j) counts the users who took both items; the diagonal counts the users of each item. A user counts
    :math:`W_{uu} = w_u |\mathcal{H}_u|^{-p}`, with ``user_weights`` as :math:`w` and ``user_power`` as :math:`p`: 1 for
    everybody where there are none and it is 0.

    Yields:
        The rows of a block, and the block as scipy CSR float32 ``[rows, num_items]``.

    Example:
        >>> [(rows, block)] = cooccurrence_blocks(Histories.from_lists([[0, 1], [1]]), num_items=3)
        >>> block.toarray().tolist()
        [[1.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]]
    """
    matrix = history_matrix(histories, num_items)
    transposed = matrix.T.tocsr()
    if user_power:
        lengths = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
        transposed.data *= (lengths**-user_power)[transposed.indices]
    if user_weights is not None:
        transposed.data *= user_weights[transposed.indices]
    for start in range(0, num_items, block_rows):
        rows = slice(start, min(start + block_rows, num_items))
        yield rows, transposed[rows] @ matrix
