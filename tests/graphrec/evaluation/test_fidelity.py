import pytest
import torch
from scipy.stats import spearmanr

from graphrec.errors import ArgumentError
from graphrec.evaluation.fidelity import agreement, fidelity

WEIGHTS = torch.tensor([4.0, 3.0, 2.0, 1.0])


def additive(left):
    return left.float() @ WEIGHTS + 7.0


def test_by_hand():
    found = fidelity(additive, WEIGHTS, shares=(0.25, 0.5))
    # Scores left after 0..4 parts go, of 10: 10, 6, 3, 1, 0; with the first 0..4: 0, 4, 7, 9, 10.
    assert found.deletion == pytest.approx((5 + 6 + 3 + 1) / 40)
    assert found.insertion == pytest.approx((4 + 7 + 9 + 5) / 40)
    assert found.comprehensiveness == pytest.approx((4 + 7) / 20)
    assert found.sufficiency == pytest.approx(1 - (4 + 7) / 20)


def test_no_order_beats_the_true_one_of_a_sum():
    best = fidelity(additive, WEIGHTS)
    for seed in range(20):
        torch.manual_seed(seed)
        other = fidelity(additive, torch.rand(4))
        assert other.deletion >= best.deletion - 1e-9
        assert other.insertion <= best.insertion + 1e-9
        assert other.comprehensiveness <= best.comprehensiveness + 1e-9
        assert other.sufficiency >= best.sufficiency - 1e-9
    worst = fidelity(additive, -WEIGHTS)
    assert worst.deletion == pytest.approx(1 - worst.insertion)


def test_the_unit_is_what_the_input_adds():
    scaled = fidelity(lambda left: 5 * additive(left) - 100, WEIGHTS)
    plain = fidelity(additive, WEIGHTS)
    assert [getattr(scaled, name) for name in vars(plain)] == pytest.approx(list(vars(plain).values()))


def test_a_unit_may_be_given_where_the_parts_add_nothing():
    weights = torch.tensor([1.0, -1.0])
    found = fidelity(lambda left: left.float() @ weights, weights, unit=2.0, shares=(0.5,))
    assert (found.deletion, found.insertion) == (-0.25, 0.25)  # -1, then 0; 1, then 0; in halves
    assert (found.comprehensiveness, found.sufficiency) == (0.5, -0.5)


def test_many_parts_are_taken_in_steps():
    asked = []

    def score(left):
        asked.append(left)
        return left.double().sum(dim=1)

    found = fidelity(score, torch.rand(1000), steps=10, shares=(0.001, 1.0))
    (left,) = asked
    assert left.shape == (2 * (11 + 2), 1000)
    assert left.sum(dim=1).tolist()[:13] == [*range(0, 1001, 100), 1, 1000]
    assert found.deletion == pytest.approx(0.5)
    assert found.comprehensiveness == pytest.approx(0.5005)


@pytest.mark.parametrize(
    ("score", "importance", "options", "message"),
    [
        (additive, torch.rand(4, 1), {}, "one number for each part"),
        (additive, torch.rand(0), {}, "one number for each part"),
        (additive, WEIGHTS, {"unit": 0.0}, "unit must be above 0, got 0.0"),
        (additive, WEIGHTS, {"steps": 0}, "steps must be >= 1"),
        (additive, WEIGHTS, {"shares": (0.0,)}, "shares must be above 0"),
        (lambda left: -additive(left), WEIGHTS, {}, "must be higher with all parts than with none, got -17.0 and -7.0"),
    ],
)
def test_what_cannot_be_measured_is_refused(score, importance, options, message):
    with pytest.raises(ArgumentError, match=message):
        fidelity(score, importance, **options)


def test_agreement_is_scipys_correlation_and_the_overlap_of_the_tops():
    for seed in range(10):
        torch.manual_seed(seed)
        first, second = torch.randint(8, (2, 12)).double()
        correlation, overlap = agreement(first, second, k=3)
        assert correlation == pytest.approx(spearmanr(first, second).statistic)
        assert overlap in (0, 1 / 3, 2 / 3, 1)
    assert agreement(WEIGHTS, WEIGHTS * 2) == (1.0, 1.0)
    assert agreement(WEIGHTS, -WEIGHTS, k=2) == (-1.0, 0.0)
    assert agreement(WEIGHTS, torch.zeros(4))[0] == 0.0


def test_agreement_needs_the_same_parts():
    with pytest.raises(ArgumentError, match="two or more parts"):
        agreement(WEIGHTS, WEIGHTS[:3])
    with pytest.raises(ArgumentError, match="k must be >= 1"):
        agreement(WEIGHTS, WEIGHTS, k=0)
