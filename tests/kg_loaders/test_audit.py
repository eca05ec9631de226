import json

import numpy as np
import pytest

from kg_loaders import Interactions, RecGraph, Vocabulary
from kg_loaders.audit import audit, format_audit
from kg_loaders.graph import LEAKS
from kg_loaders.synthetic import planted


def make(pairs=(), triples=(), num_items=6, num_users=4, num_entities=9, num_relations=3, split=None, **rest):
    pairs = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return RecGraph(
        users=Vocabulary([f"u{i}" for i in range(num_users)], "user"),
        entities=Vocabulary([f"e{i}" for i in range(num_entities)], "entity"),
        num_items=num_items,
        interactions=Interactions(
            pairs[:, 0].copy(), pairs[:, 1].copy(), split=None if split is None else np.array(split, dtype=np.int8)
        ),
        relations=Vocabulary([f"r{i}" for i in range(num_relations)], "relation"),
        triples=np.array(triples, dtype=np.int64).reshape(-1, 3),
        name="toy",
        **rest,
    )


def found(graph, check):
    (finding,) = [finding for finding in audit(graph) if finding.check == check]
    return finding


def test_a_clean_graph_has_no_problem():
    graph = planted()
    assert {finding.verdict for finding in audit(graph)} <= {"ok", "note", "-"}
    assert format_audit("planted", audit(graph)).endswith("no problems")


def test_what_reading_dropped_is_told():
    graph = make([(0, 0), (1, 1)], split=[0, 2], dropped={LEAKS["test", "train"]: 3, "repeated pairs": 2})
    assert (found(graph, "test pairs in train").count, found(graph, "test pairs in train").verdict) == (3, "problem")
    assert (found(graph, "repeated pairs").count, found(graph, "repeated pairs").verdict) == (2, "note")
    assert found(make([(0, 0)]), "test pairs in train").verdict == "-"


def test_every_leak_that_reading_counted_is_told():
    dropped = {"valid pairs also in train": 120, "test pairs also in valid": 30}
    graph = make([(0, 0), (1, 1), (2, 2)], split=[0, 1, 2], dropped=dropped)
    assert found(graph, "test pairs in train").verdict == "ok"
    assert (found(graph, "test pairs in valid").count, found(graph, "test pairs in valid").verdict) == (30, "problem")
    assert (found(graph, "valid pairs in train").count, found(graph, "valid pairs in train").verdict) == (120, "note")


def test_a_part_all_of_which_leaked_is_told():
    for part, verdict in (("test", "problem"), ("valid", "note")):
        graph = make([(0, 0), (1, 1)], split=[0, 0], dropped={f"{part} pairs also in train": 12})
        finding = found(graph, f"{part} pairs in train")
        assert (finding.count, finding.verdict) == (12, verdict)
        assert finding.remark.startswith(f"removed from {part}, of which nothing is left; ")
    assert found(graph, "test pairs in train").verdict == "-"
    assert found(graph.with_split(None), "valid pairs in train").count is None


def test_users_with_equal_histories_are_counted_from_five_items_on():
    five = [(u, i) for u in (0, 2) for i in range(5)] + [(1, i) for i in range(1, 6)]
    assert found(make(five), "users with equal histories").count == 2
    assert found(make([(u, i) for u in (0, 2) for i in range(4)]), "users with equal histories").count == 0


def test_loops_and_reversed_triples_are_named():
    graph = make(triples=[(7, 0, 7), (0, 1, 6), (6, 1, 0), (1, 1, 6), (6, 2, 1)])
    loops = found(graph, "triples from an entity to itself")
    assert (loops.count, loops.examples) == (1, ("e7 - r0 - e7",))
    reverse = found(graph, "triples that say the same reversed")
    assert (reverse.count, reverse.examples) == (1, ("e0 - r1 - e6",))


def test_inverse_relations_are_found_by_most_of_the_smaller_one():
    forward = [(item, 0, 6 + item % 3) for item in range(5)]
    backward = [(6 + item % 3, 1, item) for item in range(4)]
    graph = make(triples=[*forward, *backward, (8, 2, 0)])
    inverse = found(graph, "relations that are another's inverse")
    assert (inverse.count, inverse.examples) == (1, ("r0 / r1",))
    half = make(triples=[*forward, *backward[:2], (7, 1, 5), (8, 1, 4)])
    assert found(half, "relations that are another's inverse").count == 0


def test_who_and_what_has_no_training_data():
    graph = make([(0, 0), (0, 1), (1, 1), (2, 2)], split=[0, 0, 0, 1])
    items, users = found(graph, "items without training data"), found(graph, "users without training data")
    assert (items.count, items.examples) == (4, ("e2", "e3", "e4"))
    assert (users.count, users.examples) == (2, ("u2", "u3"))


def leaking(num_users=60):
    """Every user's test item is tied to their training item; items are many, so chance ties few."""
    pairs = [(u, i) for u in range(num_users) for i in (2 * u, 2 * u + 1)]
    triples = [(2 * u, 0, 2 * u + 1) for u in range(num_users)]
    sizes = {"num_items": 2 * num_users, "num_users": num_users, "num_entities": 2 * num_users}
    return make(pairs, triples, split=[0, 2] * num_users, **sizes)


def test_relations_made_of_behaviour_are_a_problem():
    finding = found(leaking(), "held-out pairs one triple from the past")
    assert (finding.count, finding.verdict) == (60, "problem")
    assert finding.examples[0] == "u0 - e1"
    assert "100.0% of test" in finding.remark


def test_ties_at_random_are_none():
    graph = leaking()
    shuffled = graph.triples.copy()
    shuffled[:, 2] = np.random.default_rng(0).permutation(shuffled[:, 2])
    ties = make(
        list(zip(graph.interactions.user, graph.interactions.item, strict=True)),
        shuffled,
        120,
        60,
        120,
        split=[0, 2] * 60,
    )
    assert found(ties, "held-out pairs one triple from the past").verdict == "ok"


@pytest.mark.parametrize("graph", [make(), make([(0, 0)]), make([(0, 0)], split=[0]), make([(0, 0)], split=[2])])
def test_nothing_to_look_at_is_no_error(graph):
    assert format_audit(graph.name, audit(graph)).endswith("no problems")


def test_findings_are_plain_data_and_the_table_is_aligned():
    findings = audit(leaking())
    assert json.loads(json.dumps([finding.to_dict() for finding in findings]))[0]["check"] == "repeated pairs"
    lines = format_audit("toy", findings).splitlines()
    assert lines[0] == "toy"
    assert lines[-1] == "1 problem"
    starts = {line.index(finding.check) for finding in findings for line in lines if finding.check in line}
    assert len(starts) == 1
