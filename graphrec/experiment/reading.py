"""From a YAML file and ``--a.b value`` options to a checked RunConfig."""

from __future__ import annotations

import argparse
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jsonargparse

from graphrec.errors import ConfigError, check_choice
from graphrec.experiment.catalogue import FLAGSHIP, committed, committed_files, read_yaml
from graphrec.experiment.config import (
    DataConfig,
    EvalConfig,
    ModelConfig,
    Option,
    RunConfig,
    options_of,
    resolve_model,
    simplified,
)
from graphrec.training.config import TrainConfig

# One and several of a type that an option may have.
WORDS: dict[Any, tuple[str, str]] = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    bool: ("true or false", "truth values"),
    type(None): ("null", "nulls"),
}
SECTIONS: dict[str, type] = {"data": DataConfig, "train": TrainConfig, "eval": EvalConfig}


@dataclass(frozen=True)
class Read:
    """A configuration, and the file it was read from.

    Args:
        config: What was read, not yet resolved against a graph.
        file: The YAML file that it stands on, committed or named; ``None`` if there is none.
    """

    config: RunConfig
    file: Path | None

    @property
    def origin(self) -> str:
        """Where the settings come from, in words."""
        if self.file is None:
            return "defaults of the constructors"
        model = self.config.model.name
        lent = self.file in committed_files() and simplified(self.file.stem) != simplified(model)
        return f"{model}'s defaults, data and evaluation as in {self.file}" if lent else str(self.file)


def read_options(argv: Sequence[str], dataset: str | None = None) -> Read:
    """Return the configuration that command-line options describe.

    Args:
        argv: Options such as ``--model EASE --model.dim 64 --config FILE --seed 1 --train.epochs 5``.
        dataset: Name or folder of the data; without it, the file must name it.

    Raises:
        ConfigError: An unknown key (the message offers the nearest), a wrong type, or no data set.

    Example:
        >>> read_options(["--model", "ease", "--seed", "3"], dataset="ml-100k").config.seed
        3
    """
    rest, file = take_option(argv, "config")
    rest, model = take_option(rest, "model", "model.name")
    rest, named_data = take_option(rest, "data.name")
    if None not in (dataset, named_data) and dataset != named_data:
        raise ConfigError(f"two data sets: {dataset!r}, and {named_data!r} by --data.name")
    dataset = dataset if dataset is not None else named_data
    source: Path | None
    if file is not None:
        settings, source = read_yaml(Path(file)), Path(file)
    else:
        settings, source = committed(dataset or "", model)
    settings = _with_model_name(_without_ratios_of_another_split(settings, take_option(rest, "data.split")[1]))
    named = settings["model"].get("name")
    if model is not None and named is not None and resolve_model(model) != resolve_model(str(named)):
        raise ConfigError(f"{source} configures {named}, but --model says {model}; give one of the two")
    name = resolve_model(str(model or named or FLAGSHIP))
    config = _parse(settings, rest, name, source=str(source or "configuration"))
    if dataset is not None:
        config = replace(config, data=replace(config.data, name=dataset))
    if not config.data.name:
        raise ConfigError("no data set: name one, or give a --config that holds data.name")
    return Read(config, source)


def read_mapping(settings: Mapping[str, Any], source: str) -> RunConfig:
    """Return the configuration that nested settings describe, as they stand in a run's ``config.yaml``.

    Args:
        settings: Nested values with the keys data, model, train, eval, seed, out.
        source: What to call them in messages.

    Raises:
        ConfigError: An unknown key or a wrong type.
    """
    named = _with_model_name(settings)
    name = named.get("model", {}).get("name")
    if name is None:
        raise ConfigError(f"{source}: model.name is missing")
    return _parse(named, [], resolve_model(str(name)), source)


def take_option(options: Sequence[str], *names: str) -> tuple[list[str], str | None]:
    """Split one option off a list of ``--name VALUE`` and ``--name=VALUE``.

    Args:
        options: Command-line options, each with a value.
        names: What the option is called, without dashes.

    Returns:
        The other options, and its value: the last one given, ``None`` if there is none.

    Raises:
        ConfigError: It has no value.

    Example:
        >>> take_option(["--seed", "1", "--model=EASE"], "model")
        (['--seed', '1'], 'EASE')
    """
    rest: list[str] = []
    value: str | None = None
    tokens = iter(options)
    for token in tokens:
        flag, equals, inline = token.partition("=")
        if flag not in {f"--{name}" for name in names}:
            rest.append(token)
            continue
        value = inline if equals else next(tokens, None)
        if value is None or (not equals and value.startswith("--")):
            raise ConfigError(f"{flag} needs a value")
    return rest, value


def split_model_options(options: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options that all models have, and those of one model's constructor.

    Example:
        >>> split_model_options(["--seed", "1", "--model.dim=8", "--train.epochs", "2"])
        (['--seed', '1', '--train.epochs', '2'], ['--model.dim=8'])
    """
    shared: list[str] = []
    own: list[str] = []
    tokens = iter(options)
    for token in tokens:
        to = own if token.startswith("--model.") else shared
        to.append(token)
        if token.startswith("--") and "=" not in token:
            to.extend(value for value in (next(tokens, None),) if value is not None)
    return shared, own


def make_parser(model: str | None) -> jsonargparse.ArgumentParser:
    """Return a parser of all settings; with a model, also of its constructor's keyword arguments."""
    parser = jsonargparse.ArgumentParser(prog="graphrec", exit_on_error=False, add_help=False)
    for key, option in _options(model).items():
        parser.add_argument(f"--{key}", type=option.hint, default=option.default, help=_plain(option.help) or None)
    return parser


def _plain(text: str) -> str:
    r"""Return the words of a docstring without their markup, as a terminal shows them.

    Example:
        >>> _plain(r"Above 0 it is :class:`~graphrec.models.SLIST`; :math:`\tau_m`, a ``number``")
        'Above 0 it is SLIST; tau_m, a number'
    """
    text = re.sub(r":math:`([^`]*)`", lambda found: found[1].replace("\\", ""), text)
    return re.sub(r":[a-z]+:`(?:~[^`]*\.)?([^`]*)`", r"\1", text).replace("``", "")


def help_text(model: str | None) -> str:
    """Return the settings with their types and defaults, for ``--help``."""
    return make_parser(None if model is None else resolve_model(model)).format_help().split("\n\n", 1)[1]


def _options(model: str | None) -> dict[str, Option]:
    options = {
        f"{section}.{name}": option for section, cls in SECTIONS.items() for name, option in options_of(cls).items()
    }
    if model is not None:
        from graphrec.models import MODELS

        options |= {f"model.{name}": option for name, option in options_of(MODELS[model]).items()}
    options["seed"] = Option("seed", int, 0, "Seed of all randomness but the split's.")
    options["out"] = Option("out", str | None, None, "Run folder; chosen from the configuration when not given.")
    return options


def _parse(settings: Mapping[str, Any], argv: Sequence[str], model: str, source: str) -> RunConfig:
    options = _options(model)
    flat = dict(_flatten(settings, source))
    flat.pop("model.name", None)
    for key in flat:
        _check_key(key, options, f"{source}: ", model)
    argv = list(_with_brackets(argv, options))
    for token in argv:
        if token.startswith("--"):
            _check_key(token[2:].split("=", 1)[0], options, "--", model)
    parser = make_parser(model)
    try:
        read = parser.parse_object(_nest(flat)) if flat else None
        values = parser.parse_args(argv, namespace=read).as_dict()
    except (argparse.ArgumentError, jsonargparse.ArgumentError) as error:
        raise ConfigError(_one_line(str(error), options)) from error
    return RunConfig(
        data=DataConfig(**values["data"]),
        model=ModelConfig(model, values.get("model", {})),
        train=TrainConfig(**values["train"]),
        eval=EvalConfig(**values["eval"]),
        seed=values["seed"],
        out=values["out"],
    )


def _without_ratios_of_another_split(settings: Mapping[str, Any], split: str | None) -> Mapping[str, Any]:
    """Return the settings without the ratios that a file gives for its own split, where the caller wants another."""
    data = settings.get("data")
    if split is None or not isinstance(data, Mapping) or data.get("split") in (None, split):
        return settings
    return {**settings, "data": {key: value for key, value in data.items() if key != "ratios"}}


def _with_model_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with ``model: NAME`` written out as ``model: {name: NAME}``."""
    model = settings.get("model", {})
    if isinstance(model, str):
        model = {"name": model}
    elif not isinstance(model, Mapping):
        raise ConfigError(f"model must be a name or a mapping with the key name, got {model!r}")
    return {**settings, "model": dict(model)}


def _flatten(settings: Mapping[str, Any], source: str) -> Iterator[tuple[str, Any]]:
    """Yield ``("data.name", value)`` of settings that are two levels deep."""
    for key, value in settings.items():
        if key in ("model", *SECTIONS):
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {key} must be a mapping, got {value!r}")
            for inner, inner_value in value.items():
                yield f"{key}.{inner}", inner_value
        else:
            yield str(key), value


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, dot, name = key.partition(".")
        if dot:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    return nested


def _check_key(key: str, options: Iterable[str], prefix: str, model: str) -> None:
    if key in options:
        return
    known = [*options, *SECTIONS, "config", "model", "model.name"]
    section = key.rpartition(".")[0]
    siblings = sorted(option.rpartition(".")[2] for option in options if option.rpartition(".")[0] == section)
    hint = ""
    # Names share their section, so only great likeness counts: "model.dim" is not "model.name".
    if near := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
        hint = f"; did you mean {near[0]!r}?"
    elif section in (*SECTIONS, "model"):
        owner = model if section == "model" else f"section {section!r}"
        hint = f"; {owner} has {', '.join(siblings) or 'none'}"
    raise ConfigError(f"{prefix}{key} is not a known setting{hint}")


def _with_brackets(argv: Iterable[str], options: Mapping[str, Option]) -> Iterator[str]:
    """Turn ``--eval.metrics recall@20,auc`` into the YAML list ``[recall@20,auc]``."""
    expects_list = False
    for token in argv:
        if token.startswith("--"):
            flag, equals, value = token.partition("=")
            expects_list = _is_sequence(options.get(flag[2:]))
            yield f"{flag}=[{value}]" if equals and expects_list and not value.startswith("[") else token
        elif expects_list and not token.startswith("["):
            yield token if token in ("null", "~") else f"[{token}]"
        else:
            yield token


def _is_sequence(option: Option | None) -> bool:
    if option is None:
        return False
    hints = typing.get_args(option.hint) or (option.hint,)
    return any(typing.get_origin(hint) in (tuple, list, Sequence) for hint in (option.hint, *hints))


def _one_line(message: str, options: Mapping[str, Option]) -> str:
    """Return jsonargparse's message as one line in our own words."""
    # Of a union it names each part that failed, with the value that this part got, and last the value as it was given.
    found = re.search(r'Parser key "([^"]+)":.*(?:Got|Given) value: (.*)', message, re.DOTALL)
    if found is None:
        return " ".join(message.split())
    key, value = found[1], " ".join(found[2].split())
    hint = options[key].hint if key in options else None
    for inner in (hint, *typing.get_args(hint)):
        if typing.get_origin(inner) is typing.Literal:
            choices = [str(choice) for choice in typing.get_args(inner)]
            if inner is not hint:
                choices.append("null")
            try:
                check_choice(key, value, choices, ConfigError)
            except ConfigError as error:
                return str(error)
    kind = hint.__name__ if isinstance(hint, type) else _in_words(hint)
    is_list = "Given value type: <class 'list'>" in message
    return f"{key} must be {kind}, got {value if is_list else repr(value)}"


def _in_words(hint: Any) -> str:
    """Return a type as a person would say it: ``a number or a list of numbers``."""
    if hint in WORDS:
        return WORDS[hint][0]
    inner = typing.get_args(hint)
    if typing.get_origin(hint) in (tuple, list, Sequence):
        return f"a list of {WORDS[inner[0]][1]}"
    return " or ".join(map(_in_words, inner))
