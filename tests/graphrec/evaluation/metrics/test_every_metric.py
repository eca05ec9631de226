"""What holds for every metric: the naive loop, monotony, short lists, lightness."""

import math
import subprocess
import sys

import pytest
import torch
from cases.rankings import Scene, labelled_ranking, random_scene, ranking_of
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import metrics as naive

from graphrec.evaluation.metrics import METRICS

NAIVE = {name: getattr(naive, name) for name in METRICS if name != "map"} | {"map": naive.mean_average_precision}
# Finding one more item low in the list can lower it: that is what is wrong with it (see its own test).
NOT_MONOTONOUS = {"ndcg_kgat"}

BY_RANK = [name for name, metric in METRICS.items() if metric.scope == "user" and metric.parameter == "k"]
BY_SCORE = [name for name, metric in METRICS.items() if metric.needs_scores]
OF_CATALOGUE = [name for name, metric in METRICS.items() if metric.scope == "catalogue" and metric.parameter == "k"]
BY_LABEL = [name for name, metric in METRICS.items() if metric.needs_labels]

scenes = st.builds(
    random_scene, st.integers(0, 10_000), st.integers(2, 4), st.sampled_from([2, 3, 11, 17]), st.booleans()
)
cut_offs = st.sampled_from([1, 2, 5, 17, 40])


def parameters(name: str, k: int) -> tuple[float, ...]:
    return {"k": (k,), "level": (min(k, 10) / 10,), None: ()}[METRICS[name].parameter]


@pytest.mark.parametrize("k", [1, 3, 10, 30, 150])
@pytest.mark.parametrize("name", BY_RANK)
def test_metrics_of_lists_equal_the_naive_loop(name, k):
    for seed in range(20):
        scene = random_scene(seed)
        expected = [NAIVE[name](listed, wanted, k) for listed, wanted in zip(scene.lists, scene.relevant, strict=True)]
        value = METRICS[name].compute(scene.ranking(), k)
        assert value.dtype == torch.float64
        assert value.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [0, 1, 3, 5, 10])
@pytest.mark.parametrize("name", BY_SCORE)
def test_metrics_of_scores_equal_the_naive_loop(name, k):
    for seed in range(20):
        scene = random_scene(seed, tied=seed % 4 > 0)
        argument = parameters(name, k)
        expected = [NAIVE[name](s, wanted, *argument) for s, wanted in zip(scene.scores, scene.relevant, strict=True)]
        assert METRICS[name].compute(scene.ranking(), *argument).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10, 30, 150])
@pytest.mark.parametrize("name", OF_CATALOGUE)
def test_metrics_of_the_catalogue_equal_the_naive_loop(name, k):
    for seed in range(20):
        scene = random_scene(seed)
        value = METRICS[name].compute(scene.ranking(), k)
        assert value.shape == ()
        assert float(value) == pytest.approx(NAIVE[name](scene.lists, scene.popularity, k), abs=1e-12)


labels = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=12)


@pytest.mark.parametrize("threshold", [None, 0.0, 9.0])
@pytest.mark.parametrize("name", BY_LABEL)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(pairs=labels)
def test_metrics_of_labels_equal_the_naive_loop_and_lie_within_0_and_1(name, threshold, pairs):
    relevant, untaken = zip(*pairs, strict=True)
    value = METRICS[name].compute(labelled_ranking(relevant, untaken, threshold))
    arguments = (threshold,) if name == "ctr_f1" else ()
    assert (value.shape, value.dtype) == ((), torch.float64)
    assert 0 <= value <= 1
    assert float(value) == pytest.approx(NAIVE[name](relevant, untaken, *arguments), abs=1e-12)


@pytest.mark.parametrize("name", BY_LABEL)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(pairs=labels, which=st.integers(0, 100), rise=st.integers(1, 9))
def test_a_higher_score_of_a_relevant_item_never_lowers_a_metric_of_labels(name, pairs, which, rise):
    relevant, untaken = (list(side) for side in zip(*pairs, strict=True))
    before = METRICS[name].compute(labelled_ranking(relevant, untaken, 0.0))
    relevant[which % len(relevant)] += rise
    assert METRICS[name].compute(labelled_ranking(relevant, untaken, 0.0)) >= before


@pytest.mark.parametrize("name", BY_LABEL)
def test_no_pair_at_all_counts_for_nothing(name):
    assert float(METRICS[name].compute(labelled_ranking([], []))) == 0.0


@pytest.mark.parametrize("name", sorted(set(BY_RANK) - NOT_MONOTONOUS))
@settings(deadline=None, max_examples=60, derandomize=True)
@given(scene=scenes, k=cut_offs, place=st.integers(0, 100))
def test_moving_a_relevant_item_up_never_lowers_a_metric_of_lists(name, scene, k, place):
    depth = len(scene.popularity)
    before = METRICS[name].compute(ranking_of(scene.lists, scene.relevant, scene.popularity, depth), k)
    lists = []
    for listed, wanted in zip(scene.lists, scene.relevant, strict=True):
        at = place % len(listed)
        swaps = at > 0 and listed[at] in wanted
        lists.append([*listed[: at - 1], listed[at], listed[at - 1], *listed[at + 1 :]] if swaps else listed)
    after = METRICS[name].compute(ranking_of(lists, scene.relevant, scene.popularity, depth), k)
    assert (after >= before - 1e-12).all()


@pytest.mark.parametrize("name", BY_SCORE)
@settings(deadline=None, max_examples=60, derandomize=True)
@given(data=st.data(), k=cut_offs, which=st.integers(0, 100), rise=st.sampled_from([0.5, 1.0, 3.0, 4.5]))
def test_a_higher_score_of_a_relevant_item_never_lowers_a_metric_of_scores(name, data, k, which, rise):
    # The area gives all tied items the precision at the end of the tie, so leaving a tie can lower it: no ties there.
    scene = data.draw(
        scenes if name != "pr_auc" else st.builds(random_scene, st.integers(0, 10_000), tied=st.just(False))
    )
    rise = rise if name != "pr_auc" else math.floor(rise) + 0.5
    raised = [dict(scores) for scores in scene.scores]
    for scores, wanted in zip(raised, scene.relevant, strict=True):
        scores[sorted(wanted)[which % len(wanted)]] += rise
    argument = parameters(name, k)
    before = METRICS[name].compute(scene.ranking(), *argument)
    after = METRICS[name].compute(Scene(raised, scene.relevant, scene.popularity).ranking(), *argument)
    assert (after >= before - 1e-12).all()


@pytest.mark.parametrize("name", [*BY_RANK, *BY_SCORE])
@settings(deadline=None, max_examples=30, derandomize=True)
@given(scene=scenes, k=cut_offs)
def test_metrics_of_users_lie_within_0_and_1(name, scene, k):
    value = METRICS[name].compute(scene.ranking(), *parameters(name, k))
    assert value.shape == (len(scene.scores),)
    assert (value >= 0).all()
    assert (value <= 1 + 1e-12).all()


@pytest.mark.parametrize("name", [name for name in BY_RANK if name not in ("precision", "f1")])
def test_the_perfect_list_has_1_even_where_k_exceeds_the_catalogue(name):
    ranking = ranking_of([[2, 0, 1], [1]], [{2, 0}, {1}], [1, 1, 1], depth=9)
    assert METRICS[name].compute(ranking, 9).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", OF_CATALOGUE)
def test_empty_lists_count_for_nothing(name):
    ranking = ranking_of([[], []], [{0}, {1}], [1, 1, 1], depth=4)
    assert float(METRICS[name].compute(ranking, 3)) == 0.0


def test_every_metric_states_its_denominator_and_what_users_without_test_items_count_for():
    for name, metric in METRICS.items():
        text = " ".join((metric.compute.__doc__ or "").split())
        assert "**Denominator**:" in text, name
        assert "**No test items**:" in text, name


def test_metrics_load_neither_kg_loaders_nor_scipy_nor_pandas():
    program = (
        "import sys, torch_geometric.nn; known = set(sys.modules); import graphrec.evaluation.metrics; "
        "print(*{n.split('.')[0] for n in set(sys.modules) - known})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"kg_loaders", "scipy", "pandas", "sklearn", "yaml", "jsonargparse"} == set()
