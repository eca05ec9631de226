"""Sampled softmax: a taken item should score above the catalogue, told by a sample of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
from graphrec.losses._checks import check_size
from graphrec.losses.reduction import weighted_mean


def sampled_softmax(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    log_q: Tensor | float,
    *,
    rows: Tensor | None = None,
    weights: Tensor | None = None,
    positive_bias: Tensor | None = None,
    negative_bias: Tensor | None = None,
    positive_items: Tensor | None = None,
    negative_items: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    r"""Return the mean softmax loss of targets against negatives that all rows share.

    With the score :math:`s_{bj} = q_b \cdot v_j / \tau + b_j`, a target t of row b costs

    .. math::
        \ell_t = -s_{bt} + \log \Big( e^{s_{bt}}
                 + \sum_{n \in S \setminus \mathcal{P}_b} \frac{e^{s_{bn}}}{N q_n} \Big), \qquad
        \ell = \frac{\sum_t w_t \ell_t}{\sum_t w_t}

    where the N negatives S were drawn with probabilities :math:`q`, so the sum estimates that over the catalogue
    without its bias to items that are drawn often. For uniform negatives the correction is
    :math:`\log(\mathrm{num\_items} / N)`. Negatives that are targets of the same row (:math:`\mathcal{P}_b`) do not
    compete there. For cosine scores, pass vectors of unit length.

    Positives are gathered vectors, not columns of a dense matrix of scores: that would be slow to differentiate.

    Args:
        queries: :math:`q_b`, ``[num_rows, dim]``.
        positives: Vectors of the targets, ``[num_targets, dim]``.
        negatives: Vectors of the negatives, ``[num_negatives, dim]``.
        log_q: :math:`\log q_n` of one draw, ``[num_negatives]``; one number for all, as for uniform negatives.
        rows: The row of each target, int64 ``[num_targets]``; not given, target t belongs to row t.
        weights: :math:`w_t`, at least 0, ``[num_targets]``; 1 where not given.
        positive_bias: :math:`b_t`, ``[num_targets]``.
        negative_bias: :math:`b_n`, ``[num_negatives]``.
        positive_items: Which item each target is, int64 ``[num_targets]``; with ``negative_items`` it tells which
            negatives are targets. Without the two, none are taken out.
        negative_items: Which item each negative is, int64 ``[num_negatives]``.
        temperature: :math:`\tau`, above 0.

    Returns:
        A scalar; 0 where there are no targets.

    Raises:
        ArgumentError: Shapes contradict each other, or only one of the two kinds of items is given.

    Example:
        >>> queries, items = torch.eye(2), torch.eye(3, 2)
        >>> loss = sampled_softmax(queries, items[:2], items, -math.log(3))      # the whole catalogue, each item once
        >>> full = torch.nn.functional.cross_entropy(queries @ items.T, torch.tensor([0, 1]))
        >>> sampled_softmax(queries, items[:2], items, -math.log(3), positive_items=torch.arange(2),
        ...                 negative_items=torch.arange(3)).isclose(full).item()
        True

    Source:
        The correction after Bengio and Senecal, "Adaptive Importance Sampling to Accelerate Training of a Neural
        Probabilistic Language Model" (IEEE TNN 2008); in recommendation after Yi et al.,
        "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations" (RecSys 2019).
    """
    check_range("temperature", temperature, low=1e-8)
    num_targets, num_negatives = len(positives), len(negatives)
    for name, vectors in (("queries", queries), ("positives", positives), ("negatives", negatives)):
        if vectors.dim() != 2 or vectors.size(1) != queries.size(-1):
            raise ArgumentError(f"{name} must have shape [rows, {queries.size(-1)}], got {list(vectors.shape)}")
    rows = _checked(
        num_targets, len(queries), num_negatives, rows, weights, positive_bias, positive_items, negative_items, log_q
    ).to(queries.device)
    if negative_bias is not None:
        check_size("negative_bias", negative_bias, num_negatives)
    queries = queries / temperature
    positive = (queries.index_select(0, rows) * positives).sum(dim=1)  # [num_targets]
    offset = _correction(log_q, num_negatives, queries)
    if negative_bias is not None:
        offset = offset + negative_bias
    logits = torch.addmm(offset.expand(num_negatives), queries, negatives.t())  # [num_rows, num_negatives]
    return _loss(positive, logits, rows, weights, positive_bias, positive_items, negative_items)


def softmax_over_samples(
    positive: Tensor,
    negative: Tensor,
    log_q: Tensor | float,
    *,
    rows: Tensor | None = None,
    weights: Tensor | None = None,
    positive_bias: Tensor | None = None,
    positive_items: Tensor | None = None,
    negative_items: Tensor | None = None,
) -> Tensor:
    r"""Return the loss of :func:`sampled_softmax` where the scores are no products of vectors.

    Args:
        positive: :math:`s_{bt}` of the targets, ``[num_targets]``.
        negative: :math:`s_{bn}`, ``[num_rows, num_negatives]``.
        log_q: As in :func:`sampled_softmax`, like all that follow.
        rows: The row of each target.
        weights: Of the targets.
        positive_bias: Added to ``positive``.
        positive_items: Which item each target is.
        negative_items: Which item each negative is.

    Returns:
        A scalar; 0 where there are no targets.

    Raises:
        ArgumentError: Shapes contradict each other, or only one of the two kinds of items is given.
    """
    num_rows, num_negatives = negative.shape
    check_size("positive", positive, positive.numel())
    rows = _checked(
        len(positive), num_rows, num_negatives, rows, weights, positive_bias, positive_items, negative_items, log_q
    ).to(negative.device)
    logits = negative + _correction(log_q, num_negatives, negative)
    return _loss(positive, logits, rows, weights, positive_bias, positive_items, negative_items)


def _checked(
    num_targets: int,
    num_rows: int,
    num_negatives: int,
    rows: Tensor | None,
    weights: Tensor | None,
    positive_bias: Tensor | None,
    positive_items: Tensor | None,
    negative_items: Tensor | None,
    log_q: Tensor | float,
) -> Tensor:
    """Return the rows after making sure that all sizes fit."""
    if rows is None and num_targets != num_rows:
        raise ArgumentError(f"rows must be given for {num_targets} targets of {num_rows} rows")
    if (positive_items is None) != (negative_items is None):
        raise ArgumentError("positive_items and negative_items go together, got one of them")
    for name, tensor, size in (
        ("rows", rows, num_targets),
        ("weights", weights, num_targets),
        ("positive_bias", positive_bias, num_targets),
        ("positive_items", positive_items, num_targets),
        ("negative_items", negative_items, num_negatives),
        ("log_q", log_q if isinstance(log_q, Tensor) else None, num_negatives),
    ):
        if tensor is not None:
            check_size(name, tensor, size)
    return torch.arange(num_targets) if rows is None else rows


def _correction(log_q: Tensor | float, num_negatives: int, like: Tensor) -> Tensor:
    return torch.as_tensor(-math.log(max(num_negatives, 1)) - log_q, dtype=like.dtype, device=like.device)


def _loss(
    positive: Tensor,
    logits: Tensor,
    rows: Tensor,
    weights: Tensor | None,
    positive_bias: Tensor | None,
    positive_items: Tensor | None,
    negative_items: Tensor | None,
) -> Tensor:
    """Return the loss, given the corrected scores of the negatives."""
    if positive_bias is not None:
        positive = positive + positive_bias
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # under autocast they are bfloat16
    if positive_items is not None and negative_items is not None:
        # A large negative number, not -inf: a row without any negative left has a gradient of 0, not NaN.
        hits = accidental_hits(rows, positive_items, negative_items)
        logits = logits.index_put_(hits, logits.new_tensor(torch.finfo(logits.dtype).min / 2))
    others = logits.logsumexp(dim=1)  # [num_rows]
    loss = torch.logaddexp(positive, others.index_select(0, rows)) - positive
    return weighted_mean(loss, weights)


def accidental_hits(rows: Tensor, positive_items: Tensor, negative_items: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (row, column) pairs of a score matrix whose negative is one of the row's targets.

    Args:
        rows: The row of each target, int64 ``[num_targets]``.
        positive_items: Which item each target is.
        negative_items: Which item each column is; an item may have several.

    Example:
        >>> rows, columns = accidental_hits(torch.tensor([0, 1]), torch.tensor([7, 5]), torch.tensor([5, 6, 5]))
        >>> rows.tolist(), columns.tolist()
        ([1, 1], [0, 2])
    """
    in_order, order = negative_items.sort()
    first = torch.searchsorted(in_order, positive_items)
    # An item may have been drawn several times: all of its draws are hits.
    times = torch.searchsorted(in_order, positive_items, right=True) - first
    start = torch.repeat_interleave(first - (times.cumsum(0) - times), times)
    columns = order[start + torch.arange(start.numel(), device=start.device)]
    return torch.repeat_interleave(rows, times), columns
