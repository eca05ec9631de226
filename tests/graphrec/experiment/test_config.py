from __future__ import annotations

from dataclasses import replace

import pytest
from cases.toy_models import ToyKGAT

from graphrec.errors import ConfigError
from graphrec.experiment.config import DataConfig, ModelConfig, RunConfig, options_of, reads_kg, resolve_model
from graphrec.training import TrainConfig

CONFIG = RunConfig(
    DataConfig("films", split="random", ratios=(0.8, 0.1, 0.1)), ModelConfig("InductiveKGAT", {"dim": 4})
)


def test_the_signature_says_which_options_there_are() -> None:
    options = options_of(ToyKGAT)
    assert list(options) == ["dim", "pooling", "powers"]
    assert options["dim"].default == 8
    assert options["dim"].help == "Width of the vectors."


def test_a_dataclass_has_its_fields_as_options() -> None:
    assert options_of(TrainConfig)["epochs"].default == TrainConfig().epochs
    assert set(options_of(DataConfig)) == {"name", "format", "split", "ratios", "seed", "kg", "features"}


@pytest.mark.parametrize("name", ["InductiveKGAT", "inductive-kgat", "inductive_kgat", "INDUCTIVEKGAT"])
def test_models_are_found_whatever_case_and_hyphens(name: str) -> None:
    assert resolve_model(name) == "InductiveKGAT"


def test_unknown_model_offers_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'Popularity'"):
        resolve_model("Popularty")


@pytest.mark.parametrize(
    "changed",
    [
        replace(CONFIG, seed=1),
        replace(CONFIG, data=replace(CONFIG.data, kg="none")),
        replace(CONFIG, data=replace(CONFIG.data, seed=5)),
        replace(CONFIG, model=ModelConfig("InductiveKGAT", {"dim": 5})),
        replace(CONFIG, train=TrainConfig(epochs=3)),
    ],
)
def test_hash_changes_with_everything_that_changes_results(changed: RunConfig) -> None:
    assert changed.hash != CONFIG.hash
    assert changed.label != CONFIG.label


def test_hash_does_not_change_with_the_folder() -> None:
    assert replace(CONFIG, out="elsewhere").hash == CONFIG.hash
    assert "out" not in CONFIG.to_dict()


def test_label_names_model_kg_and_seed() -> None:
    label = replace(CONFIG, seed=2, data=replace(CONFIG.data, kg="shuffled")).label
    assert label.startswith("inductivekgat-shuffledkg-seed2-")


def test_models_that_read_the_knowledge_graph_take_triples() -> None:
    assert reads_kg(ModelConfig("InductiveKGAT"))
    assert not reads_kg(ModelConfig("Popularity"))
