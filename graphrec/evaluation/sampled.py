"""Hit rate among sampled candidates: for published protocols that rank no catalogue, and for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from graphrec.errors import ArgumentError, check_range
from graphrec.evaluation.ranking import nan_error, score_batches, told_and_asked

if TYPE_CHECKING:
    from graphrec.models.base import Recommender
    from kg_loaders import RecGraph
    from kg_loaders.graph import Split


def evaluate_sampled(
    model: Recommender,
    graph: RecGraph,
    split: Split = "test",
    num_sampled: int = 999,
    k: int = 10,
    candidates: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Rank each held-out item among items drawn at random, and count how often it is one of the best ``k``.

    Such figures are higher than those of a whole catalogue and may order models differently (Krichene and Rendle, "On
    Sampled Metrics for Item Recommendation", KDD 2020): report them beside full ranking, where a publication has them.

    Args:
        model: A fitted model.
        graph: The graph it was fitted on, split.
        split: ``"valid"`` or ``"test"``.
        num_sampled: Items drawn for each held-out item, with replacement, of those that the user has not taken in
            train (and validation); the held-out item itself is not drawn.
        k: Length of the list.
        candidates: Only the first so many items are drawn; all when not given.
        seed: Of the draws and of ties.

    Returns:
        ``"hr@K of N"`` and ``"ndcg@K of N"`` with ``N = num_sampled + 1``, means over the held-out pairs.

    Raises:
        ArgumentError: An argument is out of range, the split has no items, the model is of another catalogue, a score
            is NaN, or a user has taken all that could be drawn.
        GraphError: The graph has not been split.
    """
    check_range("num_sampled", num_sampled, low=1)
    check_range("k", k, low=1)
    size = graph.num_items if candidates is None else candidates
    check_range("candidates", size, low=1, high=graph.num_items)
    history, wanted, users = told_and_asked(model, graph, split)
    generator = torch.Generator().manual_seed(seed)
    hits = gains = 0.0
    for rows, batch, scores in score_batches(model, history, users, None):
        values = scores.cpu()
        unscored = values.isnan().any(dim=1)
        if bool(unscored.any()):  # no comparison with NaN holds: the item would have no rival
            raise nan_error(model, rows, int(unscored.nonzero()[0]))
        held_out = wanted.select(rows)
        free = torch.ones(len(rows), size)
        seen = batch.to("cpu")
        inside = seen.items < size
        free[seen.rows[inside], seen.items[inside]] = 0.0
        chance = free[held_out.rows]
        own_place = (held_out.items < size).nonzero().squeeze(1)
        chance[own_place, held_out.items[own_place]] = 0.0
        without = (chance.sum(dim=1) == 0).nonzero()
        if without.numel():
            user = int(rows[held_out.rows[without[0]]])
            raise ArgumentError(f"user {user} has taken all {size} items that could be drawn: no rival is left")
        drawn = torch.multinomial(chance, num_sampled, replacement=True, generator=generator)
        rivals = values[held_out.rows[:, None], drawn]
        own = values[held_out.rows, held_out.items][:, None]
        ties = (rivals == own).sum(dim=1)
        # Among t ties the item comes anywhere, equally likely.
        before = (torch.rand(len(ties), generator=generator) * (ties + 1)).long()
        rank = (rivals > own).sum(dim=1) + before
        found = rank < k
        hits += float(found.sum())
        gains += float((1 / (rank[found] + 2).double().log2()).sum())
    num_pairs = wanted.items.numel()
    of = num_sampled + 1
    return {f"hr@{k} of {of}": hits / num_pairs, f"ndcg@{k} of {of}": gains / num_pairs}
