import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields

import pytest

from graphrec.errors import ArgumentError
from graphrec.training import TrainConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", True),
        ("batch_size", 0),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", math.nan),
        ("learning_rate", "fast"),
        ("weight_decay", -0.1),
        ("weight_decay", math.inf),
        ("clip_norm", -1),
        ("schedule", "cosin"),
        ("warmup", 1.5),
        ("warmup", -0.1),
        ("patience", -1),
        ("eval_every", 0),
        ("select_by", ""),
        ("select_by", 20),
        ("refit", "yes"),
        ("select", 1),
        ("checkpoint_minutes", 0),
        ("mixed_precision", "on"),
        ("device", "gpu"),
        ("device", "cuda:"),
        ("device", "cpu:0"),
        ("device", None),
        ("num_threads", -1),
        ("ema_decay", 1.0),
        ("ema_decay", -0.5),
    ],
)
def test_a_bad_value_is_named_with_its_argument(name, value):
    with pytest.raises(ArgumentError) as caught:
        TrainConfig(**{name: value})
    assert name in str(caught.value)
    assert str(value) in str(caught.value)


def test_one_phase_is_left():
    with pytest.raises(ArgumentError, match="select and refit must not both be false"):
        TrainConfig(select=False, refit=False)
    without = TrainConfig(epochs=3, select=False).without_refit()
    assert without == TrainConfig(epochs=3, refit=False)


def test_every_field_is_documented():
    documented = TrainConfig.__doc__.split("Args:")[1].split("Raises:")[0]
    for field in fields(TrainConfig):
        assert f"        {field.name}: " in documented


def test_it_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TrainConfig().epochs = 3


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 1.0])
def test_learning_rate_against_a_table(schedule, warmup):
    config = TrainConfig(epochs=4, learning_rate=2.0, schedule=schedule, warmup=warmup)
    rates = [config.learning_rate_at(epoch, step, num_steps=5) for epoch in range(4) for step in range(5)]
    rise = int(20 * warmup)
    for position, rate in enumerate(rates):
        if position < rise:
            assert rate == pytest.approx(2.0 * (position + 1) / rise)
        else:
            left = (position - rise) / (20 - rise)
            falls = {"constant": 1.0, "cosine": (1 + math.cos(math.pi * left)) / 2, "linear": 1 - left}
            assert rate == pytest.approx(2.0 * falls[schedule])
    assert min(rates) > 0


def test_the_config_is_read_without_torch():
    code = "import sys, graphrec.training; graphrec.training.TrainConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_in_the_package_is_an_attribute_error():
    import graphrec.training

    assert all(getattr(graphrec.training, name) is not None for name in graphrec.training.__all__)
    with pytest.raises(AttributeError, match="Trainr"):
        _ = graphrec.training.Trainr
