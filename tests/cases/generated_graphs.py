"""Hypothesis strategies: small graphs that a format can hold, and malformed files that no reader may choke on."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kg_loaders import Feature, FormatError, Interactions, RecGraph, Vocabulary
from kg_loaders.assemble import natural_order

SETTINGS = settings(deadline=None, suppress_health_check=list(HealthCheck))

ODD_TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
ODD_ID = ODD_TEXT.map(str.strip).filter(bool)
NUMBER_ID = st.integers(0, 40).map(str)
FLOATS = st.floats(-1e6, 1e6, width=32)


@st.composite
def graphs(
    draw: st.DrawFn,
    *,
    ids: st.SearchStrategy[str] | None = None,
    text: st.SearchStrategy[str] = ODD_TEXT,
    times: bool = True,
    weights: bool = True,
    splits: tuple[bool, ...] = (False, True),
    vectors: bool = True,
    all_known: bool = False,
    entity_features: bool = True,
    lonely: bool = True,
    name: str = "generated",
) -> RecGraph:
    """Graphs in natural order of the ids.

    Args:
        draw: Given by hypothesis.
        ids: Ids of users, entities and relations; ``None``: the numbers 0..n-1.
        text: Cells of text features.
        times: Whether there may be times; they are distinct within a user.
        weights: Whether there may be weights.
        splits: Whether the graph is split, one of these.
        vectors: Whether items may have vectors.
        all_known: Whether all vectors are known.
        entity_features: Whether entities may have features.
        lonely: Whether entities and relations may be in no triple.
        name: The name of the graph.
    """
    num_users = draw(st.integers(1, 4))
    num_items = num_users + draw(st.integers(1, 3))
    num_entities = num_items + draw(st.integers(1, 3))
    num_relations = draw(st.integers(1, 2))

    every = [(u, i) for u in range(num_users) for i in range(num_items)]
    pairs = sorted(draw(st.lists(st.sampled_from(every), unique=True, min_size=1)))
    user, item = (np.array(column, dtype=np.int64) for column in zip(*pairs, strict=True))
    time = weight = split = None
    if times and draw(st.booleans()):
        order = draw(st.permutations(range(len(pairs))))
        time = np.array(order, dtype=np.float64) / 4 - 1
        by_time = np.lexsort((time, user))
        user, item, time = user[by_time], item[by_time], time[by_time]
    if weights and draw(st.booleans()):
        weight = np.array(draw(st.lists(FLOATS, min_size=len(pairs), max_size=len(pairs))), dtype=np.float32)
    if draw(st.sampled_from(splits)):
        split = np.array(draw(st.lists(st.sampled_from([0, 1, 2]), min_size=len(pairs), max_size=len(pairs))), np.int8)
        split[draw(st.integers(0, len(pairs) - 1))] = 0

    every_triple = st.tuples(
        st.integers(0, num_entities - 1), st.integers(0, num_relations - 1), st.integers(0, num_entities - 1)
    )
    triples = np.array(draw(st.lists(every_triple, max_size=8)), dtype=np.int64).reshape(-1, 3)
    if len(triples) and not (triples[:, [0, 2]] < num_items).any():
        triples[0, 0] = 0
    if not lonely:
        others = set(range(num_items, num_entities)) - {*triples[:, 0].tolist(), *triples[:, 2].tolist()}
        missing = set(range(num_relations)) - set(triples[:, 1].tolist())
        extra = [(0, 0, e) for e in others] + [(0, r, num_items) for r in missing]
        triples = np.concatenate([triples, np.array(extra, dtype=np.int64).reshape(-1, 3)])
    triples = np.unique(triples, axis=0)

    def vocabulary(size: int, kind: str) -> list[str]:
        if ids is None:
            return list(map(str, range(size)))
        return natural_order(draw(st.lists(ids, unique=True, min_size=size, max_size=size)))

    entities = vocabulary(num_entities, "entity")
    if ids is not None:
        picked = draw(st.permutations(entities))
        entities = natural_order(picked[:num_items]) + natural_order(picked[num_items:])

    def features(size: int, names: list[str], *, may_be_vectors: bool) -> dict[str, Feature]:
        found = {
            name: Feature.text(draw(st.lists(text, min_size=size, max_size=size)))
            for name in draw(st.lists(st.sampled_from(names), unique=True))
        }
        if may_be_vectors and draw(st.booleans()):
            known = np.ones(size, dtype=np.bool_)
            if not all_known:
                known = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=np.bool_)
                known[draw(st.integers(0, size - 1))] = True
            values = draw(st.lists(FLOATS, min_size=3 * size, max_size=3 * size))
            found["image"] = Feature(
                np.where(known[:, None], np.float32(values).reshape(size, 3), np.float32(0)), known
            )
        return found

    return RecGraph(
        users=Vocabulary(vocabulary(num_users, "user"), "user"),
        entities=Vocabulary(entities, "entity"),
        num_items=num_items,
        interactions=Interactions(user, item, time, weight, split),
        relations=Vocabulary(natural_order(vocabulary(num_relations, "relation")), "relation"),
        triples=triples,
        user_features=features(num_users, ["org_id", "age"], may_be_vectors=False),
        item_features=features(num_items, ["org_id", "title", "year"], may_be_vectors=vectors),
        entity_features=features(num_entities, ["label"], may_be_vectors=False) if entity_features else {},
        name=name,
    )


NUMBERS = [b"0", b"1", b"2", b"3", b"10", b"007", b"-1", b"1.5", b"nan", b"1e999", b"99999", b"123456789012345678"]
OTHERS = [
    b"",
    b" ",
    b"a",
    b"x y",
    b'"',
    b'"a"',
    b'"a',
    b"9" * 25,
    b"\xc3\xa9",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\x00",
    b"\r",
]
WORDS = st.sampled_from([*NUMBERS, *OTHERS, b"\x1f", b"train"])
LINE_ENDS = st.sampled_from([b"\n", b"\n", b"\r\n", b"\n\n", b"\r", b" \n", b"\t\n", b""])


@st.composite
def malformed(draw: st.DrawFn, separator: bytes, headers: tuple[bytes, ...] = ()) -> bytes:
    """Bytes that are noise, or rows that almost follow a format."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=60))
    nice = draw(st.booleans())
    width, parts = draw(st.integers(1, 4)), []
    if headers and draw(st.integers(0, 9)):
        parts = [draw(st.sampled_from(headers)), b"\n" if nice else draw(LINE_ENDS)]
        width = parts[0].count(separator) + 1
    words = st.sampled_from([b"0", b"1", b"2", b"3"]) if nice else WORDS
    for _ in range(draw(st.integers(0, 6))):
        count = width if nice or draw(st.integers(0, 9)) else draw(st.integers(0, 5))
        mark = separator if nice or draw(st.integers(0, 19)) else b"\t"
        parts += [mark.join(draw(words) for _ in range(count)), b"\n" if nice else draw(LINE_ENDS)]
    return b"".join(parts)


def fuzz(
    read: Callable[[Path], RecGraph],
    folder: Path,
    needed: Mapping[str, st.SearchStrategy[bytes]],
    optional: Mapping[str, st.SearchStrategy[bytes]],
    examples: int,
) -> int:
    """Read many folders of malformed files; anything but a graph or a FormatError comes through as a failure.

    Returns:
        How many of the folders could be read.
    """
    num_read = 0

    # The same files every time: whether one of a few random files can be read is a matter of luck.
    @settings(SETTINGS, max_examples=examples, database=None, derandomize=True)
    @given(
        files=st.fixed_dictionaries(dict(needed), optional=dict(optional)),
        packed=st.integers(0, 9),
        cut=st.integers(0, 40),
    )
    def one(files: dict[str, bytes], packed: int, cut: int) -> None:
        nonlocal num_read
        for file in folder.iterdir():
            file.unlink()
        for place, (name, content) in enumerate(sorted(files.items())):
            if packed == place:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1)[: cut or None])
            else:
                (folder / name).write_bytes(content)
        try:
            graph = read(folder)
        except FormatError as error:
            blamed = error.path
        else:
            assert graph.num_interactions > 0
            num_read += 1
            return
        assert folder in (blamed, blamed.parent)

    one()
    return num_read
