"""What a graph holds and what is odd about it: sizes, histories, reach of the KG, quality of the links."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kg_loaders.graph import LEAKS, SPLITS, Features, RecGraph, Split

MAX_EXAMPLES = 5
MAX_RELATIONS_SHOWN = 12
MAX_HOPS_SHOWN = 6
MAX_NAME = 44  # characters of a relation or a label in the table


def summary(graph: RecGraph) -> dict[str, Any]:
    """Return a checked summary of the graph as plain data (numbers, text, lists, dicts), ready for JSON.

    Shares are fractions of 1; their denominator is named in the comment beside each. A share of nothing is 0.

    Example:
        >>> import numpy as np
        >>> from kg_loaders import Interactions, Vocabulary
        >>> graph = RecGraph(
        ...     users=Vocabulary(["ann", "bob"], "user"), entities=Vocabulary(["Alien", "Heat", "Scott"], "entity"),
        ...     num_items=2, interactions=Interactions(np.array([0, 1]), np.array([0, 0])),
        ...     relations=Vocabulary(["director"], "relation"), triples=np.array([[0, 0, 2]]))
        >>> found = summary(graph)
        >>> found["density"], found["items_without_interactions"], found["reach"]["connected_share"]
        (0.5, 1, 1.0)
    """
    pairs = graph.interactions
    histories = np.bincount(pairs.user, minlength=graph.num_users)
    popularity = np.bincount(pairs.item, minlength=graph.num_items)
    linked = _linked_items(graph)
    return {
        "name": graph.name,
        "fingerprint": graph.fingerprint,
        "sizes": {
            "users": graph.num_users,
            "items": graph.num_items,
            "interactions": graph.num_interactions,
            "entities": graph.num_entities,
            "entities_not_items": graph.num_entities - graph.num_items,
            "relations": graph.num_relations,
            "triples": graph.num_triples,
        },
        "density": _share(graph.num_interactions, graph.num_users * graph.num_items),  # of all (user, item) pairs
        "interactions": _per_split(graph),
        "has_time": pairs.time is not None,
        "has_weight": pairs.weight is not None,
        "history": _spread(histories),
        "users_without_interactions": int((histories == 0).sum()),
        "items_without_interactions": int((popularity == 0).sum()),
        "items_without_triples": int((~linked).sum()),
        "test_pairs_in_train": leaked_pairs(graph, "test", "train"),
        "dropped": {reason: int(count) for reason, count in graph.dropped.items()},
        "reach": _reach(graph),
        "relations": _relations(graph),
        "links": _links(graph, linked),
        "features": _features(graph),
    }


def leaked_pairs(graph: RecGraph, later: Split, earlier: Split) -> int | None:
    """Return how many pairs reading took out of a part because an earlier one has them too.

    ``None`` where there is nothing to look at: no split, or no such part. A part all of whose pairs were taken out was
    there.
    """
    count = int(graph.dropped.get(LEAKS[later, earlier], 0))
    was_there = graph.has_split(later) or (graph.interactions.split is not None and count > 0)
    return count if was_there else None


def _per_split(graph: RecGraph) -> dict[str, int]:
    codes = graph.interactions.split
    if codes is None:
        return {"unsplit": graph.num_interactions}
    counts = np.bincount(codes, minlength=len(SPLITS))
    return {name: int(count) for name, count in zip(SPLITS, counts, strict=True)}


def _spread(histories: NDArray[np.int64]) -> dict[str, float]:
    """Return minimum, median and maximum over the users that have a history at all."""
    known = histories[histories > 0]
    if not len(known):
        return {"min": 0, "median": 0.0, "max": 0}
    return {"min": int(known.min()), "median": float(np.median(known)), "max": int(known.max())}


def _linked_items(graph: RecGraph) -> NDArray[np.bool_]:
    """Return which items stand in at least one triple, as head or as tail."""
    ends = graph.triples[:, [0, 2]].ravel()
    return np.bincount(ends[ends < graph.num_items], minlength=graph.num_items) > 0


def _reach(graph: RecGraph) -> dict[str, Any]:
    """Follow the triples, in both directions, from all items at once."""
    reached = np.arange(graph.num_entities) < graph.num_items
    others = graph.num_entities - graph.num_items
    edges = graph.triples[:, [0, 2]]
    hops: list[float] = []
    while len(edges):
        head, tail = reached[edges[:, 0]], reached[edges[:, 1]]
        new = np.concatenate([edges[head & ~tail, 1], edges[tail & ~head, 0]])
        if not len(new):
            break
        edges = edges[~(head & tail)]  # edges inside what is reached lead nowhere new
        reached[new] = True
        hops.append(_share(int(reached.sum()) - graph.num_items, others))
    connected = int(reached.sum()) - graph.num_items
    return {
        "connected": connected,
        "connected_share": _share(connected, others),  # of the entities that are not items
        "share_by_hops": hops,  # hops[0]: within one hop, hops[1]: within two, ...; same denominator
    }


def _relations(graph: RecGraph) -> list[dict[str, Any]]:
    """Return every relation with its counts, the most frequent first."""
    counts = np.bincount(graph.triples[:, 1], minlength=graph.num_relations)
    order = np.argsort(-counts, kind="stable")
    by_relation = graph.triples[np.argsort(graph.triples[:, 1], kind="stable")]
    bounds = np.searchsorted(by_relation[:, 1], np.arange(graph.num_relations + 1))
    return [
        {
            "relation": graph.relations.id_of(relation),
            "triples": int(counts[relation]),
            "heads": len(np.unique(by_relation[bounds[relation] : bounds[relation + 1], 0])),
            "tails": len(np.unique(by_relation[bounds[relation] : bounds[relation + 1], 2])),
        }
        for relation in order.tolist()
    ]


def _links(graph: RecGraph, linked: NDArray[np.bool_]) -> dict[str, Any]:
    """Judge how items are tied to the KG.

    Two items with one and the same set of triples cannot be told apart by the KG: either they are alike, or they were
    linked to one entity by mistake. Two items of one label with different triples are suspicious the other way round:
    a duplicate of which only one copy was linked, or a namesake linked to the wrong entity.
    """
    sets = _triple_sets(graph)
    alike = Counter(sets.values())
    groups: dict[str, list[int]] = defaultdict(list)
    for item, (label, id_) in enumerate(zip(graph.item_labels, graph.items, strict=True)):
        if label != id_:
            groups[label.strip().casefold()].append(item)
    odd = [items for items in groups.values() if len(items) > 1 and len({sets.get(item) for item in items}) > 1]
    return {
        "share_with_triples": _share(int(linked.sum()), graph.num_items),  # of all items
        "items_sharing_a_triple_set": sum(count for count in alike.values() if count > 1),
        "same_label_linked_differently": len(odd),  # labels, not items
        "examples": [
            {"label": graph.item_labels[items[0]], "items": graph.items.ids_of(items)} for items in odd[:MAX_EXAMPLES]
        ],
    }


def _triple_sets(graph: RecGraph) -> dict[int, bytes]:
    """Return, for each item with triples, the set of (direction, relation, other end) as comparable bytes."""
    head, relation, tail = graph.triples.T
    outward = np.stack([head, 2 * relation, tail], axis=1)[head < graph.num_items]
    inward = np.stack([tail, 2 * relation + 1, head], axis=1)[tail < graph.num_items]
    rows = np.concatenate([outward, inward])
    rows = rows[np.lexsort(rows.T[::-1])]
    items, starts = np.unique(rows[:, 0], return_index=True)
    ends = np.append(starts, len(rows))[1:]
    return {
        item: rows[start:end, 1:].tobytes()
        for item, start, end in zip(items.tolist(), starts.tolist(), ends.tolist(), strict=True)
    }


def _features(graph: RecGraph) -> list[dict[str, Any]]:
    found = []
    kinds: tuple[tuple[str, Features], ...] = (
        ("user", graph.user_features),
        ("item", graph.item_features),
        ("entity", graph.entity_features),
    )
    for kind, features in kinds:
        for name, feature in features.items():
            values = "text" if feature.is_text else f"{feature.values.shape[1]} numbers"
            known = _share(int(feature.present.sum()), len(feature))  # of all nodes of the kind
            found.append({"of": kind, "name": name, "values": values, "share_known": known})
    return found


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


# The table for people

Row = tuple[str, str, str]  # a name, a value, a remark


def format_summary(found: dict[str, Any]) -> str:
    """Return the summary as an aligned table in plain text, for a terminal or a file."""
    blocks: dict[str, list[Row]] = {
        "sizes": [(name.replace("_", " "), f"{size:,}", "") for name, size in found["sizes"].items()],
        "interactions": _interaction_rows(found),
        "dropped in reading": [(reason, f"{count:,}", "") for reason, count in found["dropped"].items()],
        "knowledge graph": _graph_rows(found),
        "relations": _relation_rows(found["relations"]),
        "features": [
            (f"{feature['of']} {feature['name']}", feature["values"], f"known for {feature['share_known']:.1%}")
            for feature in found["features"]
        ],
    }
    rows = [row for block in blocks.values() for row in block]
    left, middle = (max(len(row[column]) for row in rows) for column in (0, 1))
    lines = [f"{found['name']}  (fingerprint {found['fingerprint'][:12]})"]
    for title, block in blocks.items():
        lines += ["", title]
        lines += [f"  {name:<{left}}  {value:>{middle}}  {remark}".rstrip() for name, value, remark in block]
        if not block:
            lines.append("  none")
    return "\n".join(lines)


def _interaction_rows(found: dict[str, Any]) -> list[Row]:
    history, leaked = found["history"], found["test_pairs_in_train"]
    return [
        *((split, f"{count:,}", "") for split, count in found["interactions"].items()),
        ("density", f"{found['density']:.4%}", "of all user-item pairs"),
        ("history of a user", f"{history['median']:g}", f"median; {history['min']:,} to {history['max']:,}"),
        ("users without any", f"{found['users_without_interactions']:,}", ""),
        ("items without any", f"{found['items_without_interactions']:,}", ""),
        ("times known", "yes" if found["has_time"] else "no", ""),
        ("weights known", "yes" if found["has_weight"] else "no", ""),
        ("test pairs in train", "-", "no test part") if leaked is None else ("test pairs in train", f"{leaked:,}", ""),
    ]


def _graph_rows(found: dict[str, Any]) -> list[Row]:
    links, reach = found["links"], found["reach"]
    return [
        ("items with triples", f"{links['share_with_triples']:.1%}", f"{found['items_without_triples']:,} have none"),
        ("entities reached", f"{reach['connected_share']:.1%}", "from items, of the entities that are not items"),
        *(
            (f"  in {hops} {'hop' if hops == 1 else 'hops'}", f"{share:.1%}", "")
            for hops, share in enumerate(reach["share_by_hops"][:MAX_HOPS_SHOWN], start=1)
        ),
        ("items alike", f"{links['items_sharing_a_triple_set']:,}", "have all their triples in common with another"),
        ("suspicious labels", f"{links['same_label_linked_differently']:,}", "name several items, linked differently"),
        *(
            (f"  {_short(example['label'])}", "", "items " + ", ".join(_short(item) for item in example["items"]))
            for example in links["examples"]
        ),
    ]


def _relation_rows(relations: list[dict[str, Any]]) -> list[Row]:
    rows = [
        (_short(found["relation"]), f"{found['triples']:,}", f"{found['heads']:,} heads, {found['tails']:,} tails")
        for found in relations[:MAX_RELATIONS_SHOWN]
    ]
    more = relations[MAX_RELATIONS_SHOWN:]
    if more:
        rows.append((f"{len(more):,} others", f"{sum(found['triples'] for found in more):,}", ""))
    return rows


def _short(text: str) -> str:
    """Cut a long name in its middle: the end of a URI says most."""
    return text if len(text) <= MAX_NAME else f"{text[:12]}...{text[15 - MAX_NAME :]}"
