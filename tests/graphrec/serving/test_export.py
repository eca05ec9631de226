from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.errors import ArgumentError, LongHistoryWarning, RunError
from graphrec.histories import Histories
from graphrec.models import (
    BPRMF,
    CKE,
    EASE,
    HSTU,
    KGAT,
    KGIN,
    SLIST,
    BERT4Rec,
    Blend,
    DualEASE,
    InductiveKGAT,
    ItemKNN,
    LightGCN,
    Popularity,
    RP3beta,
    SASRec,
    SoftmaxMF,
)
from graphrec.models.base import ClosedFormRecommender
from graphrec.serving.export import export
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.towers import padded, towers_of

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:onnxscript", "ignore::DeprecationWarning:onnx")


def made(kind, **options):
    graph = planted_graph()
    torch.manual_seed(0)
    model = kind.from_graph(graph, **options)
    if hasattr(model, "fit"):
        model.fit(histories_of(graph))
    else:
        model.prepare(histories_of(graph))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    return RunRecommender(model, graph)


def run(folder, name, **inputs):
    session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def test_all_files_can_be_read_by_the_same_people(tmp_path):
    export(made(BPRMF, dim=4), tmp_path / "out", onnx=False)
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert modes["items.safetensors"] == modes["export.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=f"the folder output {tmp_path}/file/out cannot be made: Not a directory"):
        export(made(BPRMF, dim=4), tmp_path / "file" / "out", onnx=False)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(InductiveKGAT, {"dim": 8}), (InductiveKGAT, {"dim": 8, "popularity_prior": 5.0})],
)
def test_a_history_gets_the_scores_of_torch(tmp_path, kind, options):
    recommender = made(kind, **options)
    report = export(recommender, tmp_path / "out")
    assert report["max_difference"] <= 1e-4
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == report
    assert json.loads((tmp_path / "out" / "item_ids.json").read_text()) == list(recommender.graph.items)
    for lists in ([[4, 2, 9], [], [7]], [[5]], [[]], [list(range(60))] * 5):
        histories = Histories.from_lists(lists)
        items = np.full((len(lists), max(1, *map(len, lists)) + 2), -1)  # more padding than needed changes nothing
        for row, one in enumerate(lists):
            items[row, : len(one)] = one
        found = run(tmp_path / "out", "items.onnx", user_vector=run(tmp_path / "out", "user.onnx", items=items))
        with torch.no_grad():
            np.testing.assert_allclose(found, recommender.model.score(histories).numpy(), atol=1e-4)


@pytest.mark.parametrize("kind", [SoftmaxMF, BPRMF])
def test_a_known_user_gets_the_scores_of_torch(tmp_path, kind):
    recommender = made(kind)
    report = export(recommender, tmp_path / "out")
    assert report["inputs"] == ["user_index"]
    assert json.loads((tmp_path / "out" / "user_ids.json").read_text()) == list(recommender.graph.users)
    users = np.array([3, 0, 77])
    found = run(tmp_path / "out", "items.onnx", user_vector=run(tmp_path / "out", "user.onnx", user_index=users))
    with torch.no_grad():
        wanted = recommender.model.score(recommender.known.select(torch.from_numpy(users)))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("vectors", ["safetensors", "parquet"])
def test_item_vectors_are_those_that_score(tmp_path, vectors):
    recommender = made(InductiveKGAT, dim=8)
    export(recommender, tmp_path / "out", vectors, onnx=False)
    assert not list((tmp_path / "out").glob("*.onnx"))
    if vectors == "parquet":
        pytest.importorskip("pyarrow")
        import pandas as pd

        table = pd.read_parquet(tmp_path / "out" / "items.parquet")
        assert table["item_id"].tolist() == list(recommender.graph.items)
        assert table["title"].tolist() == recommender.graph.item_labels
        item, bias = np.stack(table["vector"].to_numpy()), table["bias"].to_numpy()
    else:
        from safetensors.numpy import load_file

        item, bias = load_file(tmp_path / "out" / "items.safetensors").values()
        item, bias = (item, bias) if item.ndim == 2 else (bias, item)
    histories = Histories.from_lists([[1, 2], [5]])
    user = towers_of(recommender.model).user_vectors(histories).numpy()
    with torch.no_grad():
        np.testing.assert_allclose(user @ item.T + bias, recommender.model.score(histories).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "why"),
    [
        (InductiveKGAT, {"head": "mlp"}, "InductiveKGAT has no user and item vectors: with a head its score"),
        (HSTU, {"dim": 8}, "HSTU has no user and item vectors: it reads a history in order, by other blocks than"),
        (BERT4Rec, {"dim": 8}, "BERT4Rec has no user and item vectors: it reads a history in order, by other blocks"),
        (Popularity, {}, "Popularity has no user and item vectors: its score is no inner product"),
    ],
)
def test_models_without_two_sides_say_why(tmp_path, kind, options, why):
    with pytest.raises(ArgumentError, match=why):
        export(made(kind, **options), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


ORDERED = [
    (InductiveKGAT, {"dim": 8, "sequence": 2, "sequence_heads": 2, "max_length": 7}),
    (InductiveKGAT, {"dim": 8, "sequence": 1, "max_length": 7, "num_time_buckets": 20}),
    (InductiveKGAT, {"dim": 8, "sequence": 2, "max_length": 7, "num_time_buckets": 20, "request_time": True}),
    (InductiveKGAT, {"dim": 8, "sequence": 1, "max_length": 7, "popularity_prior": 5.0}),
    (SASRec, {"dim": 8, "heads": 2, "max_length": 7, "temperature": 0.1}),
    (SASRec, {"dim": 8, "max_length": 7}),
]


@pytest.mark.parametrize(("kind", "options"), ORDERED)
def test_towers_read_order_as_their_model(kind, options):
    model = made_in_order(kind, **options).model
    towers = towers_of(model)
    histories = in_time([[4, 2, 9], [], [7], [2, 4, 9], list(range(40)), list(range(7)), list(range(8))])
    with torch.no_grad():
        wanted = model.score(histories)
    torch.testing.assert_close(towers.scores(histories), wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(wanted[0], wanted[3])
    if model.request_time:
        later = replace(histories, asked_at=torch.full((7,), 1e9, dtype=torch.float64))
        assert not torch.allclose(model.score(later)[0], wanted[0])
        torch.testing.assert_close(towers.scores(later), model.score(later), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kind", "options"), ORDERED)
def test_a_history_in_order_gets_the_scores_of_torch(tmp_path, kind, options):
    recommender = made_in_order(kind, **options)
    report = export(recommender, tmp_path / "out")
    assert report["max_difference"] <= 1e-4
    assert report["max_length"] == (None if "popularity_prior" in options else 7)
    histories = in_time([[4, 2, 9], [], [7], list(range(30))])
    items, times = np.full((4, 33), -1), np.zeros((4, 33))
    for row, (start, end) in enumerate(pairwise(histories.offsets.tolist())):
        items[row, : end - start], times[row, : end - start] = histories.items[start:end], histories.times[start:end]
    inputs = {"items": items, "times": times, "asked_at": times.max(axis=1)}
    user = run(tmp_path / "out", "user.onnx", **{name: inputs[name] for name in report["inputs"]})
    with torch.no_grad():
        wanted = recommender.model.score(histories).numpy()
    np.testing.assert_allclose(run(tmp_path / "out", "items.onnx", user_vector=user), wanted, atol=1e-4)


MATCHED = {"dim": 8, "match_temperature": 0.1}
TIMES = {"sequence": 1, "max_length": 7, "num_time_buckets": 20}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (EASE, {}),
        (DualEASE, {"l2": 10.0}),
        (ItemKNN, {}),
        (RP3beta, {}),
        (SLIST, {}),
        (InductiveKGAT, MATCHED),
        (InductiveKGAT, {**MATCHED, "popularity_prior": 5.0}),
        (Blend, {"dim": 8}),
        (Blend, MATCHED),
        (Blend, {**MATCHED, **TIMES, "recency": 3.0}),
        (Blend, {"dim": 8, **TIMES, "request_time": True, "recency": 3.0}),
    ],
)
def test_a_model_without_user_vectors_is_one_file_with_the_scores_of_torch(tmp_path, kind, options):
    recommender = made_in_order(kind, **options)
    report = export(recommender, tmp_path / "out")
    assert report["max_difference"] <= 1e-4
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "item_ids.json", "model.onnx"]
    histories = in_time([[4, 2, 9], [], [7], list(range(30)), [2, 9, 4]])
    items, times = np.full((5, 33), -1), np.zeros((5, 33))
    for row, (start, end) in enumerate(pairwise(histories.offsets.tolist())):
        items[row, : end - start], times[row, : end - start] = histories.items[start:end], histories.times[start:end]
    inputs = {"items": items, "times": times, "asked_at": times.max(axis=1)}
    found = run(tmp_path / "out", "model.onnx", **{name: inputs[name] for name in report["inputs"]})
    with torch.no_grad():
        wanted = recommender.model.score(histories).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(wanted[0] - wanted[3]).max() > 1e-2


def test_a_blend_with_a_head_in_it_says_why_not(tmp_path):
    with pytest.raises(ArgumentError, match="InductiveKGAT has no user and item vectors: with a head"):
        export(made_in_order(Blend, dim=8, head="mlp", rerank=5), tmp_path / "out")


def test_what_is_missing_of_a_history_is_named():
    towers = towers_of(made_in_order(InductiveKGAT, dim=8, sequence=1, num_time_buckets=20).model)
    with pytest.raises(ArgumentError, match="reads when items were taken: histories need times"):
        towers.user_vectors(Histories.from_lists([[1, 2]]))


def made_in_order(kind, **options):
    """A model with weights that matter."""
    graph = planted_graph()
    torch.manual_seed(0)
    model = kind.from_graph(graph, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LongHistoryWarning)
        if isinstance(model, ClosedFormRecommender):
            model.fit(histories_of(graph))
        else:
            model.prepare(histories_of(graph))
            model.complete(histories_of(graph))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return RunRecommender(model.eval(), graph)


def in_time(lists):
    """Histories whose intervals grow from seconds to years."""
    histories = Histories.from_lists(lists)
    return replace(histories, times=(1.5 ** torch.arange(histories.items.numel(), dtype=torch.float64)).round())


def test_a_model_that_reads_a_history_otherwise_is_noticed():
    class Doubled(InductiveKGAT):
        """Adds what its towers do not know."""

        def score(self, histories):
            return 2 * super().score(histories)

    with pytest.raises(ArgumentError, match="reads a history in a way that the user side cannot"):
        towers_of(made(Doubled, dim=8).model)


def test_a_large_linear_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("graphrec.serving.whole_model.MAX_DENSE_ITEMS", 79)
    with pytest.raises(ArgumentError, match=r"a weight from each item to each, 0\.0 GiB for 80 items"):
        export(made(EASE), tmp_path / "out")
    monkeypatch.undo()
    with pytest.raises(ArgumentError, match="EASE has no item vectors to export, only an ONNX file"):
        export(made(EASE), tmp_path / "out", onnx=False)


@pytest.mark.parametrize(("kind", "options"), [(InductiveKGAT, {"match_temperature": 0.1}), (Blend, {"dim": 8})])
def test_models_without_two_towers_say_why(kind, options):
    why = "with match_temperature" if kind is InductiveKGAT else "a blend brings the scores"
    with pytest.raises(ArgumentError, match=f"{kind.__name__} has no user and item vectors: {why}"):
        towers_of(made(kind, **options).model.eval())


def test_what_cannot_be_written_is_refused_first(tmp_path, monkeypatch):
    recommender = made(InductiveKGAT, dim=8)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ArgumentError, match="output must be a new or empty folder"):
        export(recommender, tmp_path / "full")
    with pytest.raises(ArgumentError, match="did you mean 'parquet'"):
        export(recommender, tmp_path / "out", "parqet")
    (tmp_path / "empty").mkdir()
    export(recommender, tmp_path / "empty", onnx=False)
    assert (tmp_path / "empty" / "export.json").is_file()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ArgumentError, match=r"ONNX needs onnxscript: pip install 'graphrec\[onnx\]'"):
        export(recommender, tmp_path / "out")


def test_the_working_folder_can_be_exported_to_while_it_is_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".partial").mkdir()  # of an export that was killed
    (tmp_path / ".partial" / "items.safetensors").touch()
    export(made(BPRMF, dim=4), Path(), onnx=False)
    names = ["export.json", "item_ids.json", "items.safetensors", "user_ids.json"]
    assert sorted(path.name for path in Path().iterdir()) == names  # who stands in it sees them
    assert (tmp_path / "items.safetensors").stat().st_size > 0
    with pytest.raises(ArgumentError, match=r"output must be a new or empty folder, got '\.'"):
        export(made(BPRMF, dim=4), Path(), onnx=False)


@pytest.mark.parametrize("kind", [BPRMF, CKE, KGAT, KGIN, LightGCN, SoftmaxMF, InductiveKGAT])
def test_towers_score_as_their_model(kind):
    recommender = made(kind)
    rows = recommender.known.select(torch.tensor([0, 5, 119]))
    with torch.no_grad():
        wanted = recommender.model.score(rows)
    torch.testing.assert_close(towers_of(recommender.model).scores(rows), wanted, atol=1e-4, rtol=1e-4)
    if not recommender.model.inductive:
        with pytest.raises(ArgumentError, match="histories need user_index"):
            towers_of(recommender.model).scores(rows.strangers())


def test_padding():
    assert padded(Histories.from_lists([])).shape == (0, 1)
    assert padded(Histories.from_lists([[], []])).tolist() == [[-1], [-1]]
