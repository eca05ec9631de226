"""RunConfig: all that defines a run, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graphrec.errors import ArgumentError, ConfigError, check_choice
from graphrec.training.config import TrainConfig

SplitName = Literal["given", "random", "leave-last", "temporal", "carve", "carve-last"]
KgName = Literal["full", "none", "shuffled"]

HASH_LENGTH = 10  # hex digits: a folder name, not a proof


@dataclass(frozen=True)
class DataConfig:
    """Which data, how it is split, and what is kept of its knowledge graph.

    Args:
        name: Name of a known data set, or a folder.
        format: Format of the files; detected when not given.
        split: How to split. When not given: "given" where the files hold a validation part, "carve" where they
            hold a train part only, or train and test, else "random". By time: "leave-last" holds out each user's
            last item for test and the one before for validation, "carve-last" the last train item for validation.
        ratios: Shares of the parts: train, valid, test for "random" and "temporal"; train, valid for "carve".
            When not given: what the split's own function takes.
        seed: Seed of the split. It is not the seed of the model, so that models of many seeds share one split.
        kg: "full", "none" (no triples) or "shuffled" (same degrees, false tails, drawn by the seed of the run).
        features: Files of item features, keyed by item id, as paths or within the data set's folder: ``.npy`` with
            ``.ids.txt``, ``.safetensors``, ``.parquet``, ``.tsv`` or ``.csv``. One takes the place of a feature of the
            same name.
    """

    name: str = ""
    format: str | None = None
    split: SplitName | None = None
    ratios: tuple[float, ...] | None = None
    seed: int = 0
    kg: KgName = "full"
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelConfig:
    """A model and the keyword arguments of its constructor.

    Args:
        name: A key of ``graphrec.models.MODELS``.
        options: Keyword arguments of the class; those not named keep the constructor's default.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvalConfig:
    """How a model is measured.

    Args:
        metrics: Names such as "recall@20"; when not given, the evaluator's own.
        batch_size: Users ranked at once; when not given, the evaluator's own.
    """

    metrics: tuple[str, ...] | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class RunConfig:
    """All that defines a run; equal configurations on equal data give equal results.

    Args:
        data: Which data, and how split.
        model: Which model.
        train: How it is trained.
        eval: How it is measured.
        seed: Seed of all randomness but the split's.
        out: Run folder; chosen from the configuration when not given. Not part of :attr:`hash`.

    Example:
        >>> from dataclasses import replace
        >>> config = RunConfig(DataConfig("ml-100k"), ModelConfig("EASE"), seed=1)
        >>> config.hash == replace(config, out="elsewhere").hash != replace(config, seed=2).hash
        True
    """

    data: DataConfig
    model: ModelConfig
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 0
    out: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain nested values, as it stands in ``config.yaml``."""
        return {
            "data": plain(dataclasses.asdict(self.data)),
            "model": {"name": self.model.name, **plain(dict(self.model.options))},
            "train": plain(dataclasses.asdict(self.train)),
            "eval": plain(dataclasses.asdict(self.eval)),
            "seed": self.seed,
        }

    @property
    def hash(self) -> str:
        """A short SHA-256 over all that influences the result."""
        return hash_of(self.to_dict())

    @property
    def label(self) -> str:
        """A short name of the run for folders and messages: ``inductivekgat-nokg-seed1-<hash>``."""
        kg = {"full": "", "none": "-nokg", "shuffled": "-shuffledkg"}[self.data.kg]
        return f"{self.model.name.lower()}{kg}-seed{self.seed}-{self.hash}"


def hash_of(content: Mapping[str, Any]) -> str:
    """Return the short SHA-256 of a configuration as plain values, as it stands in ``config.yaml``."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


@dataclass(frozen=True)
class Option:
    """A keyword argument that a configuration may set.

    Args:
        name: Its name.
        hint: Its type.
        default: What the signature says.
        help: What the docstring says.
    """

    name: str
    hint: Any
    default: Any
    help: str


def options_of(cls: type) -> dict[str, Option]:
    """Return the keyword arguments of a class that have a default and a type that YAML can write.

    The signature is the only home of a default, so this is where every default comes from. For a model made of
    others, they come from the signatures that it names.
    """
    # Not by its type: that would load torch for every --help.
    sources = cls.configured_by() if hasattr(cls, "configured_by") else (cls,)
    found: dict[str, Option] = {}
    for source in sources:
        hints, helps = _hints(source), _argument_docs(source)
        for name, default in _defaults(source):
            hint = hints.get(name)
            if hint is not None and _is_plain(hint):
                found[name] = Option(name, hint, default, helps.get(name, ""))
    return found


def plain(value: Any) -> Any:
    """Return the value with tuples as lists, ready for YAML and JSON."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield each setting in which two configurations, as plain values, differ, and its two values.

    Example:
        >>> list(differences({"train": {"epochs": 3, "seed": 0}}, {"train": {"epochs": 4, "seed": 0}}))
        [('train.epochs', 3, 4)]
    """
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from ((f"{key}.{name}", *values) for name, *values in differences(before, after))
        elif before != after:
            yield key, before, after


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first of :func:`differences`, or ``None`` where there is none."""
    return next(differences(old, new), None)


def resolve_model(name: str) -> str:
    """Return the registered model that ``name`` means, whatever its case and hyphens.

    Raises:
        ConfigError: No model has that name; the message offers the nearest.
    """
    from graphrec.errors import check_choice
    from graphrec.models import MODELS

    wanted = simplified(name)
    for known in MODELS:
        if simplified(known) == wanted:
            return known
    check_choice("model", name, MODELS, ConfigError)
    raise AssertionError("unreachable: check_choice raised")


def reads_kg(model: ModelConfig) -> bool:
    """Whether a model reads the knowledge graph.

    Its constructor, or that of a model in it, takes triples; where that also takes ``kg_weight``, it is above 0.
    """
    from graphrec.models import MODELS

    taken = [inspect.signature(source).parameters for source in MODELS[model.name].configured_by()]
    weighed = bool(model.options.get("kg_weight"))
    return any("triples" in parameters and ("kg_weight" not in parameters or weighed) for parameters in taken)


def check_kg(kg: Sequence[str]) -> None:
    """Make sure that the rows of a comparison read one or more of the parts of a knowledge graph that there are.

    Raises:
        ArgumentError: There is none, or an unknown one.
    """
    if not kg:
        raise ArgumentError("kg must hold at least one of 'full', 'none', 'shuffled', got none")
    for wanted in kg:
        check_choice("kg", wanted, typing.get_args(KgName))


def simplified(name: str) -> str:
    """Return a name without case, hyphens and underscores, by which names are compared."""
    return name.lower().replace("-", "").replace("_", "")


def _defaults(source: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(source):
        for item in dataclasses.fields(source):
            if item.default is not dataclasses.MISSING:
                yield item.name, item.default
            elif item.default_factory is not dataclasses.MISSING:
                yield item.name, item.default_factory()
        return
    for name, parameter in inspect.signature(source).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            yield name, parameter.default


def _hints(source: Callable[..., Any]) -> dict[str, Any]:
    if isinstance(source, type) and not dataclasses.is_dataclass(source):
        return typing.get_type_hints(inspect.getattr_static(source, "__init__"))
    return typing.get_type_hints(source)


def _is_plain(hint: Any) -> bool:
    """Whether a type is made of numbers, text, truth values, choices, and sequences of these."""
    if hint in (int, float, str, bool, type(None), Ellipsis):
        return True
    origin = typing.get_origin(hint)
    if origin is Literal:
        return True
    if origin in (tuple, list, Sequence, typing.Union, types.UnionType):
        return all(_is_plain(inner) for inner in typing.get_args(hint))
    return False


def _argument_docs(source: Callable[..., Any]) -> dict[str, str]:
    import docstring_parser

    parsed = docstring_parser.parse(inspect.getdoc(source) or "", style=docstring_parser.DocstringStyle.GOOGLE)
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in parsed.params}
