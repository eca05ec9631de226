import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.graphs import planted_graph
from cases.scoring_models import FixedScores
from reference import metrics as naive

from graphrec.errors import ArgumentError
from graphrec.evaluation import DEFAULT_METRICS, METRICS, Evaluator
from graphrec.histories import Histories
from graphrec.models import Popularity
from kg_loaders import GraphError, Interactions, RecGraph, Vocabulary
from kg_loaders.synthetic import planted

EVERY = [f"{name}@{k}" for name, metric in METRICS.items() if metric.parameter == "k" for k in (1, 5, 20, 200)] + [
    "auc",
    "pr_auc",
    "pr_curve",
]
TRAIN, VALID, TEST = range(3)


def uneven_graph(seed=0, num_users=23, num_items=40):
    """Some users have no test items, some no train items, one has seen nearly all."""
    rng = np.random.default_rng(seed)
    users, items, splits = [], [], []
    for user in range(num_users):
        taken = rng.choice(num_items, size=num_items - 2 if user == 3 else rng.integers(1, 15), replace=False)
        codes = rng.choice([TRAIN, VALID, TEST], size=len(taken), p=[0.5, 0.2, 0.3])
        codes[:] = {5: TRAIN, 6: TEST, 7: VALID}.get(user, codes)
        users += [user] * len(taken)
        items += taken.tolist()
        splits += codes.tolist()
    pairs = Interactions(np.array(users), np.array(items), split=np.array(splits, dtype=np.int8))
    entities = Vocabulary.from_range(num_items + 9, "entity")
    return RecGraph(Vocabulary.from_range(num_users, "user"), entities, num_items, pairs)


def items_by_user(part, num_users):
    return [set(part.item[part.user == user].tolist()) for user in range(num_users)]


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_equals_plain_loops_over_users(split, batch_size):
    graph = uneven_graph()
    model = FixedScores.from_graph(graph)
    told = graph.part("train") if split == "valid" else graph.part("train", "valid")
    seen = items_by_user(told, graph.num_users)
    wanted = items_by_user(graph.part(split), graph.num_users)
    popularity = np.bincount(told.item, minlength=graph.num_items).tolist()

    result = Evaluator(EVERY, batch_size=batch_size).evaluate(model, graph, split)

    users = [user for user in range(graph.num_users) if wanted[user]]
    assert 0 < len(users) < graph.num_users
    assert result.users.tolist() == users
    assert result.num_skipped == graph.num_users - len(users)
    assert sorted(model.told) == users  # nobody else is scored
    assert all(set(model.told[user]) == seen[user] for user in users)
    scores = [{i: float(model.table[u, i]) for i in range(graph.num_items) if i not in seen[u]} for u in users]
    lists = [sorted(row, key=row.get, reverse=True) for row in scores]
    relevant = [wanted[user] for user in users]
    for name, value in result.metrics.items():
        base, _, parameter = name.partition("@")
        function = getattr(naive, "mean_average_precision" if base == "map" else base)
        if METRICS[base].scope == "catalogue":
            assert value == pytest.approx(function(lists, popularity, int(parameter)), abs=1e-12), name
            continue
        source = lists if METRICS[base].parameter == "k" else scores
        arguments = () if not parameter else (float(parameter) if base == "pr_curve" else int(parameter),)
        expected = [function(row, some, *arguments) for row, some in zip(source, relevant, strict=True)]
        assert result.per_user[name].tolist() == pytest.approx(expected, abs=1e-12), name
        assert value == pytest.approx(sum(expected) / len(expected), abs=1e-12), name


def test_one_pass_serves_all_metrics_and_they_do_not_disturb_each_other():
    graph = uneven_graph()
    model = FixedScores.from_graph(graph)
    together = Evaluator(EVERY).evaluate(model, graph).metrics
    assert len(model.batch_sizes) == 1
    for name in ("recall@5", "ndcg_kgat@20", "novelty@1", "auc", "pr_curve@0.3"):
        assert Evaluator([name]).evaluate(model, graph).metrics == {name: together[name]}


@pytest.mark.parametrize("constant", [0.0, -3.5])
def test_a_constant_score_is_a_random_recommender(constant):
    """An order by index would give coverage k / num_items, and all of the recall to whoever likes low indices."""
    num_users, num_items = 3000, 50
    # every user's test item is item 0, the first of all
    pairs = Interactions(
        np.arange(num_users), np.zeros(num_users, dtype=np.int64), split=np.full(num_users, TEST, dtype=np.int8)
    )
    graph = RecGraph(
        Vocabulary.from_range(num_users, "user"), Vocabulary.from_range(num_items + 1, "entity"), num_items, pairs
    )
    model = FixedScores(torch.full((num_users, num_items), constant))
    metrics = Evaluator(["recall@5", "coverage@5", "gini@5", "auc"]).evaluate(model, graph).metrics
    assert metrics["recall@5"] == pytest.approx(5 / num_items, abs=0.03)  # four standard deviations
    assert metrics["coverage@5"] == 1.0
    assert metrics["gini@5"] < 0.1
    assert metrics["auc"] == 0.5


def test_the_seed_decides_ties_and_nothing_else():
    graph = uneven_graph()
    tied = FixedScores(torch.zeros(graph.num_users, graph.num_items))
    first, again, other = (Evaluator(["ndcg@5"], seed=seed).evaluate(tied, graph) for seed in (1, 1, 2))
    assert torch.equal(first.per_user["ndcg@5"], again.per_user["ndcg@5"])
    assert not torch.equal(first.per_user["ndcg@5"], other.per_user["ndcg@5"])
    distinct = FixedScores.from_graph(graph)
    values = {Evaluator(["ndcg@5"], seed=seed).evaluate(distinct, graph).metrics["ndcg@5"] for seed in range(3)}
    assert len(values) == 1


def test_a_user_who_has_seen_all_but_the_test_items_finds_them():
    graph = uneven_graph()
    result = Evaluator(["recall@1", "recall@40", "auc"]).evaluate(FixedScores.from_graph(graph), graph, "test")
    assert (result.per_user["recall@40"] == 1).all()  # k reaches through the catalogue
    assert result.metrics["recall@1"] < 1


def test_items_scored_minus_infinity_come_last_for_auc_and_never_in_a_list():
    pairs = Interactions(np.array([0, 0, 0]), np.array([0, 1, 2]), split=np.array([TRAIN, TEST, TEST], dtype=np.int8))
    graph = RecGraph(Vocabulary(["u"], "user"), Vocabulary.from_range(6, "entity"), 5, pairs)
    model = FixedScores(torch.tensor([[0.0, 1.0, -math.inf, 2.0, -math.inf]]))
    metrics = Evaluator(["recall@5", "auc", "pr_auc"]).evaluate(model, graph).metrics
    assert metrics["recall@5"] == 0.5
    # item 1 is above item 4 and below item 3; item 2 is below item 3 and ties with item 4
    assert metrics["auc"] == pytest.approx((1 + 0 + 0 + 0.5) / 4)
    assert metrics["pr_auc"] == pytest.approx(0.5 * 1 / 2 + 0.5 * 2 / 4)


def test_the_result_is_plain_floats():
    result = Evaluator(["recall@5", "coverage@5"]).evaluate(FixedScores.from_graph(uneven_graph()), uneven_graph())
    content = result.to_dict()
    assert list(content) == ["recall@5", "coverage@5", "num_users", "num_skipped", "seconds"]
    assert all(type(value) is float for value in content.values())
    assert json.loads(json.dumps(content)) == content
    assert content["num_users"] == len(result.users)
    assert set(result.per_user) == {"recall@5"}
    assert "recall@5 0." in str(result)
    assert f"{result.num_skipped} without items left out" in str(result)


def test_values_of_users_share_no_memory():
    """Safetensors refuses tensors that do."""
    result = Evaluator(EVERY).evaluate(FixedScores.from_graph(uneven_graph()), uneven_graph())
    tensors = [result.users, *result.per_user.values()]
    assert len({t.untyped_storage().data_ptr() for t in tensors}) == len(tensors)
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in tensors)


def test_the_default_metrics_are_those_of_every_table():
    evaluator = Evaluator()
    assert tuple(evaluator.metrics) == DEFAULT_METRICS
    assert {"recall@20", "ndcg@20", "recall@10", "ndcg@10", "mrr@10", "coverage@20", "novelty@20"} == set(
        DEFAULT_METRICS
    )


def test_nan_names_the_model_and_the_user():
    graph = uneven_graph()
    model = FixedScores.from_graph(graph)
    model.table[4, 11] = math.nan
    for name in ("recall@5", "auc"):
        with pytest.raises(ArgumentError, match="FixedScores scores NaN for user 4"):
            Evaluator([name]).evaluate(model, graph)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "metrics must be a list of names"),
        ("recall@20", "metrics must be a list of names"),
        (["recal@20"], "did you mean 'recall'"),
        (["recall@0"], "needs a cut-off >= 1"),
    ],
)
def test_bad_metrics_are_named(metrics, message):
    with pytest.raises(ArgumentError, match=message):
        Evaluator(metrics)


def test_what_cannot_be_evaluated_says_why():
    graph = planted_graph()
    model = FixedScores.from_graph(graph)
    evaluator = Evaluator(["recall@5"])
    with pytest.raises(ArgumentError, match="split must be one of 'valid', 'test', got 'train'"):
        evaluator.evaluate(model, graph, "train")
    with pytest.raises(GraphError, match="has not been split"):
        evaluator.evaluate(model, graph.with_split(None))
    only_train = graph.with_split(np.zeros(graph.num_interactions, dtype=np.int8))
    with pytest.raises(ArgumentError, match="no interactions in its test split"):
        evaluator.evaluate(model, only_train)
    with pytest.raises(ArgumentError, match=f"FixedScores ranks 7 items, graph 'planted' has {graph.num_items}"):
        evaluator.evaluate(FixedScores(torch.zeros(120, 7)), replace(graph, name="planted"))
    with pytest.raises(ArgumentError, match="batch_size must be >= 1, got 0"):
        Evaluator(batch_size=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_on_a_gpu_is_measured_alike():
    graph = uneven_graph()
    here = Evaluator(EVERY).evaluate(FixedScores.from_graph(graph), graph)
    there = Evaluator(EVERY).evaluate(FixedScores.from_graph(graph).cuda(), graph)
    assert there.metrics == pytest.approx(here.metrics, abs=1e-12)
    assert there.per_user["recall@5"].device.type == "cpu"


# Candidates


def test_only_candidates_are_ranked_and_metrics_of_the_catalogue_are_refused():
    graph = planted()
    model = Popularity.from_graph(graph)
    model.fit(Histories.from_interactions(graph.part("train"), graph.num_users))
    few = Evaluator(["recall@10"], candidates=40).evaluate(model, graph, split="valid")
    held = graph.part("valid")
    beyond = torch.from_numpy(held.user[held.item >= 40])
    assert not few.per_user["recall@10"][torch.isin(few.users, beyond)].any()
    every = Evaluator(["recall@10"]).evaluate(model, graph, split="valid")
    same = Evaluator(["recall@10"], candidates=graph.num_items).evaluate(model, graph, split="valid")
    assert torch.equal(every.per_user["recall@10"], same.per_user["recall@10"])
    inside = ~torch.isin(few.users, beyond)
    assert (few.per_user["recall@10"][inside] >= every.per_user["recall@10"][inside]).all()
    for metrics in (["coverage@10"], ["auc"]):
        with pytest.raises(ArgumentError, match="head of a list alone with candidates"):
            Evaluator(metrics, candidates=40)
    for wrong, told in ((0, "candidates must be >= 1"), ([], "number of candidates must be >= 1"), ([3, -1], ">= 0")):
        with pytest.raises(ArgumentError, match=told):
            Evaluator(["recall@10"], candidates=wrong)
    with pytest.raises(ArgumentError, match="candidates must be <= 79, got 80"):
        Evaluator(["recall@10"], candidates=[3, 80]).evaluate(model, graph, split="valid")


def test_a_list_is_no_longer_than_the_catalogue(monkeypatch):
    graph = uneven_graph()
    model = FixedScores(torch.rand(graph.num_users, graph.num_items))
    taken, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **rest: taken.append(size) or empty(*size, **rest))
    names = [f"{name}@" for name, metric in METRICS.items() if metric.parameter == "k"]
    far = Evaluator([name + "1000000" for name in names]).evaluate(model, graph)
    assert max(math.prod(size) for size in taken if isinstance(size[0], int)) <= 20 * graph.num_users * graph.num_items
    monkeypatch.undo()
    near = Evaluator([name + "1000" for name in names]).evaluate(model, graph)
    for name in set(names) - {"precision@", "f1@"}:
        assert far.metrics[name + "1000000"] == near.metrics[name + "1000"], name
    assert far.metrics["precision@1000000"] == pytest.approx(near.metrics["precision@1000"] / 1000)


def test_more_candidates_than_items_are_refused():
    graph = uneven_graph()
    model = FixedScores(torch.rand(graph.num_users, graph.num_items))
    with pytest.raises(ArgumentError, match="candidates must be <= 40, got 41"):
        Evaluator(["recall@5"], candidates=41).evaluate(model, graph)


def test_candidates_may_be_any_items():
    graph = planted()
    model = Popularity.from_graph(graph)
    model.fit(Histories.from_interactions(graph.part("train"), graph.num_users))
    of_first, of_list = (
        Evaluator(["ndcg@10"], candidates=candidates).evaluate(model, graph, split="valid").per_user["ndcg@10"]
        for candidates in (40, list(range(40)))
    )
    assert torch.equal(of_first, of_list)
    asked = np.unique(graph.part("valid").item).tolist()
    some, every = (
        Evaluator(["recall@5"], candidates=given).evaluate(model, graph, split="valid") for given in (asked[::2], None)
    )
    held = graph.part("valid")
    found = torch.isin(some.users, torch.from_numpy(held.user[np.isin(held.item, asked[::2])]))
    assert not some.per_user["recall@5"][~found].any()
    assert some.per_user["recall@5"][found].mean() > every.per_user["recall@5"][found].mean()
