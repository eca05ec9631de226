import numpy as np
import pytest

from graphrec.serving.naming import entity_name, relation_name
from kg_loaders import Feature, Interactions, RecGraph, Vocabulary


def graph_of(relations=("r",), entities=("a",), labels=None):
    nothing = np.empty(0, dtype=np.int64)
    return RecGraph(
        users=Vocabulary((), "user"),
        entities=Vocabulary(entities, "entity"),
        num_items=1,
        interactions=Interactions(nothing, nothing),
        relations=Vocabulary(relations, "relation"),
        entity_features={} if labels is None else {"label": Feature.text(labels)},
    )


@pytest.mark.parametrize(
    ("relation", "item_is_tail", "item_is_head"),
    [
        ("film.film.directed_by", "film", "director"),
        ("film.director.film", "director", "film"),
        ("film.film.production_companies", "film", "production company"),
        ("film.film_genre.films_in_this_genre", "genre", "films in this genre"),
        ("http://rdf.freebase.com/ns/music.recording.artist", "recording", "artist"),
        ("http://dbpedia.org/ontology/starring", "actor", "actor"),
        ("http://dbpedia.org/ontology/musicComposer", "music composer", "music composer"),
        ("http://example.org/terms#awardWon", "award", "award"),
        ("having-category-022ab423f035b47ac0af5046c51ed093", "having category", "having category"),
        ("by", "by", "by"),
        ("Same_As", "same as", "same as"),
        ("17", "", ""),
    ],
)
def test_relations_are_named_for_people(relation, item_is_tail, item_is_head):
    graph = graph_of(relations=["other", relation])
    assert (relation_name(graph, 1), relation_name(graph, 3)) == (item_is_tail, item_is_head)


@pytest.mark.parametrize(
    ("entity", "name"),
    [
        ("http://dbpedia.org/resource/Robert_De_Niro", "Robert De Niro"),
        ("http://dbpedia.org/resource/Am%C3%A9lie/", "Amélie"),
        ("Crime", "Crime"),
        ("Seven (Se7en)", "Seven (Se7en)"),
        ("m.02h40lc", ""),
        ("http://rdf.freebase.com/ns/m.02h40lc", ""),
        ("http://www.wikidata.org/entity/Q42", ""),
        ("_:b0", ""),
        ("12", ""),
        ("attribute:12", ""),
        ("03cea1da16f661f20a716685b3fcd3b5", ""),
    ],
)
def test_entities_have_a_name_where_their_id_is_in_words(entity, name):
    assert entity_name(graph_of(entities=["item", entity]), 1) == name


def test_a_label_goes_before_the_id():
    assert entity_name(graph_of(entities=["item", "m.1"], labels=["", "Joel Coen"]), 1) == "Joel Coen"
