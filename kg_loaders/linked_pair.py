"""LinkedPair: two graphs and the one that they make together, with less of the target where that is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import GraphError, KGLoaderError
from kg_loaders.graph import SPLITS, RecGraph, sort_interactions
from kg_loaders.joining import join

if TYPE_CHECKING:
    import pandas as pd

    from kg_loaders.audit import Finding

On = Literal["user", "item", "entity", "text"]
By = Literal["id", "map", "predicate", "label", "vectors"]

TWIN_PAIRS = "source pairs of items that are perhaps the target's own"

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LinkedPair:
    """Two graphs, and the one that they make together; made by :func:`kg_loaders.link`.

    In the union the target's users and items keep their indices, and those that only the source has follow. The text
    feature ``domain`` of users and items says ``"target"``, ``"source"`` or ``"both"``. The target's split is as it
    was; all of the source is in train, but for pairs that the target holds out.

    Args:
        source: Where knowledge comes from.
        target: Where it goes to; split.
        union: Both as one ordinary graph.
        on: What was linked.
        by: How.
        users: The union's index of each source user, int64 ``[source.num_users]``.
        entities: The union's index of each source entity, items first, int64 ``[source.num_entities]``.
        target_entities: The union's index of each target entity, int64 ``[target.num_entities]``.
        from_target: Which of the union's interactions are the target's, bool ``[union.num_interactions]``.
        source_rows: The source's interaction that each of the union's is, int64 ``[union.num_interactions]``; -1 for
            those that the source does not have, and for those that the target holds out.
        review: Matches to look at: ambiguous ones, which are not linked, and similar ones, which are.
        dropped: What linking left out, by reason.
        unlinked: What of it was left out before the graphs were joined.
        matches: The nodes that are linked, int64 ``[num_linked, 2]`` of (source, target).
        same_users: Whether users of equal ids were taken to be the same.
        same_entities: Whether entities of equal ids were taken to be the same.
    """

    source: RecGraph
    target: RecGraph
    union: RecGraph
    on: On
    by: By
    users: Indices
    entities: Indices
    target_entities: Indices
    from_target: NDArray[np.bool_]
    source_rows: Indices
    review: pd.DataFrame = field(repr=False)
    dropped: Mapping[str, int]
    unlinked: Mapping[str, int]
    matches: Indices
    same_users: bool
    same_entities: bool

    @classmethod
    def of_matches(
        cls,
        source: RecGraph,
        target: RecGraph,
        on: On,
        by: By,
        matches: Indices,
        same_users: bool,
        same_entities: bool,
        review: pd.DataFrame,
        dropped: Mapping[str, int],
    ) -> Self:
        """Join two graphs whose matches are known; the arguments are those of the class.

        Raises:
            GraphError: The target has no split, or features of one name contradict each other.
        """
        users = entities = matches[:0]
        if on == "user":
            users = matches
        else:
            entities = matches
            if same_users:
                from kg_loaders.matching import by_id  # it needs pandas, which kg_loaders does not load at import

                users = by_id(source, target, "user").pairs
        joined = join(source, target, users, entities, same_entities, dropped)
        return cls(
            source=source,
            target=target,
            union=joined.union,
            on=on,
            by=by,
            users=joined.users,
            entities=joined.entities,
            target_entities=joined.target_entities,
            from_target=joined.from_target,
            source_rows=joined.source_rows,
            review=review,
            dropped=joined.dropped,
            unlinked=dict(dropped),
            matches=matches,
            same_users=same_users,
            same_entities=same_entities,
        )

    @property
    def items(self) -> Indices:
        """The union's index of each source item, int64 ``[source.num_items]``."""
        return self.entities[: self.source.num_items]

    @cached_property
    def shared_users(self) -> Indices:
        """Users that both have, as indices of the target and the union, ascending."""
        return np.sort(self.users[self.users < self.target.num_users])

    @cached_property
    def shared_items(self) -> Indices:
        """Items that both have, as indices of the target and the union, ascending."""
        return np.sort(self.items[self.items < self.target.num_items])

    def overlap(self) -> dict[str, dict[str, int]]:
        """Return how many users, items and entities only the source, both, and only the target have.

        Entities are those that are no items of the union.
        """
        num_items = self.union.num_items
        ours, theirs = (nodes[nodes >= num_items] for nodes in (self.entities, self.target_entities))
        shared = len(np.intersect1d(ours, theirs))
        sizes = {
            "users": (self.source.num_users, len(self.shared_users), self.target.num_users),
            "items": (self.source.num_items, len(self.shared_items), self.target.num_items),
            "entities": (len(ours), shared, len(theirs)),
        }
        return {
            name: {"source": of_source - both, "both": both, "target": of_target - both}
            for name, (of_source, both, of_target) in sizes.items()
        }

    def summary(self) -> str:
        """Return, as text, what is shared, what was dropped, and what to look at."""
        names = (f"only {self.source.name}", "both", f"only {self.target.name}")
        widths = [max(len(name), 9) for name in names]
        not_ = "" if self.same_entities else "not "
        how = f"linked on {self.on} by {self.by}{', and users by id' if self.same_users else ''}"
        how += f"; entities of equal id are {not_}the same"
        lines = [f"{self.source.name} -> {self.target.name}", how, ""]
        lines.append("  ".join(["          ", *(f"{n:>{w}}" for n, w in zip(names, widths, strict=True))]))
        for kind, counts in self.overlap().items():
            cells = (f"{counts[place]:>{w},}" for place, w in zip(("source", "both", "target"), widths, strict=True))
            lines.append("  ".join([f"{kind:<10}", *cells]))
        lines += ["", f"union: {self.union!r}"]
        lines += [f"{count:,} {reason}" for reason, count in self.dropped.items()]
        numbered = self.source.users.is_integer and self.target.users.is_integer
        if numbered and len(self.shared_users) and (self.same_users or (self.on, self.by) == ("user", "id")):
            lines.append("user ids are plain numbers: the link holds only if both files number the same people")
        if len(self.review):
            open_ = int((~self.review["linked"]).sum())
            lines.append(f"{len(self.review):,} matches to review, {open_:,} of them not linked: see pair.review")
        return "\n".join(lines)

    def audit(self) -> list[Finding]:
        """Look for what could make figures on the target untrue: what of its held-out part the union knows.

        Show the findings with :func:`kg_loaders.audit.format_audit`; those of each graph alone come from
        :func:`kg_loaders.audit.audit`.
        """
        from kg_loaders.pair_audit import audit_pair

        return audit_pair(self)

    def with_target(self, target: RecGraph) -> LinkedPair:
        """Return the pair with the target's interactions or split replaced, linked as before.

        Raises:
            GraphError: The users, entities or items are not the same.
        """
        same = (self.target.users == target.users, self.target.entities == target.entities)
        if not all(same) or target.num_items != self.target.num_items:
            raise GraphError("with_target takes the same users, items and entities; link other graphs anew")
        # What the two graphs have in common is counted anew; what was left out before stays out.
        return self._joined_anew(self.source, target, self.unlinked)

    def keep_target(self, share: float, seed: int = 0) -> LinkedPair:
        """Return the pair with a random share of the target's train and validation pairs: a learning curve's point.

        Each part keeps ``round(n * share)`` of its ``n`` pairs, at least one; test is untouched.

        Raises:
            KGLoaderError: ``share`` is not above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise KGLoaderError(f"share must be above 0 and at most 1, got {share!r}")
        rng = np.random.default_rng(seed)
        split = _codes(self.target)
        kept = split == SPLITS.index("test")
        for part in ("train", "valid"):
            rows = np.flatnonzero(split == SPLITS.index(part))
            kept[rng.permutation(rows)[: max(round(len(rows) * share), 1)]] = True
        return self.with_target(replace(self.target, interactions=self.target.interactions[kept]))

    def without_history(self, users: Indices) -> LinkedPair:
        """Return the pair with these target users' train and validation pairs taken out: they are cold there."""
        pairs = self.target.interactions
        cold = np.isin(pairs.user, users) & (_codes(self.target) != SPLITS.index("test"))
        return self.with_target(replace(self.target, interactions=pairs[~cold]))

    def validate_cold(self, users: Indices) -> LinkedPair:
        """Return the pair with these target users' train pairs moved to validation: they are cold while selecting.

        Settings can then be chosen for users without a target history, and a refit learns of all pairs.
        """
        pairs, split = self.target.interactions, _codes(self.target).copy()
        split[np.isin(pairs.user, users) & (split == SPLITS.index("train"))] = SPLITS.index("valid")
        return self.with_target(self.target.with_split(split))

    def without_twins(self) -> LinkedPair:
        """Return the pair with the source's pairs of twins taken out: of items that may be the target's own.

        See :func:`kg_loaders.twins.find_twins`; ``dropped`` says how many pairs they had.
        """
        from kg_loaders.twins import find_twins

        pairs = self.source.interactions
        twin = np.isin(self.items[pairs.item], find_twins(self)[:, 0])
        twins = self.dropped.get(TWIN_PAIRS, 0) + int(twin.sum())
        source = replace(self.source, interactions=pairs[~twin])
        return self._joined_anew(source, self.target, {**self.unlinked, **({TWIN_PAIRS: twins} if twins else {})})

    def without_kg(self) -> LinkedPair:
        """Return the pair with no triples in either graph; what is linked stays so."""
        return self._joined_anew(self.source.without_kg(), self.target.without_kg(), self.unlinked)

    def shuffled_kg(self, seed: int) -> LinkedPair:
        """Return the pair with the tails of each graph permuted; see :meth:`RecGraph.shuffled_kg`."""
        return self._joined_anew(self.source.shuffled_kg(seed), self.target.shuffled_kg(seed), self.unlinked)

    def _joined_anew(self, source: RecGraph, target: RecGraph, dropped: Mapping[str, int]) -> LinkedPair:
        """Return these graphs linked as before."""
        how = (self.on, self.by, self.matches, self.same_users, self.same_entities, self.review)
        return LinkedPair.of_matches(source, target, *how, dropped)

    def source_only(self) -> RecGraph:
        """Return what is known before the target is seen: the union with the source's pairs alone, and the test part.

        A pair that both have is as the source knows it, with its time and weight. What the target holds out, for
        validation or test, the source does not tell.
        """
        pairs, known = self.union.interactions, self.source_rows >= 0
        columns = {}
        for name in ("time", "weight"):
            if (column := getattr(pairs, name)) is not None:
                columns[name] = column.copy()
                columns[name][known] = getattr(self.source.interactions, name)[self.source_rows[known]]
        kept = replace(pairs, **columns)[known | (_codes(self.union) == SPLITS.index("test"))]
        return replace(self.union, interactions=sort_interactions(kept))

    def __repr__(self) -> str:
        shared = ", ".join(f"{counts['both']} {kind}" for kind, counts in self.overlap().items())
        return f"LinkedPair({self.source.name!r} -> {self.target.name!r} on {self.on}; shared: {shared})"


def _codes(graph: RecGraph) -> NDArray[np.int8]:
    split = graph.interactions.split
    assert split is not None, "a pair's target and union are split"
    return split
