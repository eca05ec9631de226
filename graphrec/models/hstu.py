"""HSTU: sequential transduction with pointwise aggregated attention."""

from __future__ import annotations

from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range
from graphrec.histories import Histories
from graphrec.layers import HSTUBlock
from graphrec.layers.ops.biased_attention import drop
from graphrec.layers.ops.sequences import SequenceLayout
from graphrec.models.sequential import CausalRecommender, LossName


class HSTU(CausalRecommender):
    r"""Gated pointwise attention over a history, with biases for the distance in places and in time.

    Args:
        num_items: Number of items.
        dim: Width of the vectors.
        num_blocks: Number of blocks; the published "large" has 8.
        heads: Attention heads of each block; must divide ``dim``.
        max_length: Most recent items of a history that are read; each distance between them has a bias.
        num_time_buckets: Time intervals that have a bias (64 reach beyond seven years); 0 for none, otherwise histories
            need times.
        request_time: Whether an entry looks back from when the next item was taken (in training) or is asked for, as in
            the published code, instead of from its own time; see :class:`InductiveKGAT`.
        dropout: Probability that a channel is dropped in training.
        loss: ``"bce"``, ``"gbce"`` or ``"softmax"``; see
            :class:`~graphrec.models.sequential.SequentialRecommender`.
        num_negatives: Negatives a step of ``"gbce"`` and ``"softmax"``, shared by the batch; all items where there are
            no more.
        calibration: Of ``"gbce"``, within 0..1.
        temperature: Of cosine scores; 0 for plain products.

    Raises:
        ArgumentError: A value outside its range; histories without times where ``num_time_buckets`` needs them.

    Example:
        >>> model = HSTU(num_items=5, dim=8).eval()
        >>> model.score(Histories.from_lists([[3, 1], [0], []])).shape
        torch.Size([3, 5])

    Source:
        Zhai et al., "Actions Speak Louder than Words" (ICML 2024), and the defaults of its code for MovieLens-1M.
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        num_blocks: int = 2,
        heads: int = 1,
        max_length: int = 50,
        num_time_buckets: int = 0,
        request_time: bool = False,
        dropout: float = 0.2,
        loss: LossName = "softmax",
        num_negatives: int = 256,
        calibration: float = 0.75,
        temperature: float = 0.05,
    ) -> None:
        super().__init__(num_items, dim, max_length, loss, num_negatives, calibration, temperature)
        check_range("num_blocks", num_blocks, low=1)
        if request_time and not num_time_buckets:
            raise ArgumentError("request_time needs num_time_buckets above 0, got 0: no other part reads times")
        self.request_time = request_time
        self.dropout = dropout
        self.blocks = nn.ModuleList(
            HSTUBlock(dim, heads, dropout, num_distances=max_length, num_time_buckets=num_time_buckets)
            for _ in range(num_blocks)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        for block in self.blocks:
            block.reset_parameters()  # type: ignore[operator]

    def states(self, histories: Histories, last_only: bool = False) -> Tensor:
        """Attend to the past from every item; see :meth:`CausalRecommender.states`."""
        x: Tensor = self.item.index_select(0, histories.items) * self.dim**0.5
        x = drop(x, self.dropout, self.training)
        layout = SequenceLayout.from_offsets(histories.offsets)
        for block in self.blocks:
            x = block(x, layout, histories.times, histories.followed_at if self.request_time else None)
        if not last_only:
            return x
        out = x.new_zeros(len(histories), self.dim)
        filled = histories.lengths > 0
        return out.index_copy(0, filled.nonzero().squeeze(1), x[histories.from_end == 0])
