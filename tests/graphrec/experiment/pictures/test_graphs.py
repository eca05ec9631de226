import numpy as np
import pytest

from graphrec.errors import ArgumentError
from graphrec.experiment.pictures import About, graph_schema, kg_paths, neighbourhood
from graphrec.serving.explain import Path
from kg_loaders import Interactions, RecGraph, Vocabulary

ABOUT = About("films", seeds=0)
PATHS = [
    Path("Alien", 1, "director", "m.1", "Ridley Scott", (), "director", 0.2, 0.9),
    Path("Heat", 0, "actor", "m.2", "", (), "composer", 0.1, 0.8),
]


def make_graph():
    """Films 0..3; 4 Scott, 5 USA, 6 an award; Heat is the sequel of Alien."""
    ids = ["Alien", "Heat", "Blade Runner", "Fargo", "http://kg.org/Ridley_Scott", "usa", "m.1"]
    triples = [[0, 0, 4], [2, 0, 4], [0, 1, 5], [1, 1, 5], [2, 1, 5], [3, 1, 5], [6, 2, 0], [1, 3, 0]]
    return RecGraph(
        users=Vocabulary(["ann", "bob", "cy"], "user"),
        entities=Vocabulary(ids, "entity"),
        num_items=4,
        interactions=Interactions(np.array([0, 1, 1, 2]), np.array([0, 0, 2, 0])),
        relations=Vocabulary(["film.film.directed_by", "http://kg.org/inCountry", "prize.film", "sequel"], "relation"),
        triples=np.array(triples),
        name="films",
    )


def texts(ax):
    return [text.get_text().replace("\n", " ") for text in ax.texts]


def test_schema_counts_nodes_and_relations_and_says_where_they_lead():
    found = texts(graph_schema(make_graph()))
    assert found[:3] == ["user 3", "item 4", "entity 3"]
    for label in ("interacts 4", "in country  4", "directed by  2", "film  1", "sequel, item to item  1", "films"):
        assert label in found


def test_schema_sums_up_the_relations_it_does_not_draw():
    found = texts(graph_schema(make_graph(), most=1))
    assert "3 more relations  4" in found
    assert "film  1" not in found


def test_schema_of_a_graph_without_triples_has_no_entities():
    graph = RecGraph(
        users=Vocabulary(["ann"], "user"),
        entities=Vocabulary(["Alien", "Heat"], "entity"),
        num_items=2,
        interactions=Interactions(np.array([0]), np.array([0])),
    )
    found = texts(graph_schema(graph))
    assert "item 2" in found
    assert not any(text.startswith("entity") for text in found)


def test_neighbourhood_leads_over_the_most_telling_entities_to_other_films():
    found = texts(neighbourhood(make_graph(), 0, ABOUT))
    assert found[:4] == ["user ann", "user bob", "user cy", "Alien"]
    # Scott leads to one more film, the country to three; the award leads nowhere and is left out.
    assert found[4:6] == ["directed by: Ridley Scott", "in country: usa"]
    assert found[6:8] == ["Blade Runner", "Blade Runner and 2 more"]
    assert "2 of 4 neighbours" in found
    assert "films, seed 0" in found


def test_neighbourhood_follows_attention():
    ax = neighbourhood(make_graph(), 0, ABOUT, attention={6: 0.75, 4: 0.25}, names={6: "an award"}, most=2)
    found = texts(ax)
    assert found[:2] == ["user ann", "and 2 more users"]
    assert found[3:5] == ["film: an award", "directed by: Ridley Scott"]
    widths = [line.get_linewidth() for line in ax.lines][2:4]
    assert widths[0] > widths[1] > 1
    assert "most attended" in ax.get_title(loc="left")


def test_an_item_without_a_kg_has_users_alone():
    found = texts(neighbourhood(make_graph().without_kg(), 0, ABOUT))
    assert "0 of 0 neighbours" in found


def test_neighbourhood_refuses_what_is_no_item():
    with pytest.raises(ArgumentError, match=r"item must be within 0\.\.3, got 4"):
        neighbourhood(make_graph(), 4, ABOUT)


def test_paths_have_three_columns_and_lines_by_attention():
    ax = kg_paths("Blade Runner", PATHS, ABOUT)
    found = texts(ax)
    for label in ("Alien", "Heat", "Ridley Scott", "(composer m.2)", "Blade Runner", "director", "actor", "composer"):
        assert label in found
    assert found.count("director") == 1  # the same on both sides is written once
    widths = [line.get_linewidth() for line in ax.lines]
    assert widths[0] == widths[1] > widths[2] == widths[3]
    with pytest.raises(ArgumentError, match="paths must hold at least one path to 'Fargo'"):
        kg_paths("Fargo", [], ABOUT)


def test_no_node_covers_another():
    ax = kg_paths("A title as long as they come, and then some", PATHS * 3, ABOUT)
    ax.figure.canvas.draw()
    boxes = [
        text.get_bbox_patch().get_window_extent()
        for text in ax.texts
        if text.get_bbox_patch() and text.get_zorder() == 3
    ]
    assert len(boxes) == 9
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
