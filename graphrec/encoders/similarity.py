"""ContentSimilarity: how alike items are by what is known of them, whoever took them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from graphrec.errors import ArgumentError
from kg_loaders.graph import Feature

KG = "kg"
POWER_STEPS = 7  # of the randomised decomposition, for values that fall slowly


class ContentSimilarity:
    r"""Cosines of items by modality and in the knowledge graph, averaged.

    .. math:: c(i, j) = \frac{1}{|\mathcal{M}|} \sum_{m \in \mathcal{M}} \cos(x_{im}, x_{jm})

    Vectors are centred first. In the KG an item is its row of entities at one hop, in either direction, each with the
    weight :math:`\log(n / n_e)`, where :math:`n_e` of :math:`n` items have it. What an item lacks is like nothing.
    The matrix is positive semi-definite.

    Args:
        num_items: Number of items; they are the first entities.
        content: Vectors by name, a row an item.
        triples: int64 ``[num_triples, 3]`` of (head, relation, tail), or ``None`` for no KG.

    Raises:
        ArgumentError: There is neither content nor a triple, or another number of rows than items.

    Example:
        >>> image = Feature.vectors(np.array([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0]]))
        >>> [(rows, block)] = ContentSimilarity(3, {"image": image}).blocks()
        >>> block.mul(100).round().int().tolist()
        [[100, 0, -71], [0, 100, -71], [-71, -71, 100]]

    Source:
        Cosine of TF-IDF rows: Salton and Buckley, "Term-Weighting Approaches in Automatic Text Retrieval" (IPM 1988).
    """

    def __init__(self, num_items: int, content: Mapping[str, Feature], triples: Tensor | None = None) -> None:
        self.num_items = num_items
        self.vectors: dict[str, NDArray[np.float32]] = {}
        for name, feature in content.items():
            if len(feature) != num_items:
                raise ArgumentError(f"content[{name!r}] must have {num_items} rows, one an item, got {len(feature)}")
            self.vectors[name] = _unit_rows(feature)
        self.entities = None if triples is None or not len(triples) else _entity_rows(triples.numpy(), num_items)
        self.names = (*self.vectors, *(() if self.entities is None else (KG,)))
        if not self.names:
            raise ArgumentError(
                "there must be content: name modalities, or use data with a knowledge graph; got neither"
            )

    def blocks(self, block_rows: int = 1024) -> Iterator[tuple[slice, Tensor]]:
        """Yield some rows and their similarities to all items, float32 ``[rows, num_items]``."""
        for start in range(0, self.num_items, block_rows):
            rows = slice(start, min(start + block_rows, self.num_items))
            block = torch.zeros(rows.stop - rows.start, self.num_items)
            for vectors in self.vectors.values():
                table = torch.from_numpy(vectors)
                block.addmm_(table[rows], table.t())
            if self.entities is not None:
                block += torch.from_numpy((self.entities[rows] @ self.entities.T).toarray())
            yield rows, block.div_(len(self.names))

    def table(self, dim: int) -> NDArray[np.float64]:
        """Return rows whose products are the similarities, float64 ``[num_items, columns]``.

        Args:
            dim: The most columns; where there are more, the first principal directions, found by a randomised method
                with a fixed seed.
        """
        parts = [*self.vectors.values(), *(() if self.entities is None else (self.entities,))]
        scale = len(parts) ** -0.5
        if sum(part.shape[1] for part in parts) <= dim:
            dense = [part if isinstance(part, np.ndarray) else part.toarray() for part in parts]
            whole: NDArray[np.float64] = scale * np.hstack(dense).astype(np.float64)
            return whole
        from sklearn.utils.extmath import randomized_svd

        joined = sparse.hstack([sparse.csr_matrix(part) for part in parts]).tocsr().astype(np.float64)
        left, values, _ = randomized_svd(joined, min(dim, *joined.shape), n_iter=POWER_STEPS, random_state=0)
        rows: NDArray[np.float64] = scale * left * values
        return rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.num_items} items by {', '.join(self.names)})"


def _unit_rows(feature: Feature) -> NDArray[np.float32]:
    """Return centred rows of length 1; unknown rows are zeros."""
    if feature.is_text:
        raise ArgumentError("content must be vectors, got text; TextEncoder makes vectors of it")
    rows = np.zeros(feature.values.shape, dtype=np.float64)
    if feature.present.any():
        known = feature.values[feature.present].astype(np.float64)
        known -= known.mean(axis=0)
        rows[feature.present] = known / np.maximum(np.linalg.norm(known, axis=1, keepdims=True), 1e-12)
    unit: NDArray[np.float32] = rows.astype(np.float32)
    return unit


def _entity_rows(triples: NDArray[np.int64], num_items: int) -> sparse.csr_matrix:
    """Return the weighted entities of each item, rows of length 1, scipy CSR float32 ``[num_items, num_entities]``."""
    head, tail = triples[:, 0], triples[:, 2]
    item, entity = np.concatenate([head, tail]), np.concatenate([tail, head])
    near = item < num_items
    shape = (num_items, int(triples[:, [0, 2]].max()) + 1)
    matrix = sparse.csr_matrix((np.ones(int(near.sum()), dtype=np.float32), (item[near], entity[near])), shape=shape)
    matrix.data.fill(1.0)  # two relations to one entity count once
    count = np.bincount(matrix.indices, minlength=shape[1])
    matrix.data = np.log(num_items / np.maximum(count, 1)).astype(np.float32)[matrix.indices]
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sparse.diags(1 / np.maximum(length, 1e-12)).dot(matrix).tocsr().astype(np.float32)
