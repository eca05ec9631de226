"""The committed configurations: the best known settings, by data set and model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import graphrec
from graphrec.errors import ConfigError
from graphrec.experiment.config import resolve_model, simplified

FLAGSHIP = "InductiveKGAT"  # what a data set's name trains where no file of it says ``default: true``

# Keys of a file that describe it and do not configure a run: others' figures; whether the data set's name trains it.
NOT_SETTINGS = ("published", "default")


def configs_root() -> Path:
    """Return the folder of the committed configurations.

    A wheel carries them inside the package; a checkout has them in ``scripts/configs``.
    """
    package = Path(graphrec.__file__).parent
    packed = package / "configs"
    return packed if packed.is_dir() else package.parent / "scripts" / "configs"


def committed_files() -> list[Path]:
    """Return all committed configurations, sorted."""
    return sorted(configs_root().rglob("*.yaml"))


def find_committed(dataset: str, model: str) -> Path | None:
    """Return the committed configuration of a model on a data set, if there is one."""
    for path in _files_of(dataset):
        if simplified(path.stem) == simplified(model):
            return path
    return None


def committed(dataset: str, model: str | None = None) -> tuple[dict[str, Any], Path | None]:
    """Return the settings that a name alone stands for, and the file they come from.

    A model without a file of its own takes data and evaluation from the set's other files (they agree, and a test
    holds them to it) and every other default from its constructor.

    Args:
        dataset: Name of the data set.
        model: Name of the model. When not given: that of the file with ``default: true``, the best one known for the
            data set, and where there is none the flagship.

    Raises:
        ConfigError: The model is unknown, or the file is not a mapping.
    """
    name = resolve_model(model or FLAGSHIP)
    own = None if model else next((path for path in _files_of(dataset) if _read(path).get("default")), None)
    own = own or find_committed(dataset, name)
    if own is not None:
        return read_yaml(own), own
    settings: dict[str, Any] = {"model": {"name": name}}
    for path in _files_of(dataset)[:1]:
        shared = read_yaml(path)
        settings |= {key: shared[key] for key in ("data", "eval") if key in shared}
        return settings, path
    return settings, None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML file, without the keys that only describe it.

    Raises:
        ConfigError: The file is missing, is not YAML, or is not a mapping.
    """
    return {key: value for key, value in _read(path).items() if key not in NOT_SETTINGS}


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, that refuses a key which stands twice in a mapping: of the two settings one would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is repeated", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - as safe as its parent
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else f"{path}"
        raise ConfigError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: must be a mapping of settings, got {type(content).__name__}")
    return {str(key): value for key, value in content.items()}


def _files_of(dataset: str) -> list[Path]:
    # Only a bare name can stand for a committed set; a path never reaches outside the folder.
    if not dataset or Path(dataset).name != dataset or dataset in (".", ".."):
        return []
    return sorted((configs_root() / dataset).glob("*.yaml"))
