"""The benchmarks of layers measure what they say, on toy sizes."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from cases.planted_folder import write_planted

from kg_loaders.synthetic import planted

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


def test_normalisers_are_trained_on_all_that_a_committed_configuration_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load("benchmark_normalizers")
    monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
    films = write_planted(tmp_path / "films")
    np.save(tmp_path / "mood.npy", np.eye(4))
    (tmp_path / "mood.ids.txt").write_text("item-00\nitem-01\nitem-02\nitem-03\n", encoding="utf-8")
    settings = {
        "data": {"name": str(films), "features": [str(tmp_path / "mood.npy")]},
        "model": {"name": "InductiveKGAT", "dim": 4, "modalities": ["mood"]},  # an error where the graph has none
        "train": {"epochs": 1},
    }
    committed = tmp_path / "configs" / "films" / "inductive_kgat.yaml"
    committed.parent.mkdir(parents=True)
    committed.write_text(yaml.safe_dump(settings), encoding="utf-8")
    monkeypatch.setattr(script, "committed_files", lambda: [committed])
    assert 0 < script.trained("films", {}, seed=0)["ndcg@20"] < 1


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


PEER_MODEL = """
import numpy as np
import torch

from kg_loaders.synthetic import planted


class SASRec(torch.nn.Module):
    def __init__(self, user_num, item_num, args):
        super().__init__()
        self.item_emb = torch.nn.Embedding(item_num + 1, args.hidden_units, padding_idx=0)
        self.pos_emb = torch.nn.Embedding(args.maxlen + 1, args.hidden_units, padding_idx=0)

    def log2feats(self, seqs):
        assert (np.diff(seqs != 0, axis=1) >= 0).all(), "padding stands in front"
        return self.item_emb(torch.as_tensor(seqs)).cumsum(dim=1)

    def forward(self, users, seqs, positive, negative):
        state = self.log2feats(seqs)
        return tuple((state * self.item_emb(torch.as_tensor(other))).sum(-1) for other in (positive, negative))
"""
PEER_UTILS = """
import numpy as np


class WarpSampler:
    def __init__(self, users, usernum, itemnum, batch_size, maxlen, n_workers):
        assert set(users) == set(range(1, usernum + 1))
        self.users, self.size, self.maxlen, self.itemnum = users, batch_size, maxlen, itemnum

    def next_batch(self):
        rows = []
        for user in np.random.permutation(list(self.users))[: self.size]:
            seq = np.zeros((3, self.maxlen), dtype=np.int32)
            past = self.users[user][-self.maxlen - 1 :]
            n = len(past) - 1
            seq[0, -n:], seq[1, -n:] = past[:-1], past[1:]
            seq[2, -n:] = np.random.randint(1, self.itemnum + 1, n)
            rows.append((user, *seq))
        return zip(*rows)

    def close(self):
        pass
"""


def test_sequence_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = load("benchmark_sequence_training")
    (tmp_path / "model.py").write_text(PEER_MODEL, encoding="utf-8")
    (tmp_path / "utils.py").write_text(PEER_UTILS, encoding="utf-8")
    monkeypatch.setattr(script.kg_loaders, "load", lambda _: planted(num_users=30, num_items=40, num_cold_items=4))
    monkeypatch.setattr(script.measure, "__defaults__", (20,))
    out = tmp_path / "rows.json"
    script.main([str(tmp_path), "--rounds", "2", "--batch-size", "16", "--json", str(out)])
    assert len(capsys.readouterr().out.splitlines()) == 3 * 2 + 3
    found = json.loads(out.read_text(encoding="utf-8"))["summary"]
    assert list(found) == ["SASRec.pytorch", "ours, same loss", "ours, softmax"]
    assert found["SASRec.pytorch"]["times_as_fast"] == 1.0
    assert all(row["seconds_per_epoch"] > 0 and row["bytes"] > 0 for row in found.values())

    plain = script.measure

    def interrupted(*arguments: Any) -> Iterator[dict[str, Any]]:
        yield from islice(plain(*arguments), 4)
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "measure", interrupted)
    script.main([str(tmp_path), "--rounds", "2", "--batch-size", "16", "--json", str(out)])
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4 + 3
    assert all("MB a step" not in line for line in printed)
    assert json.loads(out.read_text(encoding="utf-8"))["summary"]["SASRec.pytorch"]["epochs_to_peer"] == 1
