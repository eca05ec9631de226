"""From tables of text ids to a checked RecGraph: the last step of every reader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kg_loaders.errors import GraphError, KGLoaderError, did_you_mean
from kg_loaders.graph import LEAKS, SPLITS, Feature, Interactions, RecGraph, sort_interactions
from kg_loaders.vocabulary import OnUnknown, Vocabulary

INTERACTION_COLUMNS = ("user_id", "item_id", "time", "weight", "split")
REPEATED_PAIRS = "repeated pairs"
REPEATED_TRIPLES = "repeated triples"
LINKS_OF_UNKNOWN_ITEMS = "links of unknown items"
SECOND_LINKS = "items linked to an entity that another item has"
ENTITY_PREFIX = "entity:"  # sets an entity apart from the item that happens to have the same id


def assemble(
    *,
    name: str,
    interactions: pd.DataFrame,
    triples: pd.DataFrame | None = None,
    links: Mapping[str, str] | None = None,
    user_table: pd.DataFrame | None = None,
    item_table: pd.DataFrame | None = None,
    entity_table: pd.DataFrame | None = None,
    on_unknown: OnUnknown = "raise",
    dropped: Mapping[str, int] | None = None,
) -> RecGraph:
    """Number all ids, remove and count what is repeated, and return the graph.

    Vocabularies are in natural order (:func:`natural_order`), so the order of rows does not matter; only ties in time
    keep it. Whatever a table or a categorical column knows by name is kept, even if it occurs nowhere else.

    Args:
        name: What to call the data set.
        interactions: Columns ``user_id``, ``item_id`` and optionally ``time`` (seconds since 1970 or any clock's
            numbers, or points in time, which become seconds since 1970), ``weight`` (numbers) and ``split`` (codes
            into :data:`~kg_loaders.graph.SPLITS`). Id columns hold text, or are categorical with text categories,
            which is the fast form. Of a repeated pair the earliest split counts, then the first row.
        triples: Columns ``head_id``, ``relation_id``, ``tail_id``; ``None`` without a knowledge graph.
        links: From item id to the id that the item has in the triples. ``None``: the triples use item ids, and an
            entity whose id is an item's id is that item. With links (even none), such an entity is another thing and
            is named ``entity:ID``.
        user_table: Features, by user id in the index; a column holds text, or lists of numbers; missing cells are
            ``None``.
        item_table: The same by item id.
        entity_table: The same by entity id, as the triples use them. An item's row goes to the item.
        on_unknown: What to do with a link of an item that is not there, or to an entity that another item has: raise,
            or leave the link out and count it.
        dropped: What the reader left out before, by reason.

    Raises:
        KGLoaderError: ``on_unknown`` is neither of the two.
        GraphError: An id is missing or is not text, the interactions have a column that no one reads, the links
            contradict each other, no item occurs in the triples, or whatever :class:`~kg_loaders.graph.RecGraph`
            refuses.

    Example:
        >>> graph = assemble(
        ...     name="films",
        ...     interactions=pd.DataFrame({"user_id": ["bob", "ann", "bob"], "item_id": ["10", "9", "10"]}),
        ...     triples=pd.DataFrame({"head_id": ["m.9"], "relation_id": ["director"], "tail_id": ["m.1"]}),
        ...     links={"9": "m.9"})
        >>> graph.users.ids, graph.entities.ids, graph.num_items, dict(graph.dropped)
        (('ann', 'bob'), ('9', '10', 'm.1'), 2, {'repeated pairs': 1})
    """
    if on_unknown not in ("raise", "drop"):
        raise KGLoaderError(f"on_unknown must be one of 'raise', 'drop', got {on_unknown!r}")
    counts = dict(dropped or {})
    user, user_ids = _codes(interactions, "user_id", "interactions")
    item, item_ids = _codes(interactions, "item_id", "interactions")
    check_columns("interactions", map(str, interactions.columns), INTERACTION_COLUMNS)
    users = Vocabulary(natural_order([*user_ids, *_index_of(user_table, "user")]), "user")
    items = Vocabulary(natural_order([*item_ids, *_index_of(item_table, "item")]), "item")
    entity_ids: Iterable[str] = _index_of(entity_table, "entity")
    relations, indexed = Vocabulary((), "relation"), np.empty((0, 3), dtype=np.int64)
    if triples is not None:
        head, head_ids = _codes(triples, "head_id", "triples")
        relation, relation_ids = _codes(triples, "relation_id", "triples")
        tail, tail_ids = _codes(triples, "tail_id", "triples")
        entity_ids = dict.fromkeys([*head_ids, *tail_ids, *entity_ids])
        relations = Vocabulary(natural_order(relation_ids), "relation")
    entities, entity_index = _merge(items, entity_ids, links, on_unknown, counts)
    if triples is not None:
        columns = (
            _positions(entity_index, head_ids)[head],
            relations.indices_of(relation_ids)[relation],
            _positions(entity_index, tail_ids)[tail],
        )
        indexed = _distinct_triples(columns, counts)
        if len(indexed) and not (indexed[:, [0, 2]] < len(items)).any():
            raise GraphError(
                f"no item occurs in any of the {len(indexed)} triples; do the triples use other ids than the items "
                f"(item {items.id_of(0)!r}, entity {entities.id_of(len(items))!r})? Then give links"
                if len(items)
                else "there are triples but no items"
            )
    return RecGraph(
        users=users,
        entities=entities,
        num_items=len(items),
        interactions=_distinct_pairs(
            users.indices_of(user_ids)[user], items.indices_of(item_ids)[item], interactions, len(items), counts
        ),
        relations=relations,
        triples=indexed,
        user_features=_features(user_table, users.indices_of(_index_of(user_table, "user")), len(users), "user"),
        item_features=_features(item_table, items.indices_of(_index_of(item_table, "item")), len(items), "item"),
        entity_features=_features(
            entity_table, _positions(entity_index, _index_of(entity_table, "entity")), len(entities), "entity"
        ),
        name=name,
        dropped={reason: count for reason, count in counts.items() if count},
    )


def natural_order(ids: Iterable[str]) -> list[str]:
    """Return the distinct ids, sorted as numbers if all of them are canonical integers, else as text.

    Example:
        >>> natural_order(["10", "9", "9"]), natural_order(["10", "9", "x"])
        (['9', '10'], ['10', '9', 'x'])
    """
    distinct = list(dict.fromkeys(ids))
    return sorted(distinct, key=int) if Vocabulary(distinct).is_integer else sorted(distinct)


def check_columns(
    table: str, names: Iterable[str], allowed: Sequence[str], otherwise: str = "; rename it or take it out"
) -> None:
    """Refuse the columns that a table has no place for: to leave them out would lose, say, all times without a word.

    Args:
        table: What the table holds, in the plural.
        names: The names of its columns.
        allowed: The names that have a place.
        otherwise: What to do about a name that is like none of these.

    Raises:
        GraphError: One of the names is not allowed.

    Example:
        >>> check_columns("links", ["item_id", "entity"], ("item_id", "entity_id"))
        Traceback (most recent call last):
        kg_loaders.errors.GraphError: links have no 'entity', only item_id, entity_id; did you mean 'entity_id'?
    """
    for name in names:
        if name not in allowed:
            hint = did_you_mean(name, allowed) or otherwise
            raise GraphError(f"{table} have no {name!r}, only {', '.join(allowed)}{hint}")


def _codes(frame: pd.DataFrame, column: str, where: str) -> tuple[NDArray[np.int64], list[str]]:
    """Return a column as positions into a list of ids."""
    if column not in frame:
        raise GraphError(f"{where} must have a column {column!r}, got {list(map(str, frame.columns))}")
    values = frame[column]
    if isinstance(values.dtype, pd.CategoricalDtype):
        codes, ids = values.cat.codes.to_numpy(), values.cat.categories.tolist()
    else:
        codes, uniques = pd.factorize(values)
        ids = uniques.tolist()
    if len(codes) and codes.min() < 0:
        raise GraphError(f"{where}.{column} has no id at row {int(np.argmax(codes < 0))}")
    _check_ids(ids, f"{where}.{column}")
    return codes.astype(np.int64), ids


def _index_of(table: pd.DataFrame | None, kind: str) -> list[str]:
    """Return the ids that a table describes."""
    if table is None:
        return []
    ids: list[str] = table.index.tolist()
    _check_ids(ids, f"the index of {kind}_table")
    if not table.index.is_unique:
        raise GraphError(f"{kind} {table.index[table.index.duplicated()][0]!r} has two rows in {kind}_table")
    return ids


def _check_ids(ids: list[Any], where: str) -> None:
    if not set(map(type, ids)) <= {str} or "" in ids:
        bad = next(id_ for id_ in ids if type(id_) is not str or not id_)
        raise GraphError(f"{where} must hold ids as text, none of them empty, got {bad!r}")


def _merge(
    items: Vocabulary,
    entity_ids: Iterable[str],
    links: Mapping[str, str] | None,
    on_unknown: OnUnknown,
    counts: dict[str, int],
) -> tuple[Vocabulary, dict[str, int]]:
    """Put the items first and the unlinked entities after them; return also where each entity id has gone."""
    index: dict[str, int] = {}
    is_item = frozenset(items)
    if links is None:
        index.update(zip(items, range(len(items)), strict=True))
    else:
        unknown = [item for item in links if item not in is_item]
        if unknown and on_unknown == "raise":
            more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
            raise GraphError(f"links name an item that is not there: {unknown[0]!r}{more}")
        _count(counts, LINKS_OF_UNKNOWN_ITEMS, len(unknown))
        for position, item in enumerate(items):
            if item not in links:
                continue
            entity = links[item]
            if index.setdefault(entity, position) != position:
                if on_unknown == "raise":
                    first = items.id_of(index[entity])
                    raise GraphError(f"items {first!r} and {item!r} are both linked to entity {entity!r}")
                _count(counts, SECOND_LINKS, 1)
    unlinked = [entity for entity in entity_ids if entity not in index]
    taken = {f"{ENTITY_PREFIX}{entity}" for entity in unlinked if entity in is_item} & {*items, *unlinked}
    if taken:
        raise GraphError(f"an entity has the id of an item, and the name {min(taken)!r} for it is taken")
    names = {f"{ENTITY_PREFIX}{entity}" if entity in is_item else entity: entity for entity in unlinked}
    others = natural_order(names)
    index.update((names[name], position) for position, name in enumerate(others, len(items)))
    return Vocabulary([*items, *others], "entity"), index


def _positions(index: Mapping[str, int], ids: list[str]) -> NDArray[np.int64]:
    return np.fromiter((index[id_] for id_ in ids), dtype=np.int64, count=len(ids))


def _count(counts: dict[str, int], reason: str, number: int) -> None:
    if number:
        counts[reason] = counts.get(reason, 0) + number


def _distinct_triples(
    columns: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]], counts: dict[str, int]
) -> NDArray[np.int64]:
    """Return the triples [num_triples, 3], sorted by head, relation and tail."""
    order = np.lexsort(columns[::-1])
    triples = np.stack(columns, axis=1)[order]
    new = np.ones(len(triples), dtype=np.bool_)
    new[1:] = (triples[1:] != triples[:-1]).any(axis=1)
    _count(counts, REPEATED_TRIPLES, int((~new).sum()))
    return triples[new]


def _distinct_pairs(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    frame: pd.DataFrame,
    num_items: int,
    counts: dict[str, int],
) -> Interactions:
    weight, split = _numbers(frame, "weight"), _split_codes(frame)
    if weight is not None:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which Interactions refuses
            weight = weight.astype(np.float32)
    interactions = Interactions(user, item, _numbers(frame, "time"), weight, split)
    key = user * max(num_items, 1) + item
    if (key[1:] > key[:-1]).all():  # many files are in this order already
        return interactions if interactions.time is None else sort_interactions(interactions)
    order = np.argsort(key, kind="stable") if split is None else np.lexsort((split, key))
    key = key[order]
    is_first = np.ones(len(key), dtype=np.bool_)
    is_first[1:] = key[1:] != key[:-1]
    again = np.flatnonzero(~is_first)
    if not len(again):
        return interactions[order] if interactions.time is None else sort_interactions(interactions)
    if split is None:
        _count(counts, REPEATED_PAIRS, len(again))
    else:
        codes = split[order]
        kept = codes[np.maximum.accumulate(np.where(is_first, np.arange(len(key)), 0))][again]
        leaks = codes[again] != codes[again - 1]  # the first of its split, but an earlier split has the pair
        _count(counts, REPEATED_PAIRS, int((~leaks).sum()))
        for (later, earlier), reason in LEAKS.items():
            is_so = (codes[again] == SPLITS.index(later)) & (kept == SPLITS.index(earlier))
            _count(counts, reason, int((leaks & is_so).sum()))
    return sort_interactions(interactions[np.sort(order[is_first])])


def _numbers(frame: pd.DataFrame, name: str) -> NDArray[Any] | None:
    """Return a column as float64, NaN where a cell is missing; points in time become seconds since 1970."""
    if name not in frame:
        return None
    column = frame[name]
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert(None)  # the same moment, in UTC
    cells = column.to_numpy()
    if name == "time" and cells.dtype.kind == "M":
        return np.asarray((cells - np.datetime64(0, "s")) / np.timedelta64(1, "s"))
    if cells.dtype.kind in "mM":  # as numbers they would be ticks of whatever unit the column has
        raise GraphError(f"interactions.{name} must hold numbers, got {column.dtype}")
    try:
        return np.asarray(column.to_numpy(dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise GraphError(f"interactions.{name} must hold numbers: {error}") from None


def _split_codes(frame: pd.DataFrame) -> NDArray[np.int8] | None:
    codes = _numbers(frame, "split")
    if codes is None:
        return None
    is_code = np.isin(codes, range(len(SPLITS)))  # before the cast, which would make train of NaN and of 256
    if not is_code.all():
        row = int(np.argmin(is_code))
        raise GraphError(
            f"interactions.split holds codes outside 0..{len(SPLITS) - 1} ({', '.join(SPLITS)}): "
            f"{codes[row]:g} at row {row}"
        )
    return codes.astype(np.int8)


def _features(table: pd.DataFrame | None, rows: NDArray[np.int64], size: int, kind: str) -> dict[str, Feature]:
    """Spread the columns of a table over all nodes of its kind."""
    if table is None:
        return {}
    return {
        str(column): _feature(table[column], rows, size, f"{kind} feature {str(column)!r}") for column in table.columns
    }


def _feature(column: pd.Series[Any], rows: NDArray[np.int64], size: int, what: str) -> Feature:
    cells = column.to_numpy(dtype=object)
    if set(map(type, cells)) == {str}:
        known = np.ones(len(cells), dtype=np.bool_)
    else:
        known = np.asarray([isinstance(cell, str | list | tuple | np.ndarray) for cell in cells], dtype=np.bool_)
    wrong = ~known & ~pd.isna(column).to_numpy()
    if wrong.any():
        raise GraphError(f"{what} must hold text or lists of numbers, got {cells[int(np.argmax(wrong))]!r}")
    if not known.any() or isinstance(cells[known][0], str):
        texts = np.full(size, "", dtype=object)
        texts[rows[known]] = cells[known]
        return Feature.text(texts)
    try:
        with np.errstate(over="ignore"):
            given = np.asarray(cells[known].tolist(), dtype=np.float32)
    except (TypeError, ValueError):
        raise GraphError(f"{what} must hold lists of numbers, all of one length") from None
    if given.ndim != 2:
        raise GraphError(f"{what} must hold lists of numbers, all of one length")
    vectors = np.zeros((size, given.shape[1]), dtype=np.float32)
    vectors[rows[known]] = given
    present = np.zeros(size, dtype=np.bool_)
    present[rows[known]] = True
    if not np.isfinite(given).all():
        row = int(np.argmax(~np.isfinite(given).all(axis=1)))
        raise GraphError(f"{what} holds NaN or infinity for {column.index[known][row]!r}")
    return Feature(vectors, present)
