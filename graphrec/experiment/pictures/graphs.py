"""Pictures of graphs: the schema, the neighbourhood of an item, and the paths behind a recommendation."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphrec.errors import ArgumentError, check_range
from graphrec.experiment.pictures.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SMALL,
    TEXT,
    About,
    new_axes,
    plain,
    set_title,
)
from kg_loaders import RecGraph

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"user": GREEN, "item": BLUE, "entity": ORANGE}
GRAPH_WIDTH = 7.6  # inches: columns of names need more room than curves
LABEL, LINES = 17, 3  # characters a line and lines of a node's label
ROW = 0.78  # inches a node
MIN_LINE, MAX_LINE = 1.0, 5.0  # points


class KgPath(Protocol):
    """What is drawn of a path: the fields of :class:`graphrec.serving.explain.Path`."""

    @property
    def past_title(self) -> str:
        """Title of the past item."""

    @property
    def past_relation(self) -> str:
        """What the entity is to the past item."""

    @property
    def entity_id(self) -> str:
        """The entity's id."""

    @property
    def entity(self) -> str:
        """Its name; empty where it has none."""

    @property
    def relation(self) -> str:
        """What the entity is to the recommended item."""

    @property
    def attention(self) -> float:
        """Product of the attentions along the path."""


@dataclass(frozen=True)
class _Node:
    label: str
    kind: str  # of COLOURS
    strong: bool = False


@dataclass(frozen=True)
class _Edge:
    column: int  # of its left end; the right end is one column on
    left: int  # the rows of its ends
    right: int
    label: str = ""
    weight: float = 0.0  # 0..1


def graph_schema(graph: RecGraph, about: About | None = None, most: int = 8, ax: Axes | None = None) -> Axes:
    r"""Draw the node types of a graph and its relations, with their counts.

    An arrow points from heads to tails; it has two heads where the triples of a relation lead from items to entities
    and from entities to items. The thicker a line, the more triples.

    Args:
        graph: The graph.
        about: Where it comes from; the graph's own name when not given.
        most: So many relations, those with most triples; the others are counted in one line.
        ax: Where to draw; a new figure when not given.

    Example:
        >>> import matplotlib
        >>> matplotlib.use("agg")
        >>> from kg_loaders.synthetic import planted
        >>> ax = graph_schema(planted())
        >>> [text.get_text() for text in ax.texts][:3]
        ['user\n120', 'item\n80', 'entity\n11']
    """
    check_range("most", most, 1)
    head, relation, tail = graph.triples.T
    item = graph.num_items
    counts = np.bincount(relation, minlength=graph.num_relations)
    order = np.argsort(-counts, kind="stable")
    rows: list[tuple[str, int, str]] = []
    for r in order[:most].tolist():
        if counts[r]:
            at = relation == r
            rows.append((_words(graph.relations.id_of(r)), int(counts[r]), _ends(head[at] < item, tail[at] < item)))
    rest = [r for r in order[most:].tolist() if counts[r]]
    if rest:
        rows.append((f"{len(rest)} more relations", int(counts[rest].sum()), ""))

    ax = new_axes(ax, 1.6 + 0.42 * max(len(rows), 3), GRAPH_WIDTH)
    height = float(max(len(rows), 3))
    boxes = [("user", graph.num_users, 0.0, 1.5), ("item", item, 3.7, 1.5)]
    if graph.num_entities > item or rows:
        boxes.append(("entity", graph.num_entities - item, 9.2, 1.7))
    for kind, count, left, width in boxes:
        _box(ax, left, width, height, kind)
        ax.text(left + width / 2, height / 2, f"{kind}\n{count:,}", ha="center", va="center", fontsize=TEXT + 1)
    _arrow(ax, 1.5, 3.7, height / 2, "->", MAX_LINE / 2, GREY)
    _over(ax, 2.6, height / 2, f"interacts\n{graph.num_interactions:,}")
    largest = max((count for _, count, _ in rows), default=1)
    for place, (name, count, ends) in enumerate(rows):
        y = height * (place + 0.5) / len(rows)
        # A line as thick as its share; the least of them can still be seen.
        width = MIN_LINE + (MAX_LINE - MIN_LINE) * min(count / largest, 1.0)
        style = {"item-entity": "->", "entity-item": "<-", "both": "<->"}.get(ends, "-")
        _arrow(ax, 5.2, 9.2, y, style, width, GREY)
        within = {"item-item": ", item to item", "entity-entity": ", entity to entity"}.get(ends, "")
        _over(ax, 7.2, y, textwrap.shorten(f"{name}{within}", 36, placeholder=" …") + f"  {count:,}")
    ax.set_xlim(-0.1, 11.0)
    ax.set_ylim(height + 0.1, -0.1)
    ax.axis("off")
    set_title(ax, "The graph: node types and relations", about or About(graph.name))
    return ax


def neighbourhood(
    graph: RecGraph,
    item: int,
    about: About,
    attention: Mapping[int, float] | None = None,
    names: Mapping[int, str] | None = None,
    most: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Draw an item between the users who took it and the entities of the KG, and what other items these lead to.

    Args:
        graph: The graph.
        item: Index of the item.
        about: Where it comes from.
        attention: By entity index, what a model attends to; the most attended are drawn, with thicker lines. When not
            given, the entities that lead to the fewest other items (but at least one) are drawn: they tell most.
        names: By entity index, names to show; an entity without one is shown by its label in the graph, or its id.
        most: At most so many entities and users.
        ax: Where to draw; a new figure when not given.

    Raises:
        ArgumentError: An item outside the graph, or ``most`` below 1.
    """
    check_range("most", most, 1)
    if not 0 <= item < graph.num_items:
        raise ArgumentError(f"item must be within 0..{graph.num_items - 1}, got {item}")
    head, _, tail = graph.triples.T
    near = {int(t): _words(graph.relations.id_of(int(r))) for _, r, t in graph.triples[head == item]}
    for h, r, _ in graph.triples[tail == item]:
        near.setdefault(int(h), _words(graph.relations.id_of(int(r))))  # its own relation says it better
    near.pop(item, None)
    others = {entity: _items_of(graph, entity, item) for entity in near}
    if attention is None:
        telling = sorted((e for e in near if others[e]), key=lambda e: (len(others[e]), e))
    else:
        telling = sorted((e for e in near if e in attention), key=lambda e: (-attention[e], e))
    shown = telling[:most]
    takers = graph.interactions.user[graph.interactions.item == item]
    users = [_Node(f"user {graph.users.id_of(int(user))}", "user") for user in takers[:most]]
    if len(takers) > len(users):
        users[-1] = _Node(f"and {len(takers) - most + 1:,} more users", "user")

    edges = [_Edge(0, row, 0) for row in range(len(users))]
    largest = max((attention[entity] for entity in shown), default=1.0) if attention else 1.0
    popularity = np.bincount(graph.interactions.item, minlength=graph.num_items)
    entities: list[_Node] = []
    last: list[_Node] = []
    for row, entity in enumerate(shown):
        edges.append(_Edge(1, 0, row, weight=attention[entity] / (largest or 1.0) if attention else 0.0))
        name = (names or {}).get(entity) or _local_name(graph.entity_labels[entity]).replace("_", " ")
        entities.append(_Node(f"{near[entity]}: {name}", "item" if entity < graph.num_items else "entity"))
        if others[entity]:  # one for all: the best known
            best = max(others[entity], key=lambda other: (popularity[other], -other))
            more = f" and {len(others[entity]) - 1:,} more" if len(others[entity]) > 1 else ""
            edges.append(_Edge(2, row, len(last)))
            last.append(_Node(graph.item_labels[best] + more, "item"))
    columns = [users, [_Node(graph.item_labels[item], "item", strong=True)], entities, last]
    heads = [f"{len(takers):,} users", "the item", f"{len(shown)} of {len(near):,} neighbours", "other items"]
    ax = _draw_columns(ax, columns, edges, heads)
    heading = f"The neighbourhood of {graph.item_labels[item]}"
    set_title(ax, heading + (": the most attended" if attention is not None else ""), about)
    return ax


def kg_paths(item: str, paths: Sequence[KgPath], about: About, ax: Axes | None = None) -> Axes:
    """Draw the paths through the KG that lead from past items to a recommended one; a thicker line has more attention.

    Args:
        item: Title of the recommended item.
        paths: Of an explanation, :attr:`graphrec.serving.explain.Explanation.paths`.
        about: Where the numbers come from.
        ax: Where to draw; a new figure when not given.

    Raises:
        ArgumentError: There are no paths.
    """
    if not paths:
        raise ArgumentError(f"paths must hold at least one path to {item!r}, got none; the model may read no KG")
    past = list(dict.fromkeys(path.past_title for path in paths))
    largest = max(path.attention for path in paths) or 1.0
    edges = []
    for row, path in enumerate(paths):
        weight = path.attention / largest
        edges.append(_Edge(0, past.index(path.past_title), row, path.past_relation, weight))
        edges.append(_Edge(1, row, 0, path.relation if path.relation != path.past_relation else "", weight))
    middle = [_Node(path.entity or f"({path.relation or 'entity'} {path.entity_id})", "entity") for path in paths]
    columns = [[_Node(title, "item") for title in past], middle, [_Node(item, "item", strong=True)]]
    ax = _draw_columns(ax, columns, edges, ["taken before", "knowledge graph", "recommended"])
    set_title(ax, f"How the knowledge graph leads to {item}", about)
    return ax


def _draw_columns(
    ax: Axes | None, columns: Sequence[Sequence[_Node]], edges: Iterable[_Edge], heads: Sequence[str]
) -> Axes:
    """Draw nodes in columns, the edges below them, and the heads above."""
    rows = max(len(column) for column in columns)
    ax = new_axes(ax, 1.5 + ROW * rows, GRAPH_WIDTH)
    places = [
        [(float(at), rows * (row + 0.5) / len(nodes)) for row in range(len(nodes))] for at, nodes in enumerate(columns)
    ]
    for edge in edges:
        (x1, y1), (x2, y2) = places[edge.column][edge.left], places[edge.column + 1][edge.right]
        width = MIN_LINE + (MAX_LINE - MIN_LINE) * edge.weight
        ax.plot([x1, x2], [y1, y2], color=GREY, linewidth=width, alpha=0.55, zorder=1, solid_capstyle="butt")
        if edge.label:
            _over(ax, (x1 + x2) / 2, (y1 + y2) / 2, textwrap.fill(edge.label, 12), SMALL - 1)
    for nodes, spots in zip(columns, places, strict=True):
        for node, (x, y) in zip(nodes, spots, strict=True):
            _label(ax, x, y, node)
    for at, head in enumerate(heads):
        ax.text(at, -0.12, plain(head), ha="center", va="bottom", fontsize=SMALL, color=GREY)
    ax.set_xlim(-0.47, len(columns) - 0.53)
    ax.set_ylim(rows + 0.05, -0.35)
    ax.axis("off")
    return ax


def _label(ax: Axes, x: float, y: float, node: _Node) -> None:
    lines = textwrap.wrap(node.label, LABEL) or [" "]
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], textwrap.shorten(" ".join(lines[LINES - 1 :]), LABEL, placeholder=" …")]
    box = {
        "boxstyle": "round,pad=0.3",
        "facecolor": _tint(COLOURS[node.kind]),
        "edgecolor": COLOURS[node.kind],
        "linewidth": 2.5 if node.strong else 1.2,
    }
    weight = "bold" if node.strong else "normal"
    text = plain("\n".join(lines))
    ax.text(x, y, text, ha="center", va="center", fontsize=SMALL, fontweight=weight, color=BLACK, bbox=box, zorder=3)


def _box(ax: Axes, left: float, width: float, height: float, kind: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.25", "linewidth": 2, "edgecolor": COLOURS[kind]}
    ax.add_patch(FancyBboxPatch((left, 0), width, height, facecolor=_tint(COLOURS[kind]), **style))


def _arrow(ax: Axes, left: float, right: float, y: float, style: str, width: float, colour: str) -> None:
    head = {"arrowstyle": style, "linewidth": width, "color": colour, "shrinkA": 0, "shrinkB": 0, "alpha": 0.6}
    ax.annotate("", (right, y), xytext=(left, y), arrowprops=head, zorder=1)  # below what is written on it


def _over(ax: Axes, x: float, y: float, text: str, size: float = SMALL) -> None:
    """Write on a line, on a white ground."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.9}
    ax.text(x, y, plain(text), ha="center", va="center", fontsize=size, bbox=ground, zorder=2)


def _tint(colour: str, share: float = 0.18) -> tuple[float, float, float]:
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _ends(head_is_item: NDArray[np.bool_], tail_is_item: NDArray[np.bool_]) -> str:
    """Say between which types of nodes the triples of a relation lead; "both" where they lead both ways."""
    ends = zip(head_is_item.tolist(), tail_is_item.tolist(), strict=True)
    kinds = {f"{'item' if h else 'entity'}-{'item' if t else 'entity'}" for h, t in ends}
    if len(kinds) == 1:
        return kinds.pop()
    one_way = kinds - {"item-item", "entity-entity"}
    return one_way.pop() if len(one_way) == 1 else "both"


def _items_of(graph: RecGraph, entity: int, item: int) -> list[int]:
    head, _, tail = graph.triples.T
    linked = np.unique(np.concatenate([tail[head == entity], head[tail == entity]]))
    return [int(other) for other in linked if other < graph.num_items and other != item]


def _words(relation_id: str) -> str:
    """Return the last part of a relation's id in words: "film.film.directed_by" becomes "directed by"."""
    last = _local_name(relation_id) if "://" in relation_id else relation_id.split(".")[-1]
    return " ".join(re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+", " ", last).split()).lower() or relation_id


def _local_name(id_: str) -> str:
    """Return the last part of an IRI; any other id as it is."""
    return re.split(r"[/#]", id_.rstrip("/#"))[-1] if "://" in id_ else id_
