"""RunInfo: who made a run, from what, with what."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import graphrec
from graphrec.experiment.config import RunConfig

if TYPE_CHECKING:
    from kg_loaders import RecGraph, Vocabulary

FORMAT_VERSION = 1  # raise it when an older reader would misread a newer folder


@dataclass(frozen=True)
class RunInfo:
    """What ``run.json`` holds: who made the run, from what.

    Args:
        format_version: Layout of the folder.
        config_hash: :attr:`RunConfig.hash`.
        seed: Seed of the run.
        graph_fingerprint: Of the graph that the run trained on, split and knowledge graph included.
        vocabulary_fingerprint: Of its user and entity ids, in order.
        sizes: Of that graph: users, items, entities, relations, interactions, triples.
        graphrec: Version of graphrec.
        torch: Version of torch.
        python: Version of Python.
        commit: Of the checkout that ran, ``-dirty`` where files had changed; ``None`` for an installed package.
        created: Start of the run, UTC.
        files: SHA-256 of the finished run's files by name; empty while it is unfinished.
    """

    format_version: int
    config_hash: str
    seed: int
    graph_fingerprint: str
    vocabulary_fingerprint: str
    sizes: dict[str, int]
    graphrec: str
    torch: str
    python: str
    commit: str | None
    created: str
    files: dict[str, str] = field(default_factory=dict)


def describe(config: RunConfig, graph: RecGraph) -> RunInfo:
    """Return the description of a run that starts now on a prepared graph."""
    return RunInfo(
        format_version=FORMAT_VERSION,
        config_hash=config.hash,
        seed=config.seed,
        graph_fingerprint=graph.fingerprint,
        vocabulary_fingerprint=vocabulary_fingerprint(graph),
        sizes=sizes_of(graph),
        graphrec=graphrec.__version__,
        torch=metadata.version("torch"),
        python=platform.python_version(),
        commit=current_commit(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def sizes_of(graph: RecGraph) -> dict[str, int]:
    """Return the sizes of a graph by name."""
    return {
        "users": graph.num_users,
        "items": graph.num_items,
        "entities": graph.num_entities,
        "relations": graph.num_relations,
        "interactions": graph.num_interactions,
        "triples": graph.num_triples,
    }


def vocabulary_fingerprint(graph: RecGraph) -> str:
    """Return a SHA-256 over the ids of users, entities and relations: other ids, other meaning of the weights."""
    digest = hashlib.sha256(f"{graph.num_items}".encode())
    vocabularies: tuple[Vocabulary, ...] = (graph.users, graph.entities, graph.relations)
    for vocabulary in vocabularies:
        digest.update(f"{len(vocabulary)}:".encode())
        digest.update("\x00".join(vocabulary).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def current_commit() -> str | None:
    """Return the commit of graphrec's own checkout, never that of a repository it happens to be installed in."""
    root = Path(graphrec.__file__).parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    return done.stdout.strip() or None
