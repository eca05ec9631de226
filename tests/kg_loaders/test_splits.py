import numpy as np
import pytest

from kg_loaders import GraphError, Interactions, KGLoaderError, RecGraph, Vocabulary, sort_interactions, splits
from kg_loaders.synthetic import planted

TRAIN, VALID, TEST = 0, 1, 2


def graph_of(counts, times=None):
    """A graph whose user u took items 0..counts[u]-1."""
    user = np.repeat(np.arange(len(counts)), counts)
    item = np.concatenate([np.arange(count) for count in counts])
    time = None if times is None else np.asarray(times, dtype=np.float64)
    num_items = max(counts) + 1
    return RecGraph(
        users=Vocabulary.from_range(len(counts), "user"),
        entities=Vocabulary.from_range(num_items + 3, "entity"),
        num_items=num_items,
        interactions=sort_interactions(Interactions(user, item, time)),
    )


def sizes(graph, user):
    codes = graph.interactions.split[graph.interactions.user == user]
    return tuple(int((codes == code).sum()) for code in (TRAIN, VALID, TEST))


def test_random_split_takes_its_share_of_every_user():
    graph = splits.random_split(graph_of([20, 10, 100, 5, 4]), (0.8, 0.1, 0.1), seed=3)
    assert [sizes(graph, user) for user in range(5)] == [(16, 2, 2), (8, 1, 1), (80, 10, 10), (3, 1, 1), (4, 0, 0)]


def test_halves_go_up_whatever_the_float_says():
    # 45 * 0.7 is 31.499999999999996 in floating point.
    assert sizes(splits.random_split(graph_of([45]), (0.3, 0.0, 0.7)), 0) == (13, 0, 32)


@pytest.mark.parametrize(("count", "expected"), [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 0, 2)), (4, (1, 1, 2))])
def test_each_user_keeps_a_train_item_and_validation_gives_way_first(count, expected):
    assert sizes(splits.random_split(graph_of([count]), (0.1, 0.4, 0.5)), 0) == expected


def test_users_without_items_are_no_trouble():
    graph = splits.random_split(graph_of([0, 10, 0]))
    assert sizes(graph, 1) == (8, 1, 1)
    assert graph.num_users == 3


def test_an_empty_graph_splits_into_nothing():
    empty = graph_of([0, 0, 0], times=[])
    for split in (splits.random_split, splits.carve_valid, splits.carve_cold, splits.leave_last, splits.temporal):
        assert len(split(empty).part("train", "valid", "test")) == 0


def test_parts_are_disjoint_and_complete():
    graph = planted()
    for split in (splits.random_split, splits.leave_last, splits.temporal):
        parts = split(graph)
        pairs = [set(zip(p.user, p.item, strict=True)) for p in map(parts.part, ("train", "valid", "test"))]
        assert all(pairs)
        assert sum(map(len, pairs)) == len(set.union(*pairs)) == graph.num_interactions


def test_the_seed_decides():
    graph = planted()
    once, again, other = (splits.random_split(graph, seed=seed).interactions.split for seed in (5, 5, 6))
    assert (once == again).all()
    assert (once != other).any()


@pytest.mark.parametrize("split", [splits.random_split, splits.carve_valid, splits.carve_cold, splits.temporal])
def test_row_order_does_not_matter(split):
    rng = np.random.default_rng(0)
    given = planted().interactions
    # Few distinct times, so that many are tied and the order within a tie follows the file.
    given = Interactions(given.user, given.item, np.floor(given.time / 20_000))
    answers = []
    for order in (np.arange(len(given)), rng.permutation(len(given))):
        graph = split(RecGraph(planted().users, planted().entities, 80, sort_interactions(given[order])))
        rows = graph.interactions
        answers.append(dict(zip(zip(rows.user, rows.item, strict=True), rows.split, strict=True)))
    assert answers[0] == answers[1]
    assert set(answers[0].values()) > {TRAIN}


def test_draws_differ_between_users():
    graph = splits.random_split(graph_of([10] * 40), seed=1)
    taken = {tuple(graph.part("test").item[graph.part("test").user == user]) for user in range(40)}
    assert len(taken) > 5


def test_leave_last_by_hand():
    times = [30, 10, 20, 5, 1, 2, 3, 4, 9, 8]
    graph = splits.leave_last(graph_of([3, 2, 5], times))
    codes = {
        (u, i): c for u, i, c in zip(*(graph.interactions.__dict__[k] for k in ("user", "item", "split")), strict=True)
    }
    assert [codes[0, i] for i in range(3)] == [TEST, TRAIN, VALID]
    assert [codes[1, i] for i in range(2)] == [TRAIN, TRAIN]
    assert [codes[2, i] for i in range(5)] == [TRAIN, TRAIN, TRAIN, TEST, VALID]


def test_leave_last_k():
    graph = splits.leave_last(graph_of([10, 4, 5], times=np.arange(19)), k=2)
    assert [sizes(graph, user) for user in range(3)] == [(6, 2, 2), (4, 0, 0), (1, 2, 2)]


def test_leave_last_keeps_the_order_of_equal_times():
    # Two moments only: the file's order decides within each, and an unstable sort of 2,000 rows would break it.
    rng = np.random.default_rng(0)
    item, time = rng.permutation(2000), rng.integers(2, size=2000).astype(np.float64)
    rows = Interactions(np.zeros(2000, dtype=np.int64), item, time)
    users, entities = Vocabulary(["ann"], "user"), Vocabulary.from_range(2001, "entity")
    late = item[time == 1]
    for given in (rows, sort_interactions(rows)):
        graph = splits.leave_last(RecGraph(users, entities, 2000, given), k=3)
        assert set(graph.part("test").item) == set(late[-3:])
        assert set(graph.part("valid").item) == set(late[-6:-3])


def test_leave_last_sorts_a_graph_that_is_not_in_order_of_time():
    rows = Interactions(np.zeros(4, dtype=np.int64), np.arange(4), np.array([9.0, 1.0, 5.0, 2.0]))
    graph = splits.leave_last(RecGraph(Vocabulary(["ann"], "user"), Vocabulary.from_range(5, "entity"), 4, rows))
    assert graph.interactions.split.tolist() == [TEST, TRAIN, VALID, TRAIN]


def test_temporal_cuts_at_two_moments():
    graph = splits.temporal(planted(), (0.6, 0.2, 0.2))
    train, valid, test = (graph.part(name).time for name in ("train", "valid", "test"))
    assert train.max() < valid.min()
    assert valid.max() < test.min()
    assert abs(len(train) / graph.num_interactions - 0.6) < 0.01


def test_temporal_keeps_a_moment_together_in_the_earlier_part():
    graph = splits.temporal(graph_of([10], times=[0, 1, 2, 3, 3, 3, 3, 7, 8, 9]), (0.5, 0.3, 0.2))
    assert graph.interactions.split.tolist() == [TRAIN] * 7 + [VALID] + [TEST] * 2
    together = splits.temporal(graph_of([10], times=[4] * 10))
    assert set(together.interactions.split) == {TRAIN}


def test_temporal_without_test_leaves_none():
    graph = splits.temporal(graph_of([30], times=np.arange(30)), (0.9, 0.1, 0.0))
    assert sizes(graph, 0) == (27, 3, 0)


def test_carve_valid_leaves_test_alone():
    given = splits.random_split(graph_of([20, 10, 3]), (0.5, 0.0, 0.5), seed=1)
    graph = splits.carve_valid(given, 0.2, seed=2)
    assert ((graph.interactions.split == TEST) == (given.interactions.split == TEST)).all()
    assert [sizes(graph, user) for user in range(3)] == [(8, 2, 10), (4, 1, 5), (1, 0, 2)]
    assert given.interactions.split.max() == TEST
    assert not given.has_split("valid")


def test_carve_valid_of_an_unsplit_graph_counts_all_as_train():
    graph = splits.carve_valid(graph_of([20, 10]), 0.1)
    assert [sizes(graph, user) for user in range(2)] == [(18, 2, 0), (9, 1, 0)]


@pytest.mark.parametrize("split", [splits.carve_valid, splits.carve_cold])
def test_carving_refuses_to_mix(split):
    with pytest.raises(GraphError, match="has validation pairs already"):
        split(planted())


def test_carve_cold_takes_whole_items_and_leaves_test_alone():
    given = splits.random_split(graph_of([20, 10, 30]), (0.5, 0.0, 0.5), seed=1)
    graph = splits.carve_cold(given, 0.25, seed=2)
    assert ((graph.interactions.split == TEST) == (given.interactions.split == TEST)).all()
    train, valid = (set(graph.part(part).item.tolist()) for part in ("train", "valid"))
    assert not train & valid
    taken = set(given.part("train").item.tolist())
    assert train | valid == taken
    assert len(valid) == round(0.25 * len(taken))
    assert len(np.unique(splits.carve_cold(graph_of([3]), 0.01).part("valid").item)) == 1
    other = splits.carve_cold(given, 0.25, seed=3)
    assert set(other.part("valid").item.tolist()) != valid


@pytest.mark.parametrize("split", [splits.leave_last, splits.temporal])
def test_time_is_needed(split):
    with pytest.raises(GraphError, match="needs the time"):
        split(graph_of([3, 4]))


@pytest.mark.parametrize(
    "ratios", [(0.8, 0.2), (0.8, 0.1, 0.2), (0.0, 0.5, 0.5), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5), ()]
)
def test_ratios_are_checked(ratios):
    for split in (splits.random_split, splits.temporal):
        with pytest.raises(KGLoaderError, match="ratios must be 3 numbers"):
            split(planted(), ratios)


def test_other_arguments_are_checked():
    graph = planted()
    with pytest.raises(KGLoaderError, match="seed must be an integer of at least 0, got -1"):
        splits.random_split(graph, seed=-1)
    with pytest.raises(KGLoaderError, match="k must be an integer of at least 1, got 0"):
        splits.leave_last(graph, k=0)
    for ratio in (0.0, 1.0, float("nan")):
        with pytest.raises(KGLoaderError, match="ratio must be within 0 and 1"):
            splits.carve_valid(graph_of([3, 4]), ratio)
        with pytest.raises(KGLoaderError, match="ratio must be within 0 and 1"):
            splits.carve_cold(graph_of([3, 4]), ratio)
    with pytest.raises(KGLoaderError, match="seed must be an integer of at least 0, got True"):
        splits.carve_cold(graph_of([3, 4]), seed=True)


def test_carve_last_takes_the_last_train_item_by_time_and_leaves_test_alone():
    given = splits.leave_last(graph_of([4, 3, 5], times=[3, 1, 4, 2, 3, 1, 2, 9, 8, 7, 6, 5]))
    unsplit = splits.carve_last(given.with_split(None))
    rows = unsplit.interactions
    assert sorted(zip(rows.user, rows.item, strict=True)) == [
        (u, i) for u, n in ((0, 4), (1, 3), (2, 5)) for i in range(n)
    ]
    assert {(int(u), int(i)) for u, i in zip(unsplit.part("valid").user, unsplit.part("valid").item, strict=True)} == {
        (0, 2),
        (1, 0),
        (2, 0),
    }
    codes = np.where(given.interactions.split == VALID, TRAIN, given.interactions.split)
    carved = splits.carve_last(given.with_split(codes))
    assert (carved.interactions.split == given.interactions.split).all()


def test_carve_last_keeps_a_train_item_and_the_order_of_equal_times():
    graph = splits.carve_last(graph_of([1, 2, 6], times=[7, 7, 7, *[5] * 6]), k=2)
    assert [sizes(graph, user) for user in range(3)] == [(1, 0, 0), (2, 0, 0), (4, 2, 0)]
    late = graph.part("valid")
    assert late.item[late.user == 2].tolist() == [4, 5]


def test_carve_last_refuses_what_it_cannot_do():
    with pytest.raises(GraphError, match="carve_last would mix"):
        splits.carve_last(planted())
    with pytest.raises(GraphError, match="carve_last needs the time"):
        splits.carve_last(graph_of([3, 4]))
    with pytest.raises(KGLoaderError, match="k must be an integer of at least 1, got 0"):
        splits.carve_last(graph_of([3, 4], times=np.arange(7)), k=0)
