"""networkx: a RecGraph as MultiDiGraph and back without loss, in memory and as a JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from kg_loaders.errors import FormatError, GraphError
from kg_loaders.graph import SPLITS, Feature, Features, Interactions, RecGraph
from kg_loaders.textio import decode, read_bytes, unread_files
from kg_loaders.vocabulary import Vocabulary

if TYPE_CHECKING:
    import networkx as nx

    Graph = nx.MultiDiGraph[Any]

SUFFIXES = (".nx.json", ".nx.json.gz")
KINDS = ("user", "item", "entity")
NAMES: dict[str, Any] = {"edges": "edges", "name": "node"}  # the JSON's; "id" is an attribute of ours
INTERACTS = "interacts"  # the key of an interaction's edge


def detect(path: Path) -> bool:
    """Whether ``path`` is a file ``*.nx.json`` (or its gzipped form), or a folder that holds exactly one."""
    return len(_files(path)) == 1


def read(path: Path) -> RecGraph:
    """Read a file that :func:`write` wrote: networkx' node-link JSON, plain or gzipped.

    Raises:
        FormatError: The file is missing, not JSON, or not a graph that :func:`from_networkx` understands.
    """
    import networkx as nx

    path = Path(path)
    found = _files(path) if path.is_dir() else [path]
    if len(found) != 1:
        raise FormatError(path, None, f"expected one file *{SUFFIXES[0]} in the folder, found {len(found)}")
    text = decode(found[0], read_bytes(found[0]))
    try:
        content: Any = nx.node_link_graph(json.loads(text), **NAMES)
        graph = from_networkx(content)
    except json.JSONDecodeError as error:
        raise FormatError(found[0], error.lineno, f"not JSON: {error.msg}") from None
    except GraphError as error:
        raise FormatError(found[0], None, str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # JSON of another shape fails wherever its shape is first relied on.
        raise FormatError(found[0], None, f"not a graph in networkx' node-link JSON: {error!r}") from None
    return replace(graph, dropped={**graph.dropped, **unread_files(path, found)}) if path.is_dir() else graph


def write(graph: RecGraph, path: Path) -> None:
    """Write the graph as node-link JSON, one node or edge a line; into a folder as ``graph.nx.json``."""
    import networkx as nx

    path = Path(path)
    if not path.name.endswith(SUFFIXES[0]):
        path.mkdir(parents=True, exist_ok=True)
        path = path / f"graph{SUFFIXES[0]}"
    data = nx.node_link_data(to_networkx(graph), **NAMES)
    rows = {key: ",\n".join(map(json.dumps, data.pop(key))) for key in ("nodes", "edges")}
    head = json.dumps(data)[1:-1]
    text = f'{{{head},\n"nodes": [\n{rows["nodes"]}\n],\n"edges": [\n{rows["edges"]}\n]}}\n'
    path.write_text(text, encoding="ascii", newline="\n")  # json escapes everything else


def to_networkx(graph: RecGraph) -> Graph:
    """Turn a graph into a MultiDiGraph.

    Nodes are ``(kind, id)`` with kind ``"user"``, ``"item"`` or ``"entity"`` (an entity that is no item). Their
    attributes are ``kind``, ``id``, ``features`` (a dict of str and of lists of float; what is missing is not in it),
    for items also ``entity_features``, and ``masked`` for the values that stand in missing rows, if any. An interaction
    is an edge from user to item with the key ``"interacts"`` and, where known, ``time``, ``weight`` and ``split``
    (``"train"``, ``"valid"``, ``"test"``). A triple is an edge from head to tail; its key is the id of the relation.
    Nodes and edges also have their place as ``row``, for networkx' subgraphs come in no order. The graph's own
    attributes hold ``name``, ``dropped``, ``relations``, and the width of every feature (``None`` for text) as
    ``features``.

    Example:
        >>> from kg_loaders.synthetic import planted
        >>> films = to_networkx(planted())
        >>> films.nodes["item", "item-03"]["features"], list(films["item", "item-03"])
        ({'title': 'Item 3'}, [('entity', 'genre-3'), ('entity', 'studio-5')])
        >>> from_networkx(films) == planted()
        True
    """
    import networkx as nx

    result: Graph = nx.MultiDiGraph(
        name=graph.name,
        dropped=dict(graph.dropped),
        relations=list(graph.relations),
        features={
            kind: {name: None if feature.is_text else feature.values.shape[1] for name, feature in features.items()}
            for kind, features in zip(
                KINDS, (graph.user_features, graph.item_features, graph.entity_features), strict=True
            )
        },
    )
    num_items = graph.num_items
    kinds = ["item"] * num_items + ["entity"] * (graph.num_entities - num_items)
    users, entities = [("user", id_) for id_ in graph.users], list(zip(kinds, graph.entities, strict=True))
    for nodes in (users, entities):
        for row, node in enumerate(nodes):
            result.add_node(node, kind=node[0], id=node[1], row=row, features={})
    for node in entities[:num_items]:
        result.nodes[node]["entity_features"] = {}
    _put_features(result, users, graph.user_features, lambda _: "features")
    _put_features(result, entities[:num_items], graph.item_features, lambda _: "features")
    _put_features(
        result, entities, graph.entity_features, lambda row: "entity_features" if row < num_items else "features"
    )
    given = graph.interactions
    columns = {
        "time": None if given.time is None else given.time.tolist(),
        "weight": None if given.weight is None else given.weight.tolist(),
        "split": None if given.split is None else [SPLITS[code] for code in given.split],
    }
    known = {name: column for name, column in columns.items() if column is not None}
    for row, (user, item) in enumerate(zip(given.user.tolist(), given.item.tolist(), strict=True)):
        attributes = {name: column[row] for name, column in known.items()}
        result.add_edge(users[user], entities[item], key=INTERACTS, row=row, **attributes)
    for row, (head, relation, tail) in enumerate(graph.triples.tolist()):
        result.add_edge(entities[head], entities[tail], key=graph.relations.id_of(relation), row=row)
    return result


def from_networkx(graph: Graph) -> RecGraph:
    """Turn a MultiDiGraph into a graph: what :func:`to_networkx` made, a part of it, or one made by hand.

    By hand, a node needs the attribute ``kind`` only: its id is the attribute ``id``, else the node itself as text.
    Edges from users are interactions, all others triples. What has no ``row`` comes after what has one, in the graph's
    own order; relations that the graph's attribute ``relations`` does not list come after it, as they appear.

    Raises:
        GraphError: The graph does not hold a RecGraph; the message names the node or edge at fault.
    """
    if not (graph.is_directed() and graph.is_multigraph()):
        raise GraphError(f"graph must be a networkx.MultiDiGraph, got {type(graph).__name__}")
    nodes: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for node, attributes in graph.nodes(data=True):
        kind = attributes.get("kind")
        if kind not in KINDS:
            raise GraphError(f"node {node!r}: kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        nodes[kind].append(node)
    for kind in KINDS:
        nodes[kind].sort(key=lambda node: _row(graph.nodes[node]))
    entities = nodes["item"] + nodes["entity"]
    own, by_item = (lambda _: "features"), (lambda row: "entity_features" if row < len(nodes["item"]) else "features")
    relations, triples = _take_triples(graph, {node: index for index, node in enumerate(entities)})
    return RecGraph(
        users=Vocabulary(_ids(graph, nodes["user"]), "user"),
        entities=Vocabulary(_ids(graph, entities), "entity"),
        num_items=len(nodes["item"]),
        interactions=_take_interactions(graph, nodes["user"], nodes["item"]),
        relations=relations,
        triples=triples,
        user_features=_take_features(graph, "user", nodes["user"], own),
        item_features=_take_features(graph, "item", nodes["item"], own),
        entity_features=_take_features(graph, "entity", entities, by_item),
        name=str(graph.graph.get("name", "unnamed")),
        dropped=dict(graph.graph.get("dropped", {})),
    )


def _files(path: Path) -> list[Path]:
    found = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    return [file for file in found if file.name.endswith(SUFFIXES)]


def _row(attributes: Mapping[str, Any]) -> float:
    return float(attributes.get("row", np.inf))


def _ids(graph: Graph, nodes: Iterable[Any]) -> list[str]:
    return [str(graph.nodes[node].get("id", node)) for node in nodes]


def _put_features(graph: Graph, nodes: Sequence[Any], features: Features, place: Callable[[int], str]) -> None:
    for name, feature in features.items():
        values = cast("list[Any]", feature.values.tolist())
        for row, (node, value, present) in enumerate(zip(nodes, values, feature.present.tolist(), strict=True)):
            if present:
                graph.nodes[node][place(row)][name] = value
            elif value if feature.is_text else any(value):
                graph.nodes[node].setdefault("masked", {}).setdefault(place(row), {})[name] = value


def _take_features(graph: Graph, kind: str, nodes: Sequence[Any], place: Callable[[int], str]) -> dict[str, Feature]:
    known: list[dict[str, Any]] = [graph.nodes[node].get(place(row), {}) for row, node in enumerate(nodes)]
    masked = [graph.nodes[node].get("masked", {}).get(place(row), {}) for row, node in enumerate(nodes)]
    widths: dict[str, int | None] = dict(graph.graph.get("features", {}).get(kind, {}))
    for attributes in known:
        for name, value in attributes.items():
            widths.setdefault(name, None if isinstance(value, str) else np.size(value))
    features = {}
    for name, width in widths.items():
        missing: Any = "" if width is None else [0.0] * width
        present = np.asarray([name in attributes for attributes in known], dtype=np.bool_)
        values = [own.get(name, other.get(name, missing)) for own, other in zip(known, masked, strict=True)]
        for node, value in zip(nodes, values, strict=True):
            _check_value(kind, name, node, value, width)
        array: NDArray[Any] = (
            np.empty(len(nodes), dtype=object) if width is None else np.empty((len(nodes), width), dtype=np.float32)
        )
        with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, which Feature refuses
            for row, value in enumerate(values):
                array[row] = value
        features[name] = Feature(array, present)
    return features


def _check_value(kind: str, name: str, node: Any, value: Any, width: int | None) -> None:
    if width is None:
        is_right = isinstance(value, str)
    else:
        try:
            is_right = np.asarray(value, dtype=np.float64).shape == (width,)
        except (TypeError, ValueError, OverflowError):
            is_right = False
    if not is_right:
        allowed = "text" if width is None else f"{width} numbers"
        raise GraphError(f"{kind} feature {name!r} must be {allowed}, got {value!r} at node {node!r}")


def _take_interactions(graph: Graph, users: Sequence[Any], items: Sequence[Any]) -> Interactions:
    user_of, item_of = ({node: index for index, node in enumerate(nodes)} for nodes in (users, items))
    edges = sorted(graph.edges(users, data=True), key=lambda edge: (user_of[edge[0]], _row(edge[2])))
    for user, item, _ in edges:
        if item not in item_of:
            raise GraphError(f"edge {user!r} -> {item!r}: an edge from a user must lead to an item")
    allowed = f"one of {', '.join(map(repr, SPLITS))}"
    with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite, which Interactions refuses
        return Interactions(
            np.asarray([user_of[user] for user, _, _ in edges], dtype=np.int64),
            np.asarray([item_of[item] for _, item, _ in edges], dtype=np.int64),
            _column(edges, "time", float, np.float64, "a number"),
            _column(edges, "weight", float, np.float32, "a number"),
            _column(edges, "split", SPLITS.index, np.int8, allowed),
        )


def _column(edges: list[Any], name: str, convert: Callable[[Any], Any], dtype: type, allowed: str) -> Any:
    """Return an attribute of all edges as an array, ``None`` where no edge has it."""
    if not any(name in attributes for _, _, attributes in edges):
        return None
    values = []
    for user, item, attributes in edges:
        try:
            values.append(convert(attributes[name]))
        except (KeyError, TypeError, ValueError, OverflowError):
            got = repr(attributes[name]) if name in attributes else "nothing, though other interactions have one"
            raise GraphError(f"edge {user!r} -> {item!r}: {name} must be {allowed}, got {got}") from None
    return np.asarray(values, dtype=dtype)


def _take_triples(graph: Graph, index: dict[Any, int]) -> tuple[Vocabulary, NDArray[np.int64]]:
    edges = sorted(graph.edges(index, keys=True, data=True), key=lambda edge: _row(edge[3]))
    for head, tail, _, _ in edges:
        if tail not in index:
            raise GraphError(f"edge {head!r} -> {tail!r}: an edge to a user is no triple, for users are no entities")
    relation_of = {str(id_): place for place, id_ in enumerate(graph.graph.get("relations", ()))}
    triples = [
        (index[head], relation_of.setdefault(str(key), len(relation_of)), index[tail]) for head, tail, key, _ in edges
    ]
    return Vocabulary(relation_of, "relation"), np.asarray(triples, dtype=np.int64).reshape(-1, 3)
