"""The benchmark of layers measures what it says, on a graph that anybody can make."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_layers.py"
FIELDS = (
    "graph width heads layer peer seconds peer_seconds ratio extra_bytes peer_extra_bytes bound_ratio first_seconds"
)


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_layers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_layers"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark_layers"]


def run(benchmark, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["benchmark_layers.py", *arguments])
    threads = torch.get_num_threads()
    try:
        benchmark.main()
    finally:
        torch.set_num_threads(threads)


def test_all_layers_and_peers_run_and_rows_have_their_fields(benchmark, monkeypatch, tmp_path, capsys):
    def child_here(*task):
        benchmark.child(json.dumps(task))
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    monkeypatch.setattr(benchmark, "in_child", child_here)
    out = tmp_path / "rows.json"
    options = ["--graph", "planted:60:200", "--width", "8", "--heads", "2", "--repeats", "1", "--threads", "1"]
    run(benchmark, monkeypatch, *options, "--json", str(out))
    rows = json.loads(out.read_text())
    assert {row["peer"] for row in rows} == {peer for _, peers in benchmark.LAYERS.values() for peer in peers}
    for row in rows:
        assert " ".join(row) == FIELDS
        assert row["seconds"] > 0
        assert row["ratio"] > 0
        assert row["extra_bytes"] >= 0


def test_a_peer_that_dies_leaves_its_fields_empty(benchmark, monkeypatch, capsys):
    def child(graph, width, heads, layer, peer, threads):
        return None if peer else {"extra_bytes": 2**20, "seconds": 0.1}

    monkeypatch.setattr(benchmark, "in_child", child)
    options = ["--graph", "planted:60:200", "--width", "8", "--heads", "1", "--peer", "RGATConv", "--repeats", "1"]
    run(benchmark, monkeypatch, *options, "--threads", "1")
    assert "peer failed" in capsys.readouterr().out


def test_memory_is_the_peak_of_one_pass():
    # In a process of its own, as the script measures: here, memory that other tests freed would be used again.
    code = (
        "import benchmark_layers, torch\n"
        "kept = []\n"
        "print(benchmark_layers.extra_bytes(lambda: kept.append(torch.ones(16 * 2**20))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, check=True, timeout=120
    )
    assert 60 < int(done.stdout) / 2**20 < 80
