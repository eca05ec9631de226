import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cases.tiny_training import ScriptedEvaluator, StubEvaluator, TinyModel, tiny_config, tiny_graph

from graphrec.errors import RunError
from graphrec.training.identity import check_identity, run_identity
from kg_loaders import Vocabulary

PATH = Path("run/checkpoint.safetensors")


def identity(config=None, seed=0, model=None, graph=None, evaluator=None):
    return run_identity(
        config or tiny_config(),
        seed,
        model or TinyModel(),
        graph or tiny_graph(),
        evaluator or StubEvaluator(),
        torch.device("cpu"),
    )


def renamed(graph):
    return replace(graph, users=Vocabulary([f"u{i}" for i in range(graph.num_users)], "user"))


def frozen():
    model = TinyModel()
    model.inputs.weight.requires_grad_(False)
    return model


def with_data(value):
    model = TinyModel()
    model.register_buffer("edges", torch.tensor([value]), persistent=False)
    return model


def started():
    model = TinyModel()
    weights = {"inputs.weight": torch.zeros(30, 8)}
    model.starting_weights = lambda: weights
    return model


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: {"config": tiny_config(learning_rate=0.125)}, "train.learning_rate was 0.05, is 0.125"),
        (lambda: {"config": tiny_config(epochs=6)}, "train.epochs was 5, is 6"),
        (lambda: {"seed": 4}, "seed was 0, is 4"),
        (lambda: {"model": TinyModel(dim=4)}, "weights.inputs.weight was 'torch.float32 [30, 8]'"),
        (lambda: {"model": TinyModel(dropout=0.25)}, "model.dropout.p was 0.2, is 0.25"),
        (lambda: {"model": TinyModel(num_negatives=9)}, "model.num_negatives was 5, is 9"),
        (lambda: {"graph": tiny_graph(seed=1)}, "graph was '"),
        (lambda: {"graph": renamed(tiny_graph())}, "users was '41 ids"),
        (
            lambda: {"model": frozen()},
            "weights.inputs.weight was 'torch.float32 [30, 8]', is 'torch.float32 [30, 8] frozen'",
        ),
        (lambda: {"model": with_data(2)}, "data.edges was 'absent', is 'torch.int64 [1], sha256 "),
        (lambda: {"model": started()}, "start..inputs.weight was 'absent', is 'torch.float32 [30, 8], sha256 "),
        (lambda: {"evaluator": ScriptedEvaluator([])}, "evaluator.metrics was ['recall@5', 'mrr'], is ['mrr']"),
        (lambda: {"evaluator": StubEvaluator(seed=2)}, "evaluator.seed was 0, is 2"),
    ],
)
def test_a_difference_is_named(change, named):
    with pytest.raises(RunError) as caught:
        check_identity(PATH, identity(), identity(**change()))
    assert str(PATH) in str(caught.value)
    assert named in str(caught.value)


def test_what_changes_no_result_is_free():
    other = tiny_config(checkpoint_minutes=1.0, device="auto" if not torch.cuda.is_available() else "cpu")
    check_identity(PATH, identity(), identity(config=other, graph=replace(tiny_graph(), name="other")))


def test_data_outside_the_state_count_by_their_values():
    check_identity(PATH, identity(model=with_data(2)), identity(model=with_data(2)))
    with pytest.raises(RunError, match=r"data\.edges was"):
        check_identity(PATH, identity(model=with_data(2)), identity(model=with_data(3)))


def test_settings_that_json_changes_are_equal_to_themselves():
    model, again = TinyModel(), TinyModel()
    for each in (model, again):
        each.pair, each.limit, each.names, each.table = (1, 2), math.nan, ["x"] * 500, {"not": "plain"}
    saved = identity(model=model)
    check_identity(PATH, saved, identity(model=again))
    assert saved["model.pair"] == [1, 2]
    assert saved["model.names"].startswith("sha256")
    assert "model.table" not in saved
    again.names = ["x"] * 499
    with pytest.raises(RunError, match=r"model\.names"):
        check_identity(PATH, saved, identity(model=again))


def test_many_differences_are_cut_short():
    with pytest.raises(RunError, match=r"\(and 2 more\)"):
        check_identity(PATH, {str(i): i for i in range(7)}, {})
