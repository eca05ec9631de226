from __future__ import annotations

import re
import types
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from graphrec.errors import ArgumentError, ConfigError
from graphrec.experiment.catalogue import committed
from graphrec.experiment.config import DataConfig, EvalConfig, options_of
from graphrec.experiment.reading import help_text, read_mapping, read_options, take_option
from graphrec.models import MODELS
from graphrec.training import TrainConfig

REAL_MODELS = dict(MODELS)  # the tests of this folder see toys in their place
UNIONS = (typing.Union, types.UnionType)


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def test_options_reach_their_places() -> None:
    config = read_options(
        ["--model", "inductive-kgat", "--model.dim", "16", "--train.epochs=5", "--data.kg", "none", "--seed", "3"],
        dataset="films",
    ).config
    assert (config.data.name, config.data.kg, config.seed) == ("films", "none", 3)
    assert config.model.name == "InductiveKGAT"
    assert config.model.options == {"dim": 16, "pooling": "mean", "powers": (1.0, 2.0)}
    assert config.train == replace(TrainConfig(), epochs=5)


def test_lists_may_be_written_with_commas() -> None:
    config = read_options(["--eval.metrics", "recall@5,auc", "--data.ratios=0.5,0.25,0.25"], dataset="films").config
    assert config.eval.metrics == ("recall@5", "auc")
    assert config.data.ratios == (0.5, 0.25, 0.25)


def test_name_alone_uses_the_committed_configuration_of_the_flagship(configs: Path) -> None:
    file = write(configs / "films" / "inductive_kgat.yaml", {"model": {"name": "InductiveKGAT", "dim": 24}, "seed": 9})
    read = read_options([], dataset="films")
    assert read.file == file
    assert (read.config.model.options["dim"], read.config.seed) == (24, 9)
    assert read_options(["--model.dim", "12"], dataset="films").config.model.options["dim"] == 12
    assert read_options([], dataset="other").config.model.options["dim"] == 8


def test_model_without_a_file_shares_data_and_evaluation_of_its_neighbours(configs: Path) -> None:
    file = write(
        configs / "films" / "inductive_kgat.yaml",
        {"data": {"split": "random", "seed": 7}, "model": {"name": "InductiveKGAT"}, "train": {"epochs": 3}},
    )
    read = read_options(["--model", "EASE"], dataset="films")
    config = read.config
    assert read.origin == f"EASE's defaults, data and evaluation as in {file}"
    assert read_options([], dataset="films").origin == str(file)
    assert read_options([], dataset="other").origin == "defaults of the constructors"
    assert (config.model.name, config.data.split, config.data.seed) == ("EASE", "random", 7)
    assert config.train.epochs == TrainConfig().epochs


def test_a_path_never_stands_for_a_committed_configuration(configs: Path) -> None:
    write(configs / "films" / "ease.yaml", {"model": "EASE", "seed": 9})
    assert committed("../committed/films", "EASE") == ({"model": {"name": "EASE"}}, None)
    assert committed(".", "EASE")[1] is None


def test_named_file_takes_the_place_of_the_committed_one(configs: Path, tmp_path: Path) -> None:
    write(configs / "films" / "inductive_kgat.yaml", {"model": "InductiveKGAT", "seed": 9})
    file = write(tmp_path / "own.yaml", {"data": {"name": "films"}, "model": {"name": "InductiveKGAT", "dim": 3}})
    read = read_options(["--config", str(file)])
    assert read.file == file
    assert (read.config.data.name, read.config.model.options["dim"], read.config.seed) == ("films", 3, 0)


def test_file_and_option_must_agree_on_the_model(tmp_path: Path) -> None:
    file = write(tmp_path / "own.yaml", {"model": "EASE"})
    with pytest.raises(ConfigError, match="configures EASE, but --model says InductiveKGAT"):
        read_options(["--config", str(file), "--model", "InductiveKGAT"], dataset="films")
    assert read_options(["--config", str(file), "--model", "ease"], dataset="films").config.model.name == "EASE"


def test_published_figures_are_no_settings(tmp_path: Path) -> None:
    file = write(tmp_path / "own.yaml", {"model": "EASE", "published": {"recall@20": 0.1}})
    assert read_options(["--config", str(file)], dataset="films").config.model.name == "EASE"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.dims", "3"], r"--model.dims is not a known setting; did you mean 'model.dim'\?"),
        (["--train.epoch=3"], r"did you mean 'train.epochs'\?"),
        (["--sed", "1"], r"did you mean 'seed'\?"),
        (["--model.dim", "wide"], "model.dim must be int, got 'wide'"),
        (["--model.pooling", "man"], "model.pooling must be one of 'mean', 'sum', got 'man'; did you mean 'mean'"),
        (["--data.kg", "ful"], "did you mean 'full'"),
        (["--data.seed", "1.5"], "data.seed must be int"),
        (["--model", "KGATT"], "model must be one of"),
        (["--model"], "--model needs a value"),
        (["--config", "--seed"], "--config needs a value"),
        (["--config", "absent.yaml"], "absent.yaml: cannot be read"),
        (["--data.name", "books"], "two data sets: 'films', and 'books'"),
        (["--model.num_items", "3"], "model.num_items is not a known setting"),
        (["--model", "EASE", "--model.width", "3"], r"--model.width is not a known setting; EASE has power$"),
        (["--train.lr", "3"], r"--train.lr is not a known setting; section 'train' has .*learning_rate, "),
        (["--trian.epochs", "3"], r"--trian.epochs is not a known setting; did you mean 'train.epochs'\?"),
    ],
)
def test_wrong_options_are_refused_in_one_line(options: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_options(options, dataset="films")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--data.split", "randm"],
            r"data.split must be one of 'given', .*, 'null', got 'randm'; did you mean 'random'\?",
        ),
        (["--data.ratios", "a,1"], r"data.ratios must be a list of numbers or null, got \['a', 1\]"),
        (["--eval.batch_size", "x"], "eval.batch_size must be a whole number or null, got 'x'"),
        (["--model", "EASE", "--model.l2", "[1"], r"model.l2 must be a number or a list of numbers, got '\[1'"),
        (["--model", "EASE", "--model.l2", "abc"], r"model.l2 must be a number or a list of numbers, got \['abc'\]"),
        (["--model.head", "gruu"], "model.head must be one of 'mlp', 'gru', 'null', got 'gruu'; did you mean 'gru'"),
    ],
)
def test_wrong_values_of_several_kinds_are_refused_in_plain_words(options: list[str], message: str) -> None:
    MODELS.update(REAL_MODELS)
    with pytest.raises(ConfigError, match=f"^{message}"):
        read_options(options, dataset="films")


def test_every_option_of_several_kinds_or_of_lists_says_what_it_takes() -> None:
    MODELS.update(REAL_MODELS)
    sources = {"data": DataConfig, "eval": EvalConfig, "train": TrainConfig, **MODELS}
    asked = set()
    for source, cls in sources.items():
        section, model = ("model", source) if source in MODELS else (source, "EASE")
        for name, option in options_of(cls).items():
            key = f"{section}.{name}"
            kinds = typing.get_args(option.hint)
            if not kinds or (str in kinds and typing.get_origin(option.hint) in UNIONS) or (key, kinds) in asked:
                continue
            asked.add((key, kinds))
            with pytest.raises(ConfigError) as caught:
                read_options(["--model", model, f"--{key}", "[["], dataset="films")
            assert re.fullmatch(rf"{key} must be (a |one of )[a-z0-9_', -]+, got '\[\['", str(caught.value))
    assert {"data.split", "eval.metrics", "model.l2", "model.head"} <= {key for key, _ in asked}


def test_ratios_of_a_file_go_with_its_split(configs: Path) -> None:
    data = {"split": "random", "ratios": [0.6, 0.2, 0.2]}
    write(configs / "films" / "ease.yaml", {"data": data, "model": "EASE"})

    def ratios(*options: str) -> Any:
        return read_options(["--model", "EASE", *options], dataset="films").config.data.ratios

    assert ratios() == ratios("--data.split", "random") == (0.6, 0.2, 0.2)
    assert ratios("--data.split", "leave-last") is None
    assert ratios("--data.split=temporal", "--data.ratios=0.5,0.3,0.2") == (0.5, 0.3, 0.2)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ArgumentError, match="epochs must be >= 1, got 0"):
        read_options(["--train.epochs", "0"], dataset="films")


def test_no_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="no data set"):
        read_options(["--model", "EASE"])
    assert read_options(["--model", "EASE", "--data.name", "films"]).config.data.name == "films"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {name: EASE, widht: 3}", "model.widht is not a known setting"),
        ("trian: {epochs: 3}", r"own.yaml: trian is not a known setting; did you mean"),
        ("train: 3", "train must be a mapping, got 3"),
        ("model: [EASE]", "model must be a name or a mapping"),
        ("- model", "must be a mapping of settings, got list"),
        ("model: {name: EASE\nseed: 1", r"own.yaml:2: not valid YAML"),
        ("seed: 1\nmodel: EASE\nseed: 2", r"own.yaml:3: not valid YAML: the key 'seed' is repeated"),
        (
            "model: EASE\ntrain:\n  epochs: 3\n  'epochs': 4",
            r"own.yaml:4: not valid YAML: the key 'epochs' is repeated",
        ),
        ("seed: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("model: graphrec.models.EASE", "model must be one of"),
        ("seed: one", "seed must be int, got 'one'"),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_options(["--config", str(file)], dataset="films")


def test_what_is_written_is_read_back() -> None:
    config = read_options(["--model.powers", "3", "--train.learning_rate", "1", "--seed", "4"], dataset="films").config
    text = yaml.safe_dump(config.to_dict())
    again = read_mapping(yaml.safe_load(text), "config.yaml")
    assert again == config
    assert again.hash == config.hash


def test_a_stored_configuration_must_name_its_model() -> None:
    with pytest.raises(ConfigError, match=r"config.yaml: model.name is missing"):
        read_mapping({"data": {"name": "films"}}, "config.yaml")


def test_the_last_of_several_options_counts() -> None:
    assert take_option(["--a", "1", "--b=2", "--a=3"], "a") == (["--b=2"], "3")
    assert read_options(["--seed", "1", "--seed", "2"], dataset="films").config.seed == 2


def test_help_names_the_options_of_the_model() -> None:
    assert "--model.dim" not in help_text(None)
    shown = help_text("inductive-kgat")
    assert "--model.dim" in shown
    assert "Width of the vectors." in shown
    assert "default: 8" in shown
