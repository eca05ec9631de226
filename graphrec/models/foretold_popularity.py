"""foretold_popularity: how popular an item would be, told from its content and the knowledge graph."""

from __future__ import annotations

import torch
from torch import Tensor

from graphrec.encoders.similarity import ContentSimilarity

DIM = 256  # principal directions of what is known of items
L2 = 1.0  # with rows of mean square 1


def foretold_popularity(similarity: ContentSimilarity, counts: Tensor) -> Tensor:
    r"""Return how popular content says that the items are which nobody took, beside one another.

    Ridge regression of :math:`\log(1 + c_j)` on the rows that
    :class:`~graphrec.encoders.similarity.ContentSimilarity` compares, over the items that somebody took.

    Args:
        similarity: Knows the items' content, their KG, or both.
        counts: By how many users each item was taken, ``[num_items]``.

    Returns:
        What is foretold for each item without a user, less the mean over these; 0 for the others, float32
        ``[num_items]``.

    Example:
        >>> from kg_loaders.graph import Feature
        >>> image = Feature.vectors([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [1.0, 0.05], [0.05, 1.0]])
        >>> foretold = foretold_popularity(ContentSimilarity(6, {"image": image}), torch.tensor([50, 40, 2, 1, 0, 0]))
        >>> foretold[:4].tolist(), bool(foretold[4] > foretold[5])
        ([0.0, 0.0, 0.0, 0.0], True)
    """
    counts = counts.cpu()
    taken = counts > 0
    foretold = torch.zeros(len(counts))
    if bool(taken.all()) or not bool(taken.any()):
        return foretold
    rows = torch.from_numpy(similarity.table(DIM))
    known, popularity = rows[taken], torch.log1p(counts[taken].to(rows.dtype))
    centre = known.mean(dim=0)
    known = known - centre
    scale = known.square().sum(dim=1).mean().clamp(min=torch.finfo(rows.dtype).tiny)
    weight = torch.linalg.solve(
        known.t() @ known + L2 * scale * torch.eye(known.size(1), dtype=rows.dtype),
        known.t() @ (popularity - popularity.mean()),
    )
    new = (rows[~taken] - centre) @ weight
    foretold[~taken] = (new - new.mean()).to(foretold.dtype)
    return foretold
