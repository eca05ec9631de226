"""Sampled softmax: a taken item should score above the catalogue, told by a sample of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from graphrec.errors import ArgumentError, check_range
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
    num_targets, num_negatives = len(positives), len(negatives)
    check_range("temperature", temperature, low=1e-8)
    if rows is None and num_targets != len(queries):
        raise ArgumentError(f"rows must be given for {num_targets} targets of {len(queries)} rows")
    if (positive_items is None) != (negative_items is None):
        raise ArgumentError("positive_items and negative_items go together, got one of them")
    for name, tensor, size in (
        ("rows", rows, num_targets),
        ("weights", weights, num_targets),
        ("positive_bias", positive_bias, num_targets),
        ("positive_items", positive_items, num_targets),
        ("negative_bias", negative_bias, num_negatives),
        ("negative_items", negative_items, num_negatives),
        ("log_q", log_q if isinstance(log_q, Tensor) else None, num_negatives),
    ):
        if tensor is not None and tensor.shape != (size,):
            raise ArgumentError(f"{name} must have shape [{size}], got {list(tensor.shape)}")
    queries = queries / temperature
    rows = torch.arange(num_targets, device=queries.device) if rows is None else rows

    positive = (queries.index_select(0, rows) * positives).sum(dim=1)  # [num_targets]
    if positive_bias is not None:
        positive = positive + positive_bias
    offset = torch.as_tensor(-math.log(max(num_negatives, 1)) - log_q, dtype=queries.dtype, device=queries.device)
    if negative_bias is not None:
        offset = offset + negative_bias
    logits = torch.addmm(offset.expand(num_negatives), queries, negatives.t())  # [num_rows, num_negatives]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # under autocast they are bfloat16
    if positive_items is not None and negative_items is not None:
        # A large negative number, not -inf: a row without any negative left has a gradient of 0, not NaN.
        hits = _accidental_hits(rows, positive_items, negative_items)
        logits = logits.index_put_(hits, logits.new_tensor(torch.finfo(logits.dtype).min / 2))
    others = logits.logsumexp(dim=1)  # [num_rows]
    loss = torch.logaddexp(positive, others.index_select(0, rows)) - positive
    return weighted_mean(loss, weights)


def _accidental_hits(rows: Tensor, positive_items: Tensor, negative_items: Tensor) -> tuple[Tensor, Tensor]:
    """Return the (row, column) pairs of the score matrix whose negative is one of the row's targets."""
    in_order, order = negative_items.sort()
    first = torch.searchsorted(in_order, positive_items)
    # An item may have been drawn several times: all of its draws are hits.
    times = torch.searchsorted(in_order, positive_items, right=True) - first
    start = torch.repeat_interleave(first - (times.cumsum(0) - times), times)
    columns = order[start + torch.arange(start.numel(), device=start.device)]
    return torch.repeat_interleave(rows, times), columns
