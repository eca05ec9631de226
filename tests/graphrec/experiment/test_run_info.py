from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import graphrec
from graphrec.experiment.config import DataConfig, ModelConfig, RunConfig
from graphrec.experiment.run_info import current_commit, describe, sizes_of, vocabulary_fingerprint
from kg_loaders import Vocabulary
from kg_loaders.synthetic import planted

GRAPH = planted(num_users=30, num_items=40, num_cold_items=4)


def test_vocabulary_fingerprint_sees_ids_and_their_order_only() -> None:
    ids = list(GRAPH.users)
    swapped = replace(GRAPH, users=Vocabulary([ids[1], ids[0], *ids[2:]], "user"))
    assert vocabulary_fingerprint(swapped) != vocabulary_fingerprint(GRAPH)
    assert vocabulary_fingerprint(GRAPH.without_kg()) == vocabulary_fingerprint(GRAPH)


def test_sizes_are_those_of_the_graph() -> None:
    sizes = sizes_of(GRAPH)
    assert (sizes["users"], sizes["items"], sizes["triples"]) == (30, 40, GRAPH.num_triples)


def test_commit_is_never_that_of_somebody_elses_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    package = tmp_path / ".venv" / "graphrec" / "__init__.py"
    package.parent.mkdir(parents=True)
    monkeypatch.setattr(graphrec, "__file__", str(package))
    config = RunConfig(DataConfig("films"), ModelConfig("EASE"))
    assert describe(config, GRAPH).commit is None


def test_commit_of_the_checkout_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    (tmp_path / "graphrec").mkdir()
    monkeypatch.setattr(graphrec, "__file__", str(tmp_path / "graphrec" / "__init__.py"))
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert current_commit() == head
