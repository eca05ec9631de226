import json

import pytest

from graphrec.errors import ArgumentError, RunError
from graphrec.experiment.pictures import About, learning_curves, metric_curves, metric_intervals, precision_recall
from graphrec.experiment.report import Figure

ABOUT = About("films", "random, test", 0)


def record(epoch, phase="select", valid=None, loss=2.0):
    return {"phase": phase, "epoch": epoch, "loss": loss, "valid": valid, "seconds": 0.1, "lr": 0.01}


LOG = [
    record(1, loss=3.0),
    record(2, valid={"ndcg@20": 0.2}),
    record(3, loss=1.5),
    record(4, valid={"ndcg@20": 0.3}),
    record(6, valid={"ndcg@20": 0.3}),
    record(1, "refit"),
]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_learning_curve_has_the_measured_epochs_and_marks_the_first_best():
    ax = learning_curves({"KGAT": LOG}, "ndcg@20", ABOUT)
    curve, best = ax.lines
    assert curve.get_xydata().tolist() == [[2, 0.2], [4, 0.3], [6, 0.3]]
    assert best.get_xydata().tolist() == [[4, 0.3]]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("ndcg@20, validation", "epoch (marked: the best)")
    assert ax.texts[0].get_text() == str(ABOUT)


def test_loss_curve_has_all_epochs_that_select():
    ax = learning_curves({"KGAT": LOG}, "loss", ABOUT)
    assert ax.lines[0].get_xydata().tolist() == [[1, 3.0], [2, 2.0], [3, 1.5], [4, 2.0], [6, 2.0]]


def test_a_run_folder_is_read(tmp_path):
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    ax = learning_curves({"folder": tmp_path, "records": LOG}, "ndcg@20", ABOUT)
    assert ax.lines[0].get_xydata().tolist() == ax.lines[2].get_xydata().tolist()
    assert legend(ax) == ["folder", "records"]


def test_what_cannot_be_drawn_is_named(tmp_path):
    with pytest.raises(
        ArgumentError, match=r"runs\['KGAT'\] has no epochs with 'recall@9'; it measured 'loss', 'ndcg@20'"
    ):
        learning_curves({"KGAT": LOG}, "recall@9", ABOUT)
    with pytest.raises(ArgumentError, match=r"no epochs with 'ndcg@20'"):
        learning_curves({"EASE": [record(1, valid={"ndcg@20": 0.3}, loss=None)]}, "ndcg@20", ABOUT)
    with pytest.raises(RunError, match=r"log\.jsonl"):
        learning_curves({"KGAT": tmp_path}, "loss", ABOUT)
    with pytest.raises(ArgumentError, match="runs must hold at least one"):
        learning_curves({}, "loss", ABOUT)


def test_metric_curves_go_through_the_means_and_shade_the_intervals():
    lines = {"EASE": {10: Figure(0.3, 0.2, 0.4), 1: Figure(0.1, 0.05, 0.15)}, "Popularity": {1: Figure(0.05)}}
    ax = metric_curves(lines, "films named", "NDCG@10", ABOUT, log=True)
    assert ax.lines[0].get_xydata().tolist() == [[1, 0.1], [10, 0.3]]
    (band,) = ax.collections
    assert {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()} >= {
        (1, 0.05),
        (1, 0.15),
        (10, 0.2),
        (10, 0.4),
    }
    assert legend(ax) == ["EASE", "Popularity"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "10"]
    assert ax.get_title(loc="left") == "NDCG@10 against films named"
    with pytest.raises(ArgumentError, match=r"lines\['EASE'\]"):
        metric_curves({"EASE": {}}, "films", "NDCG@10", ABOUT)


def test_metric_intervals_show_means_and_ends():
    rows = {"Popularity": Figure(0.1), "EASE": Figure(0.3, 0.25, 0.36)}
    ax = metric_intervals(rows, "ndcg@20", ABOUT, reference="EASE")
    assert [line.get_xydata().tolist() for line in ax.lines[:2]] == [[[0.1, 0]], [[0.3, 1]]]
    assert ax.collections[0].get_segments()[0].tolist() == [[0.25, 1], [0.36, 1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Popularity", "EASE"]
    assert [text.get_text() for text in ax.texts] == ["0.1000", "0.3000", str(ABOUT)]
    assert set(ax.lines[2].get_xdata()) == {0.3}
    with pytest.raises(ArgumentError, match="reference must be one of 'Popularity', 'EASE', got 'KGAT'"):
        metric_intervals(rows, "ndcg@20", ABOUT, reference="KGAT")


def test_precision_recall_goes_by_level():
    metrics = {"pr_curve@1.0": 0.1, "pr_curve@0.0": 0.8, "recall@20": 0.3}
    ax = precision_recall({"EASE": metrics}, ABOUT)
    assert ax.lines[0].get_xydata().tolist() == [[0, 0.8], [1, 0.1]]
    assert legend(ax) == ["EASE"]
    with pytest.raises(ArgumentError, match=r"models\['EASE'\] holds no pr_curve@LEVEL"):
        precision_recall({"EASE": {"recall@20": 0.3}}, ABOUT)


def test_curves_may_fall_below_zero():
    lines = {"attention": {1: Figure(-0.1, -0.2, 0.0), 2: Figure(0.1, 0.0, 0.2)}}
    ax = metric_curves(lines, "films removed", "drop in score", ABOUT)
    assert ax.get_ylim()[0] < -0.2
    above = metric_curves({"EASE": {1: Figure(0.3)}}, "films", "NDCG@10", ABOUT)
    assert above.get_ylim()[0] == 0
