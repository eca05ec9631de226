from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from graphrec.errors import ArgumentError
from graphrec.models import Popularity
from graphrec.serving.growth import grow
from graphrec.serving.live_items import LiveItems
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.store import Fact, NewItem
from kg_loaders import Feature, RecGraph, UnknownIdError
from kg_loaders.synthetic import planted


def run_with(titles: list[str]) -> RunRecommender:
    """A run whose first items have these titles; the others have none."""
    graph = planted()
    titles += [""] * (graph.num_items - len(titles))
    graph = replace(graph, item_features={"title": Feature.text(titles)})
    return RunRecommender(Popularity.from_graph(graph), graph)


def times_taken(graph: RecGraph) -> np.ndarray:
    return np.bincount(graph.part("train", "valid").item, minlength=graph.num_items)


def test_an_id_or_a_whole_title_of_any_case_is_found() -> None:
    run = run_with(["Alien", "Aliens", "Fargo", "fargo"])
    items = LiveItems.of(run)
    assert items.find(run.graph.items.id_of(7)) == 7
    assert items.find(" aLIEN ") == 0
    with pytest.raises(ArgumentError, match="several items have the title 'FARGO'"):
        items.find("FARGO")
    with pytest.raises(UnknownIdError, match="no item has the id or title 'Alie'"):
        items.find("Alie")


def test_a_part_of_a_title_finds_the_id_then_beginnings_then_the_most_taken() -> None:
    names = ["The Alien", "Alien 1", "Alien 2", "Alien 3", "Fargo"]
    items = LiveItems.of(run_with(names))
    taken = times_taken(items.run.graph)
    beginnings = sorted([1, 2, 3], key=lambda item: (-max(taken[item], 1), item))
    assert items.search("ALIEN", 10) == [*beginnings, 0]
    assert items.search("alien", 2) == beginnings[:2]
    assert items.search("nothing is called so", 10) == []


def test_an_id_goes_before_titles_that_begin_with_it() -> None:
    items = LiveItems.of(run_with([]))
    taken = times_taken(items.run.graph)
    rare, common = int(taken.argmin()), int(taken.argmax())
    id_ = items.run.graph.items.id_of(rare)
    titles = [""] * len(taken)
    titles[common] = f"{id_} and more"
    assert LiveItems.of(run_with(titles)).search(id_, 10) == [rare, common]


def test_bits_are_those_of_an_items_share_and_never_infinite() -> None:
    items = LiveItems.of(run_with([]))
    taken = times_taken(items.run.graph)
    assert (taken == 0).any()  # the planted graph has cold items
    assert items.bits == pytest.approx([-math.log2(max(times, 1) / taken.sum()) for times in taken])


def test_what_joined_is_found_and_counts_as_taken_once(runs: tuple) -> None:
    run = RunRecommender.load(runs[0])
    _, relation, tail = run.graph.triples[0]
    fact = Fact(run.graph.relations.id_of(relation), run.graph.entities.id_of(tail))
    new = NewItem("new", "A new one", (fact,))
    before = LiveItems.of(run)
    model, graph = grow(run.model, run.graph, [new])
    after = before.grown(RunRecommender(model, graph), (new,))
    assert after.find("new") == after.find("a NEW one") == run.graph.num_items
    assert after.search("a new", 10) == [run.graph.num_items]
    assert after.bits == pytest.approx([*before.bits, math.log2(times_taken(run.graph).sum())])
    with pytest.raises(UnknownIdError):
        before.find("new")
