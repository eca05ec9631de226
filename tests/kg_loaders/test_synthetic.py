import numpy as np
import pytest

from kg_loaders import KGLoaderError
from kg_loaders.synthetic import cold_items, planted


def item_vectors(graph):
    """One row an item, counting the entities that its triples lead to."""
    vectors = np.zeros((graph.num_items, graph.num_entities))
    heads, _, tails = graph.triples.T
    np.add.at(vectors, (heads, tails), 1)
    return vectors


def cold_recall(graph, scores):
    """Recall among the cold items only, cut at each user's number of them; ties are broken at random."""
    cold = cold_items(graph)
    test = graph.part("test")
    rng = np.random.default_rng(0)
    recalls = []
    for user in range(graph.num_users):
        wanted = np.intersect1d(test.item[test.user == user], cold)
        if len(wanted):
            order = np.lexsort((rng.random(len(cold)), -scores[user, cold]))
            recalls.append(np.isin(cold[order[: len(wanted)]], wanted).mean())
    assert len(recalls) == graph.num_users
    return float(np.mean(recalls))


def histories(graph):
    matrix = np.zeros((graph.num_users, graph.num_items))
    train = graph.part("train")
    matrix[train.user, train.item] = 1
    return matrix


def test_cold_items_are_found_with_the_triples_and_not_without():
    graph = planted()
    history = histories(graph)
    through_kg = history @ item_vectors(graph) @ item_vectors(graph).T
    through_others = history @ (history.T @ history)
    assert cold_recall(graph, through_kg) >= 0.9
    assert cold_recall(graph, through_others) < 0.5
    shuffled = graph.shuffled_kg(seed=1)
    assert cold_recall(graph, history @ item_vectors(shuffled) @ item_vectors(shuffled).T) < 0.6


def test_cold_items_are_found_among_all_items_too():
    graph = planted()
    history = histories(graph)
    scores = history @ item_vectors(graph) @ item_vectors(graph).T
    scores[history > 0] = -np.inf
    top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    test = graph.part("test")
    rows = np.isin(test.item, cold_items(graph))
    assert np.mean([item in top[user] for user, item in zip(test.user[rows], test.item[rows], strict=True)]) >= 0.9


def test_cold_items_have_test_interactions_only():
    graph = planted()
    cold = cold_items(graph)
    assert cold.tolist() == list(range(72, 80))
    assert not np.isin(graph.part("train", "valid").item, cold).any()
    assert set(cold) <= set(graph.part("test").item)


def test_everybody_else_has_all_three_parts():
    graph = planted()
    for name in ("train", "valid", "test"):
        assert len(np.unique(graph.part(name).user)) == graph.num_users
    assert len(np.unique(graph.part("train").item)) == 72
    assert graph.part("train").time.max() < graph.part("valid").time.min()
    assert graph.part("valid").time.max() < graph.part("test").time.min()


def test_users_stick_to_their_taste_but_for_the_noise():
    quiet, noisy = planted(noise=0.0), planted(noise=0.3)
    for graph, low, high in ((quiet, 0.0, 0.0), (noisy, 0.15, 0.3)):
        train = graph.part("train")
        assert low <= (train.item % 4 != train.user % 4).mean() <= high
        held_out = graph.part("valid", "test")
        assert (held_out.item % 4 == held_out.user % 4).all()


def test_genre_triples_tell_the_truth():
    graph = planted()
    genre = graph.triples[graph.triples[:, 1] == graph.relations.index_of("genre")]
    assert (genre[:, 2] - 80 == genre[:, 0] % 4).all()
    assert len(genre) == graph.num_items
    assert graph.entity_labels[80] == "Genre 0"
    assert graph.item_labels[3] == "Item 3"


def test_sizes_are_three_different_numbers():
    graph = planted()
    assert len({graph.num_users, graph.num_items, graph.num_entities}) == 3


def test_the_seed_decides():
    assert planted(seed=1) == planted(seed=1)
    assert planted(seed=1) != planted(seed=2)


def test_only_cold_items_are_cold_even_when_users_are_few():
    for seed in range(20):
        graph = planted(num_users=5, num_items=90, num_tastes=4, num_cold_items=7, activity=0.1, seed=seed)
        assert cold_items(graph).tolist() == list(range(83, 90))
        assert len(np.unique(graph.part("train").item)) == 83


def test_ids_sort_in_the_order_of_their_indices():
    graph = planted(num_users=12, num_items=101)
    assert list(graph.users) == sorted(graph.users)
    assert list(graph.items) == sorted(graph.items)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_tastes": 1}, "num_tastes must be at least 2, got 1"),
        ({"num_users": 3}, r"num_users must be at least 4 \(one per taste\), got 3"),
        ({"num_items": 23}, "num_items must be at least 24"),
        ({"num_cold_items": -1}, "num_cold_items must be at least 0"),
        ({"num_studios": 0}, "num_studios must be at least 1"),
        ({"activity": 1.5}, "activity must be above 0 and at most 1"),
        ({"noise": -0.1}, "noise must be at least 0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(KGLoaderError, match=message):
        planted(**options)
