import pytest

from graphrec.errors import ArgumentError
from graphrec.evaluation.metrics import METRICS, expand, parse


def test_names_hold_a_metric_and_its_parameter():
    assert parse("recall@20") == (METRICS["recall"], 20)
    assert parse("pr_curve@0.5") == (METRICS["pr_curve"], 0.5)
    assert parse("auc") == (METRICS["auc"], None)


def test_pr_curve_stands_for_eleven_points():
    assert expand("pr_curve") == [f"pr_curve@{level / 10}" for level in range(11)]
    assert [parse(name)[1] for name in expand("pr_curve")] == [level / 10 for level in range(11)]
    assert expand("recall@5") == ["recall@5"]


def test_lists_are_as_long_as_the_metric_needs():
    assert [parse(name)[0].depth(parse(name)[1]) for name in ("recall@20", "ndcg_kgat@20", "ndcg_kgat@150", "auc")] == [
        20,
        100,
        150,
        1,
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recal@20", "did you mean 'recall'"),
        ("recall", "needs a cut-off >= 1 such as 'recall@20', got 'recall'"),
        ("recall@0", "needs a cut-off >= 1"),
        ("recall@-3", "needs a cut-off >= 1"),
        ("recall@2.5", "needs a cut-off >= 1"),
        ("recall@²", "needs a cut-off >= 1"),
        ("auc@10", "takes no parameter, got 'auc@10'"),
        ("pr_curve@1.5", "needs a recall level within 0..1"),
        ("pr_curve@half", "needs a recall level within 0..1"),
        ("pr_curve@nan", "needs a recall level within 0..1"),
    ],
)
def test_a_bad_name_says_what_is_allowed(name, message):
    with pytest.raises(ArgumentError, match=message.replace("(", r"\(").replace("..", r"\.\.")):
        parse(name)
