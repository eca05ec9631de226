"""RunFolder: what a run leaves on disk, written so that a kill at any moment harms nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

import graphrec
from graphrec.errors import ArgumentError, ConfigError, RunError
from graphrec.experiment.catalogue import read_yaml
from graphrec.experiment.config import RunConfig, first_difference, hash_of
from graphrec.experiment.files import make_folder, read_json, sha256, to_json, write, write_text
from graphrec.experiment.reading import read_mapping
from graphrec.experiment.run_info import FORMAT_VERSION, RunInfo, describe, sizes_of, vocabulary_fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from graphrec.models.base import Recommender
    from kg_loaders import RecGraph

PerUser = tuple["Tensor", Mapping[str, "Tensor"]]
"""The users measured, and by metric their values."""

CHECKPOINT = "checkpoint.safetensors"  # graphrec.training's; importing it from there would load torch
CONFIG, INFO, WEIGHTS, METRICS, PER_USER = (
    "config.yaml",
    "run.json",
    "model.safetensors",
    "metrics.json",
    "per_user.safetensors",
)
STARTED = (CONFIG, f".{CONFIG}.partial", f".{INFO}.partial")  # what a run killed at its very start leaves


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. Make one with :meth:`start` or :meth:`open`.

    Args:
        path: The folder.
        config: The resolved configuration.
        info: What ``run.json`` holds.
    """

    path: Path
    config: RunConfig
    info: RunInfo

    @classmethod
    def start(cls, path: Path, config: RunConfig, graph: RecGraph) -> Self:
        """Make the folder of a new run, or open it again if it holds this very run.

        Args:
            path: An absent or empty folder, or the folder of an earlier start of the same run.
            config: The resolved configuration.
            graph: The prepared graph that the run trains on.

        Raises:
            RunError: The folder holds something else; nothing in it is touched.
        """
        if (path / INFO).exists():
            folder = cls.open(path)
            if folder.config.hash != config.hash:
                changed = first_difference(folder.config.to_dict(), config.to_dict())
                detail = "" if changed is None else " ({}: {!r} there, {!r} here)".format(*changed)
                raise RunError(f"{path} holds a run of another configuration{detail}; choose another --out")
            folder.check_graph(graph)
            if folder.info.graphrec != graphrec.__version__:
                raise RunError(
                    f"{path} was made by graphrec {folder.info.graphrec}, this is {graphrec.__version__}; "
                    "choose another --out"
                )
            return folder
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file; choose another --out")
        strange = sorted(entry.name for entry in path.iterdir() if entry.name not in STARTED) if path.is_dir() else []
        if strange:
            raise RunError(f"{path} is not empty and holds no run (first: {strange[0]!r}); choose another --out")
        info = describe(config, graph)
        make_folder(path, f"the folder --out {path}")
        text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True)
        write_text(path / CONFIG, text)
        write_text(path / INFO, to_json(dataclasses.asdict(info)))
        return cls(path, config, info)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Read the folder of a run, finished or not.

        Raises:
            RunError: There is no run, a file is damaged, or the folder has another format version.
        """
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: there is no such run folder")
        content = read_json(path / INFO)
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            made_by = content.get("graphrec", "an unknown version")
            raise RunError(
                f"{path}: run folder format {version!r}, made by graphrec {made_by}; "
                f"this is graphrec {graphrec.__version__}, which reads format {FORMAT_VERSION}"
            )
        try:
            info = RunInfo(**content)
        except TypeError as error:
            raise RunError(f"{path / INFO}: damaged: {error}") from error
        if not (path / CONFIG).is_file():
            raise RunError(f"{path / CONFIG}: missing")
        try:
            written = read_yaml(path / CONFIG)
            config = read_mapping(written, str(path / CONFIG))
        except (ConfigError, ArgumentError) as error:
            raise RunError(str(error)) from error
        # Of what is written: an option that has been added since has its default, which changes no run of before.
        if hash_of(written) != info.config_hash:
            raise RunError(f"{path / CONFIG}: changed since the run was made (its hash is not that of {INFO})")
        return cls(path, config, info)

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.info.files)

    @property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds: valid, test, seconds and more.

        Raises:
            RunError: The run is unfinished, or the file is damaged.
        """
        return read_json(self._checked(METRICS))

    def per_user(self, split: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the users measured on a split, and their value of every metric that has one a user.

        Raises:
            RunError: The run is unfinished, the file is damaged, or the split was not measured.
        """
        tensors = _read_tensors(self._checked(PER_USER))
        if f"{split}/users" not in tensors:
            raise RunError(f"{self.path / PER_USER}: no values of the {split} split")
        users = tensors.pop(f"{split}/users")
        start = f"{split}/"
        return users, {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}

    def check_graph(self, graph: RecGraph) -> None:
        """Make sure that a prepared graph is the one that the run was made on.

        Raises:
            RunError: Its vocabularies or its content differ; the message says which.
        """
        if graph.fingerprint == self.info.graph_fingerprint:
            return
        name, sizes = self.config.data.name, sizes_of(graph)
        changed = [f"{key} {old} -> {sizes[key]}" for key, old in self.info.sizes.items() if sizes.get(key) != old]
        what = "vocabulary" if vocabulary_fingerprint(graph) != self.info.vocabulary_fingerprint else "content"
        detail = f" ({', '.join(changed)})" if changed else ""
        raise RunError(f"{self.path}: the {what} of {name} has changed since the run was made{detail}; train again")

    def finish(self, model: Recommender, metrics: Mapping[str, Any], per_user: Mapping[str, PerUser]) -> Self:
        """Write the results and return the finished folder.

        Args:
            model: The fitted model.
            metrics: For ``metrics.json``.
            per_user: By split: the users measured, and their values by metric.
        """
        from safetensors.torch import save_file, save_model

        tensors: dict[str, Tensor] = {}
        for split, (users, values) in per_user.items():
            tensors[f"{split}/users"] = users
            tensors |= {f"{split}/{name}": value.contiguous() for name, value in values.items()}
        write(self.path / WEIGHTS, lambda path: save_model(model, str(path)))
        write(self.path / PER_USER, lambda path: save_file(tensors, str(path)))
        write_text(self.path / METRICS, to_json(metrics))
        files = {name: sha256(self.path / name) for name in (WEIGHTS, PER_USER, METRICS)}
        info = dataclasses.replace(self.info, files=files)
        # The last act: from here on the run counts as finished.
        write_text(self.path / INFO, to_json(dataclasses.asdict(info)))
        return dataclasses.replace(self, info=info).tidy()

    def tidy(self) -> Self:
        """Remove the checkpoint that a finished run no longer needs, and return the folder."""
        if self.finished:
            (self.path / CHECKPOINT).unlink(missing_ok=True)
        return self

    def load_model(self, graph: RecGraph) -> Recommender:
        """Return the fitted model in evaluation mode.

        Args:
            graph: The prepared graph; it is checked.

        Raises:
            RunError: The run is unfinished, its weights are damaged, or the graph has changed.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        from graphrec.experiment.build import build_model

        path = self._checked(WEIGHTS)
        self.check_graph(graph)
        model = build_model(self.config, graph)
        try:
            load_model(model, str(path))
        except (SafetensorError, RuntimeError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise RunError(f"{path}: the weights do not fit {self.config.model.name}: {reason}") from error
        return model.eval()

    def _checked(self, name: str) -> Path:
        path = self.path / name
        if not self.finished:
            raise RunError(f"{self.path}: the run is unfinished; the same train command resumes it")
        if not path.is_file():
            raise RunError(f"{path}: missing")
        if sha256(path) != self.info.files.get(name):
            raise RunError(f"{path}: damaged (its SHA-256 is not the one in {INFO})")
        return path


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise RunError(f"{path}: damaged: {error}") from error
