"""Side features: what is known of a user besides the history, as one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graphrec.errors import ArgumentError, check_choice, check_range
from graphrec.histories import Histories
from kg_loaders import RecGraph
from kg_loaders.graph import Feature

UNKNOWN = 0  # the code of what is not known
MIN_USERS = 5  # a value of fewer users cannot be learned from, and counts as unknown
MAX_CATEGORIES = 32  # more different numbers than that are cut into groups
NUM_GROUPS = 8

DAY = 86_400  # seconds
CONTEXTS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    "hour": (24, lambda seconds: (seconds % DAY / 3600).long()),
    "weekday": (7, lambda seconds: (seconds / DAY).floor().long().add(3).remainder(7)),  # 1970 began on a Thursday
}
"""What can be read off a time, in UTC: how many values it has (weekdays from Monday), and how to find one."""


class SideFeatureEncoder(nn.Module):
    r"""A vector of side features: the user's attributes, and the context of the latest item.

    .. math:: c_u = \big\Vert_f \, E_f[x_{uf}]

    Each feature is a category with a learned vector for each value, and one more for "unknown": a stranger, a user
    whose value is missing, and a value of fewer than 5 users. Nothing unknown is filled with zeros. In training a
    random part of what is known counts as unknown, so that this vector is learned where every user is known, too.

    Columns of nothing but numbers with more than 32 different ones (ages, say) are cut into 8 groups of about equal
    size. A context is read off the time of the latest item of a history (UTC); without times it is unknown.

    No user has a parameter: the table of users holds what the data say of them, and is not saved with the weights.

    Args:
        features: Text by name, a row a user.
        contexts: Names of :data:`CONTEXTS`.
        channels: Width of the vector of each feature.
        drop: Probability that a feature of a user counts as unknown in a step of training.

    Raises:
        ArgumentError: No feature, an unknown context, a value outside its range, features that are no text or have no
            value that enough users share.

    Example:
        >>> gender = Feature.text(["F", "M", "M", "", "F"] * 3)
        >>> encoder = SideFeatureEncoder({"gender": gender}, channels=4).eval()
        >>> known, stranger = Histories.from_lists([[7], [8]], [0, 3]), Histories.from_lists([[7]])
        >>> vectors = encoder(known)
        >>> vectors.shape, torch.equal(vectors[1], encoder(stranger)[0])
        (torch.Size([2, 4]), True)

    Source:
        Embedded attributes beside a learned match: Cheng et al., "Wide & Deep Learning for Recommender Systems" (DLRS
        2016), section 3.2; numbers by quantiles: the same, section 4.1.
    """

    def __init__(
        self,
        features: Mapping[str, Feature],
        contexts: Sequence[str] = (),
        channels: int = 16,
        drop: float = 0.1,
    ) -> None:
        super().__init__()
        check_range("channels", channels, low=1)
        check_range("drop", drop, low=0.0, high=1.0)
        for context in contexts:
            check_choice("contexts", context, CONTEXTS)
        if not features and not contexts:
            raise ArgumentError("features and contexts must not both be empty")
        self.names = (*features, *contexts)
        self.contexts = tuple(contexts)
        self.channels = channels
        self.drop = drop
        found = {name: _coded(name, feature) for name, feature in features.items()}
        self.values: dict[str, tuple[str, ...]] = {name: values for name, (values, _) in found.items()}
        # Of the graph, not of training, so no part of the saved weights.
        codes = np.stack([code for _, code in found.values()], axis=1) if found else np.empty((0, 0), dtype=np.int64)
        self.codes: Tensor
        self.register_buffer("codes", torch.from_numpy(codes), persistent=False)
        sizes = [1 + len(values) for values in self.values.values()] + [1 + CONTEXTS[name][0] for name in contexts]
        self.start: Tensor
        starts = np.cumsum([0, *sizes])
        self.register_buffer("start", torch.from_numpy(starts[:-1].copy()), persistent=False)
        self.table = nn.Parameter(torch.empty(int(starts[-1]), channels))
        self.reset_parameters()

    @property
    def out_channels(self) -> int:
        """Width of the output."""
        return len(self.names) * self.channels

    def reset_parameters(self) -> None:
        """Draw all vectors anew."""
        nn.init.normal_(self.table)

    def forward(self, histories: Histories, generator: torch.Generator | None = None) -> Tensor:
        """Return :math:`c_u` of each history, ``[batch_size, out_channels]``.

        Args:
            histories: Users without ``user_index``, or with one outside the data set's, are strangers.
            generator: Draws what counts as unknown in training, on the CPU; torch's own when not given.
        """
        codes = torch.cat([self._of_users(histories), self._of_times(histories)], dim=1)
        if self.training and self.drop:
            hidden = torch.rand(codes.shape, generator=generator) < self.drop
            codes = codes.masked_fill(hidden.to(codes.device), UNKNOWN)
        vectors: Tensor = self.table.index_select(0, (codes + self.start).flatten())
        return vectors.view(len(histories), self.out_channels)

    def knows(self, histories: Histories) -> Tensor:
        """Return of which users an attribute is known, bool ``[batch_size]``."""
        return (self._of_users(histories) != UNKNOWN).any(dim=1)

    def _of_users(self, histories: Histories) -> Tensor:
        """Return the codes of the users' attributes, ``[batch_size, num_features]``."""
        user, num_users = histories.user_index, len(self.codes)
        if user is None or not num_users:
            return self.start.new_full((len(histories), len(self.values)), UNKNOWN)
        known = (user >= 0) & (user < num_users)
        return self.codes[user.clamp(0, num_users - 1)].masked_fill(~known.unsqueeze(1), UNKNOWN)

    def _of_times(self, histories: Histories) -> Tensor:
        """Return the codes of the contexts, ``[batch_size, num_contexts]``."""
        codes = self.start.new_full((len(histories), len(self.contexts)), UNKNOWN)
        if histories.times is None or not self.contexts:
            return codes
        never = histories.times.new_full((len(histories),), -torch.inf)
        latest = never.scatter_reduce(0, histories.rows, histories.times, "amax")
        known = latest.isfinite()
        for place, name in enumerate(self.contexts):
            codes[known, place] = 1 + CONTEXTS[name][1](latest[known])
        return codes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.names)}, channels={self.channels})"


def side_features_of(graph: RecGraph, names: Sequence[str]) -> SideFeatureEncoder | None:
    """Return the encoder of some side features of a graph; ``None`` where none are named.

    Args:
        graph: The graph.
        names: Names of user features (text); ``"hour"`` and ``"weekday"``, where no feature has this name, mean those
            of a history's latest item.

    Raises:
        ArgumentError: There is no such feature or no time to read it off, it is no text or of no use, or a name is
            given twice.
    """
    if not names:
        return None
    if len(set(names)) < len(names):
        raise ArgumentError(f"side_features must be distinct, got {list(names)}")
    timed = CONTEXTS if graph.interactions.time is not None else ()
    for name in names:
        if name not in graph.user_features and name not in timed:
            allowed = ", ".join(map(repr, dict.fromkeys([*graph.user_features, *timed]))) or "none"
            why = "; its interactions have no times" if name in CONTEXTS else ""
            raise ArgumentError(f"side_features must be among those of {graph.name} ({allowed}), got {name!r}{why}")
    features = {name: graph.user_features[name] for name in names if name in graph.user_features}
    return SideFeatureEncoder(features, [name for name in names if name not in features])


def _coded(name: str, feature: Feature) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the values of a feature that have a vector, and each user's place among them, counted from 1."""
    if not feature.is_text:
        raise ArgumentError(f"side_features: {name!r} must be text (categories or numbers), got vectors")
    known = feature.values[feature.present].astype(str)
    numbers = _numbers(known)
    codes = np.full(len(feature), UNKNOWN, dtype=np.int64)
    if numbers is not None and len(np.unique(numbers)) > MAX_CATEGORIES:
        bounds = np.unique(np.quantile(numbers, np.linspace(0, 1, NUM_GROUPS + 1)[1:-1]))
        codes[feature.present] = 1 + np.searchsorted(bounds, numbers, side="right")
        ends = ["", *(f"{bound:g}" for bound in bounds), ""]
        return tuple(f"{low}..{high}" for low, high in pairwise(ends)), codes
    values, place, count = np.unique(known, return_inverse=True, return_counts=True)
    often = count >= MIN_USERS
    if not often.any():
        raise ArgumentError(f"side_features: no value of {name!r} is that of {MIN_USERS} users, so none can be learned")
    codes[feature.present] = np.where(often, often.cumsum(), UNKNOWN)[place]
    return tuple(values[often].tolist()), codes


def _numbers(texts: NDArray[np.str_]) -> NDArray[np.float64] | None:
    """Return texts as numbers; ``None`` where one is none."""
    try:
        numbers = texts.astype(np.float64)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None
