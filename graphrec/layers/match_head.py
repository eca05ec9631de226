"""MatchHead: a network over a user, an item, their match and a context, for chosen pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_range

OUTPUT_STD = 0.1  # of the last weights as stored: what the network adds begins near 0


class _ScaledLinear(nn.Linear):
    r"""A linear layer whose weights are stored as if they were of standard deviation 1.

    .. math:: y = W x / \sqrt{in} + b

    It is the same function as :class:`torch.nn.Linear`, but a step of Adam, whose length knows nothing of that of the
    weights, turns them less: at rates at which tables of item vectors learn well, plain layers do not learn at all.

    Source:
        Karras et al., "Progressive Growing of GANs" (ICLR 2018), section 4.1.
    """

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        nn.init.normal_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return y."""
        return F.linear(x, self.weight * self.in_features**-0.5, self.bias)


class MatchHead(nn.Module):
    r"""What to add to the match of a user and an item.

    .. math::
        z_{uj} &= W_\odot (u \odot g_j) + W_u [u \,\|\, c_u] + W_g \, g_j + w_s \, s_{uj} + b_0, \\
        y_{uj} &= v^\top \phi(W \phi(z_{uj}) + b_1), \qquad \phi = \operatorname{GELU}

    A plain product adds up the channels of :math:`u \odot g_j`, each with weight 1 whoever the user is. Here they have
    weights, and what they mean together may depend on the user, the item and the context :math:`c_u`.

    Work is done for the pairs that are asked about, not for all users and items.

    Args:
        channels: Width of u and g.
        hidden_channels: Width of both hidden layers.
        context_channels: Width of the context; 0 for none.
        dropout: Probability that a hidden channel is dropped in training.

    Shape:
        - user: ``[num_users, channels]``, of length 1
        - item: ``[num_items, channels]``, of length 1
        - rows, columns: int64 ``[num_pairs]``, the user and the item of each pair
        - score: ``[num_pairs]``, s
        - context: ``[num_users, context_channels]``, ``None`` without one
        - output: ``[num_pairs]``

    Raises:
        ArgumentError: A value outside its range, or shapes that do not fit.

    Example:
        >>> head = MatchHead(8)
        >>> user, item = (F.normalize(torch.randn(size, 8), dim=1) for size in (2, 5))
        >>> rows, columns = torch.tensor([0, 0, 1]), torch.tensor([3, 1, 3])
        >>> score = (user[rows] * item[columns]).sum(dim=1)
        >>> (score + head(user, item, rows, columns, score)).shape
        torch.Size([3])

    Source:
        Product and both vectors read by one network: He et al., "Neural Collaborative Filtering" (WWW 2017), sections
        3.2-3.4; a ranking network with a user's attributes over a few candidates: Covington et al., "Deep Neural
        Networks for YouTube Recommendations" (RecSys 2016), section 4. That it adds to the product, and does not take
        its place, is ours; Rendle et al., "Neural Collaborative Filtering vs. Matrix Factorization Revisited" (RecSys
        2020) show how hard a product is to learn.
    """

    def __init__(
        self, channels: int, hidden_channels: int = 64, context_channels: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("hidden_channels", hidden_channels, low=1)
        check_range("context_channels", context_channels, low=0)
        check_range("dropout", dropout, low=0.0, high=1.0)
        self.channels = channels
        self.hidden_channels = hidden_channels
        self.context_channels = context_channels
        self.dropout = dropout
        self.lin_product = _ScaledLinear(channels, hidden_channels, bias=False)
        self.lin_user = _ScaledLinear(channels + context_channels, hidden_channels)
        self.lin_item = _ScaledLinear(channels, hidden_channels, bias=False)
        self.lin_score = _ScaledLinear(1, hidden_channels, bias=False)
        self.lin_hidden = _ScaledLinear(hidden_channels, hidden_channels)
        self.lin_out = _ScaledLinear(hidden_channels, 1, bias=False)  # a bias would be the same for all items
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew; the output starts near 0."""
        for lin in (self.lin_product, self.lin_user, self.lin_item, self.lin_score, self.lin_hidden):
            lin.reset_parameters()
        nn.init.normal_(self.lin_out.weight, std=OUTPUT_STD)

    def forward(
        self, user: Tensor, item: Tensor, rows: Tensor, columns: Tensor, score: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Return :math:`y` of each pair."""
        self._check(user, item, rows, columns, score, context)
        scale = self.channels**0.5  # the channels of a vector of length 1 are small
        user, item = user * scale, item * scale
        known = user if context is None else torch.cat([user, context], dim=1)
        hidden = self.lin_user(known).index_select(0, rows)
        if len(columns) < len(item):
            hidden = hidden + self.lin_item(item.index_select(0, columns))
        else:
            hidden = hidden + self.lin_item(item).index_select(0, columns)
        hidden = hidden + self.lin_product(user.index_select(0, rows) * item.index_select(0, columns))
        hidden = F.gelu(hidden + self.lin_score(score.unsqueeze(1)))
        hidden = F.dropout(hidden, self.dropout, self.training)
        hidden = F.dropout(F.gelu(self.lin_hidden(hidden)), self.dropout, self.training)
        added: Tensor = self.lin_out(hidden).squeeze(1)
        return added

    def _check(
        self, user: Tensor, item: Tensor, rows: Tensor, columns: Tensor, score: Tensor, context: Tensor | None
    ) -> None:
        for name, vectors in (("user", user), ("item", item)):
            if vectors.dim() != 2 or vectors.size(1) != self.channels:
                raise ArgumentError(f"{name} must have shape [num_{name}s, {self.channels}], got {list(vectors.shape)}")
        for name, column in (("rows", rows), ("columns", columns), ("score", score)):
            if column.shape != rows.shape or column.dim() != 1:
                raise ArgumentError(f"{name} must have shape [num_pairs] like rows, got {list(column.shape)}")
        wanted = [len(user), self.context_channels] if self.context_channels else None
        found = None if context is None else list(context.shape)
        if found != wanted:
            raise ArgumentError(f"context must have shape {wanted}, got {found}")

    def __repr__(self) -> str:
        context = f", context_channels={self.context_channels}" if self.context_channels else ""
        return f"{type(self).__name__}({self.channels}, hidden_channels={self.hidden_channels}{context})"
