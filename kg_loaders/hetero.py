"""RecGraph to PyTorch Geometric's HeteroData and back, without loss."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch_geometric.data import HeteroData

from kg_loaders.errors import GraphError
from kg_loaders.graph import Feature, Features, Interactions, RecGraph
from kg_loaders.vocabulary import Vocabulary

KINDS = ("user", "item", "entity")
INTERACTS = ("user", "interacts", "item")
MASKS = ("train_mask", "val_mask", "test_mask")  # PyG's names, in the order of SPLITS


def to_hetero(graph: RecGraph) -> HeteroData:
    """Turn a graph into HeteroData, ready for ``to_hetero``, ``HGTConv`` and PyG's loaders.

    Node types are ``user``, ``item`` and ``entity``, the last for the entities that are not items (left out when there
    are none): node ``i`` of type ``item`` is entity ``i``, node ``j`` of type ``entity`` is entity ``num_items + j``.
    Interactions are the edge type ``("user", "interacts", "item")``; triples get one edge type for each relation and
    pair of node types that occurs, such as ``("item", "director", "entity")``. Edges have one direction, as in the
    graph: use ``torch_geometric.transforms.ToUndirected`` for both, *after* which :func:`from_hetero` refuses.

    In the stores of nodes: ``node_id`` (the place in the lists of ids), ``vector_NAME`` float32 ``[num_nodes, dim]``
    and ``has_NAME`` bool ``[num_nodes]`` for each feature; an item's rows of an *entity* feature are
    ``entity_vector_NAME`` and ``entity_has_NAME``. In the stores of edges: ``time`` float64, ``weight`` float32,
    ``train_mask``, ``val_mask``, ``test_mask`` bool; for triples ``triple_id`` (the place among the triples) and
    ``relation_id`` (the original id; the edge type has a short form of it that may name a module).
    On the data itself, where PyG's subgraphs and loaders leave them alone: ``user_ids``, ``item_ids``, ``entity_ids``,
    ``relation_ids`` (object arrays of str: PyG would walk through a list at every ``batch.to(device)``), ``user_text``,
    ``item_text``, ``entity_text`` (such arrays by feature name; those of entities have the items first), ``name`` and
    ``dropped``.

    Args:
        graph: Any graph.

    Returns:
        Data on the CPU. Its tensors may share memory with the graph: clone before writing into them.

    Example:
        >>> from kg_loaders.synthetic import planted
        >>> data = to_hetero(planted())
        >>> data.num_nodes, data.node_types
        (211, ['user', 'item', 'entity'])
        >>> data.edge_types
        [('user', 'interacts', 'item'), ('item', 'genre', 'entity'), ('item', 'studio', 'entity')]
        >>> from_hetero(data) == planted()
        True
    """
    data = HeteroData()
    data.name, data.dropped = graph.name, dict(graph.dropped)
    data.user_ids, data.relation_ids = _as_array(graph.users), _as_array(graph.relations)
    data.item_ids, data.entity_ids = np.split(_as_array(graph.entities), [graph.num_items])
    num_items, num_others = graph.num_items, graph.num_entities - graph.num_items
    for kind, size in zip(KINDS, (graph.num_users, num_items, num_others), strict=True):
        if size or kind != "entity":
            data[kind].num_nodes = size
            data[kind].node_id = torch.arange(size)
    others = [data["entity"]] if num_others else []
    data.user_text = _put_features(graph.user_features, [data["user"]], [""])
    data.item_text = _put_features(graph.item_features, [data["item"]], [""])
    data.entity_text = _put_features(graph.entity_features, [data["item"], *others], ["entity_", ""])
    _put_interactions(graph.interactions, data[INTERACTS])
    _put_triples(graph, data)
    return data


def from_hetero(data: HeteroData) -> RecGraph:
    """Turn what :func:`to_hetero` made, or a subgraph of it, back into a graph.

    Raises:
        GraphError: The data was not made by :func:`to_hetero`, or has edge types that a RecGraph cannot hold.
    """
    for kind in ("user", "item"):
        if kind not in data.node_types or "node_id" not in data[kind]:
            raise GraphError(f"data[{kind!r}].node_id is missing; from_hetero reads what to_hetero made")
    for name in ("user_ids", "item_ids", "entity_ids", "relation_ids", "user_text", "item_text", "entity_text"):
        if name not in data:
            raise GraphError(f"data.{name} is missing; from_hetero reads what to_hetero made")
    user, item = data["user"].node_id.numpy(), data["item"].node_id.numpy()
    entity = data["entity"].node_id.numpy() if "entity" in data.node_types else np.empty(0, dtype=np.int64)
    others = [data["entity"]] if len(entity) else []
    # Arrays of entity text have the items first, the other entities behind all of them.
    entity_rows = np.concatenate([item, len(data.item_ids) + entity])
    return RecGraph(
        users=Vocabulary(data.user_ids[user], "user"),
        entities=Vocabulary([*data.item_ids[item], *data.entity_ids[entity]], "entity"),
        num_items=len(item),
        interactions=_take_interactions(data),
        relations=Vocabulary(data.relation_ids, "relation"),
        triples=_take_triples(data, len(item)),
        user_features=_take_features(data.user_text, user, [data["user"]], [""]),
        item_features=_take_features(data.item_text, item, [data["item"]], [""]),
        entity_features=_take_features(data.entity_text, entity_rows, [data["item"], *others], ["entity_", ""]),
        name=data.name,
        dropped=dict(data.dropped),
    )


def _as_array(ids: Vocabulary) -> NDArray[Any]:
    return np.asarray(ids.ids, dtype=object)


def _put_features(features: Features, stores: Sequence[Any], prefixes: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Put masks and vectors into ``stores``, which share the rows in this order, and return the text."""
    text = {}
    for name, feature in features.items():
        start = 0
        for store, prefix in zip(stores, prefixes, strict=False):
            end = start + store.num_nodes
            store[f"{prefix}has_{name}"] = torch.from_numpy(feature.present[start:end])
            if not feature.is_text:
                store[f"{prefix}vector_{name}"] = torch.from_numpy(feature.values[start:end])
            start = end
        if feature.is_text:
            text[name] = feature.values
    return text


def _take_features(
    text: Mapping[str, NDArray[Any]], rows: NDArray[np.int64], stores: Sequence[Any], prefixes: Sequence[str]
) -> dict[str, Feature]:
    """Put back together what :func:`_put_features` spread."""
    features = {}
    start = f"{prefixes[0]}has_"
    for key in [key for key in stores[0].keys() if key.startswith(start)]:  # noqa: SIM118
        name = key.removeprefix(start)
        pairs = list(zip(stores, prefixes, strict=False))
        if name in text:
            values = text[name][rows]
        elif f"{prefixes[0]}vector_{name}" in stores[0]:
            values = np.concatenate([store[f"{prefix}vector_{name}"].numpy() for store, prefix in pairs])
        else:
            continue  # an attribute of the caller's own
        present = np.concatenate([store[f"{prefix}has_{name}"].numpy() for store, prefix in pairs])
        features[name] = Feature(values, present)
    return features


def _put_interactions(interactions: Interactions, store: Any) -> None:
    store.edge_index = torch.from_numpy(np.stack([interactions.user, interactions.item]))
    if interactions.time is not None:
        store.time = torch.from_numpy(interactions.time)
    if interactions.weight is not None:
        store.weight = torch.from_numpy(interactions.weight)
    if interactions.split is not None:
        for code, mask in enumerate(MASKS):
            store[mask] = torch.from_numpy(interactions.split == code)


def _take_interactions(data: HeteroData) -> Interactions:
    if INTERACTS not in data.edge_types:
        raise GraphError(f"data has no edge type {INTERACTS}; from_hetero reads what to_hetero made")
    store = data[INTERACTS]
    split = None
    if MASKS[0] in store:
        masks = np.stack([store[mask].numpy() for mask in MASKS])
        if (masks.sum(axis=0) != 1).any():
            edge = int(np.argmax(masks.sum(axis=0) != 1))
            raise GraphError(f"each interaction needs exactly one of {', '.join(MASKS)}; edge {edge} has not")
        split = masks.argmax(axis=0).astype(np.int8)
    user, item = store.edge_index.numpy()
    # A loader may have mixed the users; for what to_hetero made this changes nothing.
    return Interactions(
        user,
        item,
        store.time.numpy() if "time" in store else None,
        store.weight.numpy() if "weight" in store else None,
        split,
    )[np.argsort(user, kind="stable")]


def _put_triples(graph: RecGraph, data: HeteroData) -> None:
    head, relation, tail = graph.triples.T
    head_is_item, tail_is_item = head < graph.num_items, tail < graph.num_items
    # One number for each (relation, kind of head, kind of tail); a stable sort keeps the order within each.
    keys = relation * 4 + (1 - head_is_item) * 2 + (1 - tail_is_item)
    order = np.argsort(keys, kind="stable")
    found, starts = np.unique(keys[order], return_index=True)
    names = edge_names(graph.relations)
    for key, start, end in zip(found.tolist(), starts, [*starts[1:], len(order)], strict=False):
        rows = order[start:end]
        source, target = ("entity" if key & 2 else "item"), ("entity" if key & 1 else "item")
        store = data[source, names[key // 4], target]
        store.edge_index = torch.from_numpy(
            np.stack(
                [
                    head[rows] - (graph.num_items if source == "entity" else 0),
                    tail[rows] - (graph.num_items if target == "entity" else 0),
                ]
            )
        )
        store.triple_id = torch.from_numpy(rows)
        store.relation_id = graph.relations.id_of(key // 4)


def _take_triples(data: HeteroData, num_items: int) -> NDArray[np.int64]:
    index = {id_: relation for relation, id_ in enumerate(data.relation_ids)}
    parts, places = [np.empty((0, 3), dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for edge_type in data.edge_types:
        if edge_type == INTERACTS:
            continue
        source, _, target = edge_type
        store = data[edge_type]
        if "relation_id" not in store or "triple_id" not in store or "user" in (source, target):
            raise GraphError(
                f"edge type {edge_type} was not made by to_hetero; if ToUndirected added it, convert before that"
            )
        head, tail = store.edge_index.numpy()
        head = head + (num_items if source == "entity" else 0)
        tail = tail + (num_items if target == "entity" else 0)
        parts.append(np.column_stack([head, np.full(len(head), index[store.relation_id]), tail]))
        places.append(store.triple_id.numpy())
    return np.ascontiguousarray(np.concatenate(parts)[np.argsort(np.concatenate(places), kind="stable")])


def edge_names(relations: Vocabulary) -> list[str]:
    """Return a distinct short name for each relation, of letters, digits and ``_``, so that it may name a module.

    The name is what follows the last ``/`` or ``#`` of a URI, or else the id; what it may not hold becomes ``_``.

    Example:
        >>> edge_names(Vocabulary(["http://dbpedia.org/ontology/starring", "film.genre", "film-genre"], "relation"))
        ['starring', 'film_genre', 'film_genre_2']
    """
    names: list[str] = []
    taken: set[str] = set()
    for id_ in relations:
        local = re.split(r"[/#]", id_.rstrip("/#"))[-1] if "://" in id_ else id_
        # Single underscores: PyG joins the parts of an edge type with two.
        short = re.sub(r"[\W_]+", "_", local, flags=re.ASCII).strip("_") or "relation"
        name, number = short, 1
        while name in taken:
            number += 1
            name = f"{short}_{number}"
        taken.add(name)
        names.append(name)
    return names
