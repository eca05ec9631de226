"""From a model and histories to scores and ranked lists, batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, DivergedError, check_choice, check_range
from graphrec.evaluation.product import ProductSearch
from graphrec.evaluation.topk import NotANumberError, top_k
from graphrec.histories import Histories

if TYPE_CHECKING:
    from graphrec.models.base import Recommender
    from kg_loaders import RecGraph
    from kg_loaders.graph import Split

# On a CPU a block is taken from malloc's heap, stays in the cache, and is found again for the next batch. Blocks above
# malloc's limit of 32 MiB are mapped anew each time, and their page faults cost more than filling them.
CPU_BLOCK_BYTES = 16 * 2**20
SHARED_BLOCK_BYTES = 64 * 2**20
MAX_BLOCK_BYTES = 256 * 2**20
FEWEST_ROWS, MOST_ROWS = 64, 1024


def rank_all(
    model: Recommender,
    histories: Histories,
    k: int,
    seen: Histories | None,
    rows: Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the best ``k`` items of any number of users, a batch at a time, so that memory stays small.

    A list depends on the user and the seed alone, not on the batch. The model is in evaluation mode while the
    generator runs, and afterwards in the mode it was in.

    Args:
        model: Any recommender, on any device; the histories are moved there.
        histories: What the model is told, one row a user.
        k: How many items, at least 1.
        seen: What is not returned, one row for each row of ``histories``, usually ``histories`` itself;
            ``None`` leaves out nothing.
        rows: The rows to rank, int64; all of them when not given.
        seed: Decides the order of ties.
        batch_size: Users scored at once; when not given, see :func:`default_batch_size`.

    Yields:
        Rows ``[batch]``, their items ``[batch, k]`` (-1 where none is left) and scores ``[batch, k]``, all on the CPU.

    Raises:
        ArgumentError: An argument is out of range, or the model's scores hold NaN or have a wrong shape.

    Example:
        >>> from graphrec.models import Popularity
        >>> model = Popularity(num_items=3)
        >>> past = Histories.from_lists([[0, 1], [1]])
        >>> _ = model.fit(past)
        >>> [(rows.tolist(), items.tolist()) for rows, items, _ in rank_all(model, past, k=2, seen=past)]
        [([0, 1], [[2, -1], [0, 2]])]
    """
    check_range("k", k, low=1)
    if seen is not None and len(seen) != len(histories):
        raise ArgumentError(f"seen must have {len(histories)} rows like histories, got {len(seen)}")
    for part, batch, scores in score_batches(model, histories, rows, batch_size):
        # Ties are drawn for each user, so strangers are told apart by their row.
        users = part.to(scores.device) if batch.user_index is None else batch.user_index
        left_out = _nothing(len(part)) if seen is None else seen.select(part)
        items, values = best(model, scores, k, replace(left_out.to(scores.device), user_index=users), seed)
        yield part, items.cpu(), values.cpu()


def told_and_asked(model: Recommender, graph: RecGraph, split: Split) -> tuple[Histories, Histories, Tensor]:
    """Return what a model is told of all users, what it is asked for, and the users of whom anything is.

    Args:
        model: A model of the graph's items.
        graph: A graph that is split.
        split: ``"valid"`` (the model is told train) or ``"test"`` (train and valid).

    Raises:
        ArgumentError: Another split or one without items, or a model of another catalogue.
        GraphError: The graph has not been split.
    """
    check_choice("split", split, ("valid", "test"))
    if model.num_items != graph.num_items:
        name = type(model).__name__
        raise ArgumentError(f"{name} ranks {model.num_items} items, graph {graph.name!r} has {graph.num_items}")
    told = graph.part("train") if split == "valid" else graph.part("train", "valid")
    history = Histories.from_interactions(told, graph.num_users)
    relevant = Histories.from_interactions(graph.part(split), graph.num_users)
    users = (relevant.lengths > 0).nonzero().squeeze(1)
    if users.numel() == 0:
        raise ArgumentError(f"graph {graph.name!r} has no interactions in its {split} split")
    return told_when(model, history, relevant), relevant, users


def told_when(model: Recommender, histories: Histories, wanted: Histories) -> Histories:
    """Return histories asked when each user took the first of the items ``wanted``, for a model that reads that."""
    if not model.request_time or wanted.times is None:
        return histories
    never = wanted.times.new_full((len(wanted),), torch.inf)
    return replace(histories, asked_at=never.scatter_reduce(0, wanted.rows, wanted.times, "amin"))


def best(model: Recommender, scores: Tensor, k: int, seen: Histories, seed: int) -> tuple[Tensor, Tensor]:
    """Return :func:`~graphrec.evaluation.topk.top_k`; an error over NaN names the model."""
    with _naming(model, seen):
        return top_k(scores, k, seen, seed)


def best_of(
    model: Recommender, search: ProductSearch, users: Tensor, k: int, seen: Histories, seed: int
) -> tuple[Tensor, Tensor]:
    """Do as :func:`best`, by the search among the model's items for user vectors ``[batch_size, dim]``."""
    with _naming(model, seen):
        return search.top_k(users, k, seen, seed)


@contextmanager
def _naming(model: Recommender, seen: Histories) -> Iterator[None]:
    """Let an error over NaN name the model and the user."""
    try:
        yield
    except NotANumberError as error:
        raise nan_error(model, seen.user_index, error.row) from error


def nan_error(model: Recommender, users: Tensor | None, row: int) -> DivergedError:
    """Return the error over NaN in a row of scores; ``users`` says who the rows are, ``None`` for their numbers."""
    who = row if users is None else int(users[row])
    return DivergedError(f"{type(model).__name__} scores NaN for user {who}")


def score_batches(
    model: Recommender, histories: Histories, rows: Tensor | None, batch_size: int | None
) -> Iterator[tuple[Tensor, Histories, Tensor]]:
    """Yield rows, their histories and their checked scores ``[batch, num_items]`` on the model's device."""
    if batch_size is not None:
        check_range("batch_size", batch_size, low=1)
    device = next((t.device for t in itertools.chain(model.parameters(), model.buffers())), torch.device("cpu"))
    rows = torch.arange(len(histories)) if rows is None else rows
    was_training = model.training
    if was_training:
        model.eval()
    try:
        default = default_batch_size(model.num_items, device, model.shares_work)
        for part in torch.split(rows, batch_size or default):
            if part.numel() == 0:
                continue
            batch = histories.select(part).to(device)
            with torch.no_grad():
                scores = model.score(batch)
            shape = (len(part), model.num_items)
            if scores.shape != shape or not scores.is_floating_point():
                name = type(model).__name__
                raise ArgumentError(
                    f"{name}.score must return float {list(shape)}, got {scores.dtype} {list(scores.shape)}"
                )
            yield part, batch, scores
            del scores  # before the next block is made, not after
    finally:
        if was_training:
            model.train()


def default_batch_size(num_items: int, device: torch.device, shares_work: bool = False) -> int:
    """Return how many rows to score at once: a block of float32 scores of 16 MiB on a CPU, of 256 MiB elsewhere.

    A model that :attr:`~graphrec.models.base.Recommender.shares_work` has 64 MiB on a CPU. At least 64 rows (as far
    as 256 MiB allow), so that a matrix product is worth its name, and at most 1024, since a model may need far more
    memory for a row than its scores.
    """
    row_bytes = 4 * max(num_items, 1)
    on_cpu = SHARED_BLOCK_BYTES if shares_work else CPU_BLOCK_BYTES
    rows = (on_cpu if device.type == "cpu" else MAX_BLOCK_BYTES) // row_bytes
    fewest = min(FEWEST_ROWS, max(1, MAX_BLOCK_BYTES // row_bytes))
    return min(max(rows, fewest), MOST_ROWS)


def _nothing(num_rows: int) -> Histories:
    return Histories(torch.empty(0, dtype=torch.int64), torch.zeros(num_rows + 1, dtype=torch.int64))
