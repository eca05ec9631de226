"""What could make a figure on a data set untrue: leaks from test to train, through the graph too, and wrong links."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kg_loaders.graph import LEAKS, RecGraph, Split
from kg_loaders.inspect import leaked_pairs, summary

Verdict = Literal["ok", "note", "problem", "-"]

INVERSE_SHARE = 0.8  # two relations of which so much of the smaller is the other reversed say the same thing twice
LINKED_LIFT = 10.0  # held-out items so many times as often tied to a user's past as chance has it
MAX_EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """The answer to one question about a data set.

    Args:
        check: What was looked at.
        count: How often it was found; ``None`` where the data set gives nothing to look at.
        verdict: ``"problem"``: figures on this data set are wrong or unfair; ``"note"``: know it when reading them;
            ``"ok"``; ``"-"``: nothing to look at.
        remark: What the count means.
        examples: A few cases, by their ids.
    """

    check: str
    count: int | None
    verdict: Verdict
    remark: str
    examples: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return {**asdict(self), "examples": list(self.examples)}


def audit(graph: RecGraph, seed: int = 0) -> list[Finding]:
    """Look for what could make figures on a split graph untrue.

    Args:
        graph: The data set. Without a split, what concerns held-out pairs is left open.
        seed: Draws the pairs that say how often chance ties an item to a user's past.

    Example:
        >>> import numpy as np
        >>> from kg_loaders import Interactions, Vocabulary
        >>> graph = RecGraph(
        ...     users=Vocabulary(["ann"], "user"), entities=Vocabulary(["Alien", "Aliens"], "entity"), num_items=2,
        ...     interactions=Interactions(np.array([0]), np.array([0])), relations=Vocabulary(["sequel"], "relation"),
        ...     triples=np.array([[0, 0, 1], [1, 0, 0]]))
        >>> [(found.check, found.count) for found in audit(graph) if found.verdict != "ok" and found.count]
        [('triples that say the same reversed', 1), ('items without training data', 1)]
    """
    return [*_pairs(graph), *_triples(graph), *_held_out(graph, seed), *_links(graph)]


def _pairs(graph: RecGraph) -> Iterator[Finding]:
    repeated = {reason: count for reason, count in graph.dropped.items() if "repeated" in reason and "pair" in reason}
    count = sum(repeated.values())
    yield Finding("repeated pairs", count, "note" if count else "ok", "the same user and item again; read once")
    yield from (_leak(graph, later, earlier) for later, earlier in LEAKS)
    same_past = _equal_histories(graph)
    yield Finding(
        "users with equal histories",
        same_past,
        "note" if same_past else "ok",
        "of five items or more; bots, or one person twice",
    )


def _leak(graph: RecGraph, later: Split, earlier: Split) -> Finding:
    """Tell what reading took out of a part because an earlier one has it too."""
    check, count = f"{later} pairs in {earlier}", leaked_pairs(graph, later, earlier)
    if count is None:
        return Finding(check, None, "-", f"no {later} part")
    # Figures are those of test; what leaks into validation has only chosen settings and epochs.
    verdict: Verdict = "problem" if later == "test" else "note"
    where = f"removed from {later}" + ("" if graph.has_split(later) else ", of which nothing is left")
    who = "published figures may count them" if later == "test" else "elsewhere settings may have been chosen by them"
    return Finding(check, count, verdict if count else "ok", f"{where}; {who}")


def _equal_histories(graph: RecGraph) -> int:
    """Count the users of five items or more whose set of items another user has too."""
    pairs = graph.interactions
    order = np.lexsort((pairs.item, pairs.user))
    items = np.split(pairs.item[order], np.bincount(pairs.user, minlength=graph.num_users).cumsum()[:-1])
    seen: dict[bytes, int] = {}
    for taken in items:
        if len(taken) >= 5:
            seen[taken.tobytes()] = seen.get(taken.tobytes(), 0) + 1
    return sum(count for count in seen.values() if count > 1)


def _triples(graph: RecGraph) -> Iterator[Finding]:
    head, relation, tail = graph.triples.T
    loops = graph.triples[head == tail]
    yield Finding(
        "triples from an entity to itself",
        len(loops),
        "note" if len(loops) else "ok",
        "they say nothing of any other",
        _named(graph, loops),
    )
    ends = (head * graph.num_entities + tail, tail * graph.num_entities + head)
    forward, backward = (end * max(graph.num_relations, 1) + relation for end in ends)
    reversed_too = np.isin(backward, forward) & (head < tail)
    yield Finding(
        "triples that say the same reversed",
        int(reversed_too.sum()),
        "note" if reversed_too.any() else "ok",
        "(a, r, b) and (b, r, a): models add inverses themselves, so such an edge counts twice",
        _named(graph, graph.triples[reversed_too]),
    )
    inverse = _inverse_relations(graph)
    yield Finding(
        "relations that are another's inverse",
        len(inverse),
        "note" if inverse else "ok",
        f"{INVERSE_SHARE:.0%} of the smaller one is the other reversed; link prediction on them is too easy",
        tuple(f"{graph.relations.id_of(a)} / {graph.relations.id_of(b)}" for a, b in inverse[:MAX_EXAMPLES]),
    )


def _inverse_relations(graph: RecGraph) -> list[tuple[int, int]]:
    head, relation, tail = graph.triples.T
    forward = head * graph.num_entities + tail
    backward = tail * graph.num_entities + head
    sizes = np.bincount(relation, minlength=graph.num_relations)
    # Triples reversed by one of another relation: a few in most graphs, so pairs of relations are counted on those.
    order = np.argsort(forward, kind="stable")
    start, end = (np.searchsorted(forward[order], backward, side) for side in ("left", "right"))
    times = end - start
    mine = np.repeat(relation, times)
    position = np.arange(times.sum()) - np.repeat(times.cumsum() - times, times) + np.repeat(start, times)
    other = relation[order[position]]
    apart = mine < other
    both, counts = np.unique(np.stack([mine[apart], other[apart]], axis=1), axis=0, return_counts=True)
    return [
        (int(a), int(b))
        for (a, b), count in zip(both.tolist(), counts.tolist(), strict=True)
        if count >= INVERSE_SHARE * min(sizes[a], sizes[b])
    ]


def _held_out(graph: RecGraph, seed: int) -> Iterator[Finding]:
    pairs = graph.interactions
    train = graph.part("train") if pairs.split is not None else pairs
    trained_items = np.bincount(train.item, minlength=graph.num_items) > 0
    trained_users = np.bincount(train.user, minlength=graph.num_users) > 0
    cold = np.flatnonzero(~trained_items)
    yield Finding(
        "items without training data",
        len(cold),
        "note" if len(cold) else "ok",
        "only their features and triples can speak for them",
        tuple(graph.items.ids_of(cold[:MAX_EXAMPLES].tolist())),
    )
    lonely = np.flatnonzero(~trained_users)
    yield Finding(
        "users without training data",
        len(lonely),
        "note" if len(lonely) else "ok",
        "they get the popular items, or are left out",
        tuple(graph.users.ids_of(lonely[:MAX_EXAMPLES].tolist())),
    )
    held_parts: tuple[Split, ...] = ("test", "valid")
    part = next((name for name in held_parts if graph.has_split(name)), None)
    between = graph.triples[(graph.triples[:, 0] < graph.num_items) & (graph.triples[:, 2] < graph.num_items)]
    check = "held-out pairs one triple from the past"
    if part is None or not len(between):
        yield Finding(check, None, "-", "no held-out part" if part is None else "no triples between items")
        return
    held = graph.part(part)
    neighbours = np.unique(np.concatenate([between[:, [0, 2]], between[:, [2, 0]]]), axis=0)
    tied = _tied(held.user, held.item, train.user, train.item, neighbours, graph.num_items)
    chance = np.random.default_rng(seed).permutation(held.item)
    by_chance = _tied(held.user, chance, train.user, train.item, neighbours, graph.num_items)
    share, expected = tied.mean(), max(float(by_chance.mean()), 1 / len(tied))
    yield Finding(
        check,
        int(tied.sum()),
        "problem" if share > LINKED_LIFT * expected and share > 0.05 else "ok",
        f"{share:.1%} of {part}, {by_chance.mean():.1%} with the items shuffled; "
        "relations made of behaviour ('also bought') leak",
        tuple(
            f"{graph.users.id_of(int(u))} - {graph.items.id_of(int(i))}"
            for u, i in zip(held.user[tied][:MAX_EXAMPLES], held.item[tied][:MAX_EXAMPLES], strict=True)
        ),
    )


def _tied(
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    past_user: NDArray[np.int64],
    past_item: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    num_items: int,
) -> NDArray[np.bool_]:
    """Return for which pairs an item of the user's past is a neighbour of the item."""
    past = np.sort(past_user * num_items + past_item)
    start = np.searchsorted(neighbours[:, 0], item)
    times = np.searchsorted(neighbours[:, 0], item, "right") - start
    pair = np.repeat(np.arange(len(item)), times)
    place = np.arange(times.sum()) - np.repeat(times.cumsum() - times, times) + np.repeat(start, times)
    keys = user[pair] * num_items + neighbours[place, 1]
    found = past[np.minimum(np.searchsorted(past, keys), max(len(past) - 1, 0))] == keys if len(past) else keys < 0
    tied = np.zeros(len(item), dtype=np.bool_)
    tied[pair[found]] = True
    return tied


def _links(graph: RecGraph) -> Iterator[Finding]:
    found = summary(graph)["links"]
    if not graph.num_triples:
        yield Finding("items of one label, linked differently", None, "-", "no knowledge graph")
        yield Finding("items that the graph cannot tell apart", None, "-", "no knowledge graph")
        return
    odd, alike = found["same_label_linked_differently"], found["items_sharing_a_triple_set"]
    yield Finding(
        "items of one label, linked differently",
        odd,
        "note" if odd else "ok",
        "labels: a copy left unlinked, or a namesake's entity",
        tuple(f"{example['label']}: {', '.join(example['items'])}" for example in found["examples"][:MAX_EXAMPLES]),
    )
    yield Finding(
        "items that the graph cannot tell apart",
        alike,
        "note" if alike else "ok",
        "all their triples in common with another",
    )


def _named(graph: RecGraph, triples: NDArray[np.int64]) -> tuple[str, ...]:
    names = graph.entity_labels
    return tuple(f"{names[h]} - {graph.relations.id_of(r)} - {names[t]}" for h, r, t in triples[:MAX_EXAMPLES].tolist())


def format_audit(name: str, findings: list[Finding]) -> str:
    """Return the findings as an aligned table in plain text, problems and notes with their examples."""
    left = max(len(found.check) for found in findings)
    shown = ["-" if found.count is None else f"{found.count:,}" for found in findings]
    middle = max(map(len, shown))
    lines = [name, ""]
    for found, count in zip(findings, shown, strict=True):
        lines.append(f"  {found.verdict:<7}  {found.check:<{left}}  {count:>{middle}}  {found.remark}".rstrip())
        if found.verdict in ("note", "problem"):
            lines += [f"  {'':<7}  {'':<{left}}  {'':>{middle}}  e.g. {example}" for example in found.examples]
    problems = sum(found.verdict == "problem" for found in findings)
    lines += ["", f"{problems or 'no'} {'problem' if problems == 1 else 'problems'}"]
    return "\n".join(lines)
