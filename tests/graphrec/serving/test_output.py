from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from cases.toy_models import ToyKGAT

from graphrec.errors import ArgumentError
from graphrec.serving.output import check_output, write_all
from graphrec.serving.recommender import RunRecommender
from kg_loaders.synthetic import planted


@pytest.fixture
def recommender() -> RunRecommender:
    torch.set_num_threads(1)
    graph = planted(num_users=23, num_items=40)
    return RunRecommender(ToyKGAT.from_graph(graph), graph, batch_size=10)


def test_tsv_holds_all_users(recommender: RunRecommender, tmp_path: Path) -> None:
    assert write_all(recommender, tmp_path / "top.tsv", k=4) == 23 * 4
    read = pd.read_csv(tmp_path / "top.tsv", sep="\t", dtype={"score": "float32"})
    pd.testing.assert_frame_equal(read, recommender.recommend_all(k=4), check_dtype=False)


def test_parquet_holds_all_users(recommender: RunRecommender, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra graphrec[parquet] is not installed")
    assert write_all(recommender, tmp_path / "top.parquet", k=4) == 23 * 4
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "top.parquet"), recommender.recommend_all(k=4))


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    hide: Any = lambda name, *rest: None if name == "pyarrow" else found(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    with pytest.raises(ArgumentError, match=r"graphrec\[parquet\]"):
        check_output(tmp_path / "top.parquet")
    check_output(tmp_path / "top.tsv")


def test_output_is_checked_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"output must end in \.parquet or \.tsv"):
        check_output(tmp_path / "top.csv")
    with pytest.raises(ArgumentError, match="there is no folder"):
        check_output(tmp_path / "absent" / "top.tsv")


@pytest.mark.parametrize("name", ["top.tsv", "top.parquet"])
def test_failure_leaves_no_part_of_a_file(
    recommender: RunRecommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="the extra graphrec[parquet] is not installed")
    batches = recommender.batches

    def stop(k: int) -> Any:
        yield next(batches(k))
        raise KeyboardInterrupt

    monkeypatch.setattr(recommender, "batches", stop)
    with pytest.raises(KeyboardInterrupt):
        write_all(recommender, tmp_path / name, k=2)
    assert list(tmp_path.iterdir()) == []
