from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph, relabel, with_attributes

from graphrec.encoders import SideFeatureEncoder, side_features_of
from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from kg_loaders.graph import Feature

MONDAY = 4 * 86_400  # the fifth of January 1970, 0:00 UTC


def timed(times):
    size = len(times)
    bounds = torch.arange(size + 1)
    return Histories(torch.zeros(size, dtype=torch.int64), bounds, times=torch.tensor(times, dtype=torch.float64))


def users(index):
    return Histories.from_lists([[0]] * len(index), index)


def test_equal_values_have_equal_vectors_and_what_is_missing_is_unknown_not_zero():
    gender = Feature.text(["F", "M", "", "M", "F"] * 5)
    encoder = SideFeatureEncoder({"gender": gender}, channels=4).eval()
    assert encoder.values == {"gender": ("F", "M")}
    vectors = encoder(users([0, 1, 2, 3, 4]))
    assert torch.equal(vectors[0], vectors[4])
    assert torch.equal(vectors[1], vectors[3])
    assert not torch.equal(vectors[0], vectors[1])
    unknown = vectors[2]
    assert unknown.abs().min() > 0
    for strangers in (users([0]).strangers(), users([-1]), users([25]), users([10**9])):
        assert torch.equal(encoder(strangers)[0], unknown)


def test_values_of_few_users_are_unknown():
    town = Feature.text(["A"] * 5 + ["B"] * 4 + ["C"] * 6)
    encoder = SideFeatureEncoder({"town": town}).eval()
    assert encoder.values == {"town": ("A", "C")}
    assert torch.equal(encoder(users([6])), encoder(users([0]).strangers()))
    alone = Feature.text([f"code {n}" for n in range(20)])
    with pytest.raises(ArgumentError, match="no value of 'code' is that of 5 users, so none can be learned"):
        SideFeatureEncoder({"code": alone})


def test_many_different_numbers_are_cut_into_groups_of_equal_size():
    ages = np.random.default_rng(0).permutation(80)
    encoder = SideFeatureEncoder({"age": Feature.text([*map(str, ages), ""])}).eval()
    codes = encoder.codes[:, 0].tolist()
    assert [codes.count(code) for code in range(9)] == [1] + [10] * 8
    in_order = [code for _, code in sorted(zip(ages.tolist(), codes[:80], strict=True))]
    assert in_order == sorted(in_order)
    few = SideFeatureEncoder({"age": Feature.text([str(n % 7) for n in range(70)])})
    assert few.values["age"] == tuple("0123456")


def test_hours_and_weekdays_are_those_of_the_latest_item():
    encoder = SideFeatureEncoder({}, ["hour", "weekday"], channels=3).eval()
    hours = encoder(timed([MONDAY, MONDAY + 3599, MONDAY + 3600, MONDAY + 7 * 86_400]))
    assert torch.equal(hours[0], hours[1])
    assert torch.equal(hours[0], hours[3])
    assert not torch.equal(hours[0, :3], hours[2, :3])
    assert torch.equal(hours[0, 3:], hours[2, 3:])
    sunday = encoder(timed([MONDAY - 1, MONDAY + 7 * 86_400 - 1]))
    assert torch.equal(sunday[0], sunday[1])
    assert not torch.equal(sunday[0, 3:], hours[0, 3:])
    # 1: Monday; 24: from 23:00.
    codes = encoder._of_times(timed([MONDAY, MONDAY - 1]))
    assert codes.tolist() == [[1, 1], [24, 7]]
    several = Histories(torch.tensor([0, 1, 2]), torch.tensor([0, 3]), times=torch.tensor([5.0, MONDAY, 7.0]).double())
    assert torch.equal(encoder(several)[0], hours[0])


def test_without_a_time_the_hour_is_unknown():
    encoder = SideFeatureEncoder({}, ["hour"], channels=3).eval()
    empty = Histories(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0]), times=torch.empty(0).double())
    unknown = encoder(Histories.from_lists([[1]]))
    assert torch.equal(encoder(empty), unknown)
    assert not torch.equal(encoder(timed([0.0])), unknown)


def test_training_hides_some_of_what_is_known():
    gender = Feature.text(["F", "M"] * 500)
    encoder = SideFeatureEncoder({"gender": gender}, drop=0.3).train()
    everybody = users(list(range(1000)))
    drawn = encoder(everybody, torch.Generator().manual_seed(1))
    unknown = encoder.eval()(everybody.strangers())
    share = (drawn == unknown).all(dim=1).double().mean()
    assert 0.25 < share < 0.35
    encoder.train()
    assert torch.equal(encoder(everybody, torch.Generator().manual_seed(1)), drawn)
    assert SideFeatureEncoder({"gender": gender}, drop=0.0).train()(everybody).unique(dim=0).size(0) == 2


def test_weights_do_not_hold_what_is_known_of_users():
    encoder = SideFeatureEncoder({"gender": Feature.text(["F", "M"] * 10)}, ["hour"])
    assert list(encoder.state_dict()) == ["table"]
    assert encoder.table.shape == (3 + 25, 16)
    assert encoder.out_channels == 32
    assert repr(encoder) == "SideFeatureEncoder(gender, hour, channels=16)"


def test_the_order_of_users_changes_nothing():
    graph = with_attributes(planted_graph())
    other = relabel(graph)
    torch.manual_seed(0)
    encoder = side_features_of(graph, ["taste", "age", "hour"]).eval()
    moved = side_features_of(other.graph, ["taste", "age", "hour"]).eval()
    moved.load_state_dict(encoder.state_dict())
    found = moved(histories_of(other.graph))[torch.from_numpy(other.users)]
    assert torch.equal(found, encoder(histories_of(graph)))


def test_a_users_own_feature_comes_before_a_context_of_its_name():
    graph = planted_graph()
    own = replace(graph, user_features={"hour": Feature.text(["early", "late"] * 60)})
    assert side_features_of(own, ["hour"]).values == {"hour": ("early", "late")}
    assert side_features_of(graph, []) is None


def test_missing_and_useless_features_are_named():
    graph = with_attributes(planted_graph())
    allowed = "'taste', 'age', 'code', 'hour', 'weekday'"
    with pytest.raises(ArgumentError, match=rf"among those of planted \({allowed}\), got 'gender'$"):
        side_features_of(graph, ["gender"])
    timeless = replace(planted_graph(), interactions=replace(graph.interactions, time=None))
    with pytest.raises(ArgumentError, match=r"planted \(none\), got 'hour'; its interactions have no times"):
        side_features_of(timeless, ["hour"])
    with pytest.raises(ArgumentError, match="must be distinct"):
        side_features_of(graph, ["taste", "taste"])
    with pytest.raises(ArgumentError, match="no value of 'code' is that of 5 users"):
        side_features_of(graph, ["code"])
    vectors = replace(graph, user_features={"face": Feature.vectors(np.ones((120, 3)))})
    with pytest.raises(ArgumentError, match="'face' must be text"):
        side_features_of(vectors, ["face"])
    nobody = replace(graph, user_features={"age": Feature.text([""] * 120)})
    with pytest.raises(ArgumentError, match="no value of 'age'"):
        side_features_of(nobody, ["age"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": {}}, "must not both be empty"),
        (
            {"features": {}, "contexts": ["houre"]},
            "one of 'hour', 'weekday', got 'houre'; did you mean",
        ),
        ({"features": {}, "contexts": ["hour"], "channels": 0}, "channels must be"),
        ({"features": {}, "contexts": ["hour"], "drop": 1.5}, "drop must be"),
    ],
)
def test_values_outside_their_range_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        SideFeatureEncoder(**options)
