"""SASRec: self-attentive sequential recommendation."""

from __future__ import annotations

from torch import Tensor

from graphrec.histories import Histories
from graphrec.layers import HistorySelfAttention
from graphrec.models.sequential import CausalRecommender, LossName


class SASRec(CausalRecommender):
    r"""Causal self-attention over a history; its last state is the user.

    The published model is ``loss="bce"``, the default: one negative for each target, plain products, ReLU, no widening,
    norms before. ``loss="gbce"`` with many negatives is gSASRec, but for negatives that all targets of a step share.
    ``loss="softmax"`` with many negatives and cosine scores (``temperature``) ranks far better on most data.

    Args:
        num_items: Number of items.
        dim: Width of the vectors.
        num_blocks: Number of blocks.
        heads: Attention heads of each block; must divide ``dim``.
        max_length: Most recent items of a history that are read.
        dropout: Probability that a channel or an attention weight is dropped in training.
        widening: Width within the feed-forward networks, in multiples of ``dim``.
        loss: ``"bce"``, ``"gbce"`` or ``"softmax"``; see :class:`SequentialRecommender`.
        num_negatives: Negatives a step of ``"gbce"`` and ``"softmax"``, shared by the batch; all items where there are
            no more.
        calibration: Of ``"gbce"``, within 0..1.
        temperature: Of cosine scores; 0 for plain products.

    Raises:
        ArgumentError: A value outside its range.

    Example:
        >>> model = SASRec(num_items=5, dim=8).eval()
        >>> model.score(Histories.from_lists([[3, 1], [0], []])).shape
        torch.Size([3, 5])

    Source:
        Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018); "gbce" after Petrov and Macdonald,
        "gSASRec" (RecSys 2023); "softmax" after Klenitskiy and Vasilev, "Turning Dross Into Gold Loss: is BERT4Rec
        really better than SASRec?" (RecSys 2023).
    """

    def __init__(
        self,
        num_items: int,
        dim: int = 64,
        num_blocks: int = 2,
        heads: int = 1,
        max_length: int = 50,
        dropout: float = 0.2,
        widening: int = 1,
        loss: LossName = "bce",
        num_negatives: int = 256,
        calibration: float = 0.75,
        temperature: float = 0.0,
    ) -> None:
        super().__init__(num_items, dim, max_length, loss, num_negatives, calibration, temperature)
        self.encoder = HistorySelfAttention(
            dim, num_blocks, heads, widening * dim, dropout=dropout, activation="relu", num_positions=max_length
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        super().reset_parameters()
        self.encoder.reset_parameters()

    def states(self, histories: Histories, last_only: bool = False) -> Tensor:
        """Attend to the past from every item; see :meth:`CausalRecommender.states`."""
        states: Tensor = self.encoder(self._read(histories), histories.offsets, last_only=last_only)
        return states

    def last_states_without_each(self, history: Histories) -> Tensor:
        """Share what the histories have in common; see :meth:`SequentialRecommender.last_states_without_each`."""
        states: Tensor = self.encoder.last_without_each(self._read(history))
        return states

    def _read(self, histories: Histories) -> Tensor:
        x: Tensor = self.item.index_select(0, histories.items) * self.dim**0.5
        return x
