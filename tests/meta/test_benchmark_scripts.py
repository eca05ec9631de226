"""The benchmarks of layers measure what they say, on toy sizes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = load("benchmark_sequences")
    monkeypatch.setitem(script.SETTINGS, "synthetic", [(None, 3), (20, 3)])
    out = tmp_path / "rows.json"
    script.main(["--data", "synthetic", "--repeats", "1", "--batches", "1", "--json", str(out)])
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 1
    assert {row["heads"] for row in rows} == {1, 2}
    assert {row["layer"].split("(")[0] for row in rows} == {"HistoryAttentionPooling", "RaggedSelfAttention"}
    for row in rows:
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["seconds"])
        assert min(row["extra_bytes"], row["peer_extra_bytes"]) > 0


def test_the_peers_of_the_sequence_benchmark_do_the_same_work() -> None:
    script = load("benchmark_sequences")
    torch.manual_seed(0)
    batch = script.Batch(torch.tensor([5, 9, 2]), num_items=7, heads=2)
    for case in (batch.sequence(), batch.last_place()):
        _, *peers = case.values()
        gradients = []
        for step in peers:
            batch.padded_x.grad = None
            step()
            gradients.append(batch.padded_x.grad[batch.valid])
        torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_a_step_holds_what_it_makes() -> None:
    script = load("benchmark_sequences")
    assert script.peak_bytes(lambda: torch.ones(1000)) == 4000
    assert script.peak_bytes(lambda: [torch.ones(1000) for _ in range(3)]) == 12000
    assert script.peak_bytes(lambda: [torch.ones(1000) is None for _ in range(3)]) == 4000


def test_normalisers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load("benchmark_normalizers")
    monkeypatch.setattr(script, "VARIANTS", {"softmax": {}, "entmax15": {"normalizer": "entmax15"}})
    monkeypatch.setattr(script, "STEPS", 3)
    out = tmp_path / "rows.json"
    script.main(["planted", "--seeds", "2", "--json", str(out)])
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["variant"] for row in rows] == ["softmax", "entmax15"]
    assert all(0 <= value <= 1 for row in rows for value in row["ten times longer"]["values"])


def test_loading(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = load("benchmark_loading")
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "train.txt").write_text("0 1 2\n1 0\n", encoding="utf-8")
    out = tmp_path / "rows.json"
    script.main([str(folder), "--triples", "100", "--repeats", "1", "--json", str(out)])
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert [row["from"] for row in rows] == ["cold", "cache", "cold"]
    assert all(row["seconds"] > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_triples_of_the_loading_benchmark_are_distinct(tmp_path: Path) -> None:
    load("benchmark_loading").write_triples(tmp_path / "made.nt", 200_000)
    lines = (tmp_path / "made.nt").read_text(encoding="ascii").splitlines()
    assert len(set(lines)) == len(lines) == 200_000
