import json
import math

import pytest

from graphrec.errors import ArgumentError
from graphrec.training.early_stopping import EarlyStopping


def test_stops_after_patience_evaluations_without_a_better_one():
    stopping = EarlyStopping(patience=2)
    for epoch, value, stop in [(1, 0.2, False), (2, 0.1, False), (3, 0.3, False), (4, 0.3, False), (5, 0.2, True)]:
        stopping.update(epoch, value)
        assert stopping.should_stop is stop
    assert (stopping.best_epoch, stopping.best_value) == (3, 0.3)


def test_no_patience_never_stops():
    stopping = EarlyStopping(patience=0)
    for epoch in range(1, 50):
        stopping.update(epoch, -epoch)
    assert not stopping.should_stop
    assert stopping.best_epoch == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_chooses_nothing_is_an_error(value):
    with pytest.raises(ArgumentError, match="epoch 4"):
        EarlyStopping(patience=1).update(4, value)


@pytest.mark.parametrize("updates", [[], [(1, 0.1)], [(1, 1 / 3), (2, 0.2)]])
def test_state_goes_through_json_exactly(updates):
    stopping = EarlyStopping(patience=2)
    for update in updates:
        stopping.update(*update)
    other = EarlyStopping(patience=2)
    other.restore(json.loads(json.dumps(stopping.state())))
    assert other == stopping
