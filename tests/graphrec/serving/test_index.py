from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from cases.graphs import histories_of, planted_graph

from graphrec.errors import ArgumentError, RunError
from graphrec.evaluation import top_k
from graphrec.histories import Histories
from graphrec.models import InductiveKGAT, SoftmaxMF
from graphrec.serving.filters import Filters
from graphrec.serving.index import ItemIndex
from graphrec.serving.recommender import RunRecommender
from graphrec.serving.towers import towers_of


@pytest.fixture(scope="module")
def parts():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*size, generator=generator) for size in ((2000, 8), (2000,), (5, 8))]


@pytest.fixture(scope="module", params=["exact", "approximate"])
def index(request, parts):
    if request.param == "approximate":
        pytest.importorskip("faiss")
    return ItemIndex.build(parts[0], parts[1], approximate=request.param == "approximate")


def oracle(parts, k, allowed=None, seen=None):
    vectors, bias, users = parts
    scores = users @ vectors.T + bias
    if allowed is not None:
        scores[:, ~allowed] = -torch.inf
    return top_k(scores, k, seen)


def test_it_finds_the_best(index, parts):
    items, scores = index.search(parts[2], 10)
    wanted, values = oracle(parts, 10)
    assert (items == wanted).float().mean() > 0.95
    if not index.info.approximate:
        assert items.tolist() == wanted.tolist()
    assert torch.allclose(scores, values, atol=1e-4)
    assert index.info.recall > 0.95
    assert ("exact" in repr(index)) == (not index.info.approximate)


@pytest.mark.parametrize("share", [0.6, 0.02])
def test_filters_and_what_was_seen(index, parts, share):
    allowed = torch.rand(2000, generator=torch.Generator().manual_seed(1)) < share
    best, _ = oracle(parts, 3, allowed)
    seen = Histories.from_lists([*best.tolist()[:3], [], [7, 9]])
    items, scores = index.search(parts[2], 10, allowed, seen)
    wanted, values = oracle(parts, 10, allowed, seen)
    assert (items == wanted).float().mean() > 0.95
    assert torch.allclose(scores, values, atol=1e-3)
    assert allowed[items].all()
    assert not torch.isin(items[0], best[0]).any()
    assert index.search(parts[2], 10, None, seen)[0].shape == (5, 10)


def test_fewer_items_than_asked_for(index, parts):
    allowed = torch.zeros(2000, dtype=torch.bool)
    allowed[[3, 4, 1999]] = True
    items, scores = index.search(parts[2][:1], 5, allowed, Histories.from_lists([[4]]))
    assert sorted(items[0].tolist()) == [-1, -1, -1, 3, 1999]
    assert scores[0, 2:].tolist() == [-torch.inf] * 3
    none, _ = index.search(parts[2][:1], 2, torch.zeros(2000, dtype=torch.bool))
    assert none.tolist() == [[-1, -1]]


def test_a_graph_that_finds_too_few_is_made_good(parts):
    pytest.importorskip("faiss")
    index = ItemIndex.build(*parts[:2], approximate=True)
    items, _ = index.search(parts[2], 1999, seen=Histories.from_lists([[1], [2], [3], [4], [5]]))
    assert (items >= 0).all()
    assert items[0].unique().numel() == 1999


def test_exact_in_blocks(parts, monkeypatch):
    monkeypatch.setattr("graphrec.serving.index.BLOCK_ITEMS", 37)
    index = ItemIndex.build(*parts[:2])
    seen = Histories.from_lists([[1, 36, 37], [1999], [], [5], [6]])
    wanted, _ = oracle(parts, 50, None, seen)
    assert index.search(parts[2], 50, seen=seen)[0].tolist() == wanted.tolist()


def test_it_is_saved_mapped_and_replaced_at_once(index, parts, tmp_path):
    folder = index.save(tmp_path)
    opened = ItemIndex.load(tmp_path)
    assert isinstance(opened.vectors, np.memmap)
    assert opened.info == index.info
    before = index.search(parts[2], 10)[0]
    assert torch.equal(opened.search(parts[2], 10)[0], before)
    other = ItemIndex.build(parts[0] * 2, parts[1], approximate=index.info.approximate).save(tmp_path)
    assert other != folder
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["index.json", other.name])
    assert torch.equal(opened.search(parts[2], 10)[0], before)  # who has the old one open goes on
    assert not torch.equal(ItemIndex.load(tmp_path).search(parts[2], 10)[1], index.search(parts[2], 10)[1])


@pytest.mark.parametrize("failing", ["vectors.npy", "index.json"])
def test_a_full_disk_leaves_the_earlier_index_and_nothing_else(parts, tmp_path, failing):
    earlier = ItemIndex.build(*parts[:2]).save(tmp_path)
    info = (earlier / "info.json").read_text()
    sizes = {"vectors.npy": 20 * 1024, "index.json": 0}  # bytes that a file may have; vectors.npy takes 72,128
    program = textwrap.dedent("""
        import resource, signal, sys
        import torch
        from graphrec.serving import index
        from graphrec.errors import RunError
        new = index.ItemIndex.build(torch.ones(2000, 8))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        if sys.argv[3] == "index.json":  # full when all but the pointer is written
            write = index.write_text
            index.write_text = lambda path, text: (limit(), write(path, text))
        else:
            limit()
        try:
            new.save(sys.argv[1])
        except RunError as error:
            print(error, end="")
    """)
    command = [sys.executable, "-c", program, str(tmp_path), str(sizes[failing]), failing]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"could not write {tmp_path}" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["index.json", earlier.name])
    assert (earlier / "info.json").read_text() == info
    assert ItemIndex.load(tmp_path).info.num_items == 2000


def test_an_index_that_faiss_cannot_write_is_named(parts, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    index = ItemIndex.build(*parts[:2], approximate=True)

    def fail(graph, path):
        raise RuntimeError("Error: 'ret == (size)' failed:\n write error")

    monkeypatch.setattr("faiss.write_index", fail)
    with pytest.raises(RunError, match=rf"could not write {tmp_path}/index-[0-9a-f]+: Error: .* failed: write error"):
        index.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_readers_never_meet_half_an_index(parts, tmp_path):
    index = ItemIndex.build(*parts[:2])
    index.save(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        saving = pool.submit(lambda: [index.save(tmp_path) for _ in range(30)])
        reads = 0
        while not saving.done() or not reads:
            assert ItemIndex.load(tmp_path).info == index.info
            reads += 1
        saving.result()


def test_a_damaged_graph_is_noticed(parts, tmp_path):
    pytest.importorskip("faiss")
    folder = ItemIndex.build(*parts[:2], approximate=True).save(tmp_path)
    (folder / "hnsw.faiss").write_bytes(b"nothing")
    with pytest.raises(RunError, match="damaged"):
        ItemIndex.load(tmp_path)


def test_damage_is_noticed(parts, tmp_path):
    with pytest.raises(RunError, match="it has no index; graphrec index makes one"):
        ItemIndex.load(tmp_path)
    folder = ItemIndex.build(*parts[:2]).save(tmp_path)
    np.save(folder / "vectors.npy", np.zeros((3, 9), dtype=np.float32))
    with pytest.raises(RunError, match=r"damaged: vectors \[3, 9\], not \[2000, 9\]"):
        ItemIndex.load(tmp_path)
    (folder / "vectors.npy").write_bytes(b"")
    with pytest.raises(RunError, match="damaged"):
        ItemIndex.load(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"folder": "../elsewhere"}))
    with pytest.raises(RunError, match="there is no folder"):
        ItemIndex.load(tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: ItemIndex.build(torch.zeros(0, 3)), r"vectors must have shape \[num_items, dim\], got \[0, 3\]"),
        (lambda i: ItemIndex.build(torch.zeros(2, 3), torch.zeros(3)), r"bias must have shape \[2\]"),
        (lambda i: i.search(torch.zeros(1, 7), 1), r"users must have shape \[batch_size, 8\], got \[1, 7\]"),
        (lambda i: i.search(torch.zeros(1, 8), 0), "k must be >= 1"),
        (
            lambda i: i.search(torch.zeros(1, 8), 1, torch.ones(3, dtype=torch.bool)),
            r"allowed must have shape \[2000\]",
        ),
        (lambda i: i.search(torch.zeros(1, 8), 1, seen=Histories.from_lists([])), "seen must have 1 rows"),
    ],
)
def test_wrong_questions_are_refused(parts, call, message):
    with pytest.raises(ArgumentError, match=message):
        call(ItemIndex.build(*parts[:2]))


def test_without_faiss(parts, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match=r"an approximate index needs faiss: pip install 'graphrec\[index\]'"):
        ItemIndex.build(*parts[:2], approximate=True)


@pytest.mark.parametrize("kind", [InductiveKGAT, SoftmaxMF])
@pytest.mark.parametrize(
    "filters", [None, Filters(exclude=["item-00"], diversity=0.4), Filters(where={"genre": "genre-1"})]
)
def test_a_recommender_answers_as_it_does_without(kind, filters):
    graph = planted_graph()
    torch.manual_seed(0)
    model = kind.from_graph(graph, dim=8)
    model.prepare(histories_of(graph))
    if kind is InductiveKGAT:
        torch.nn.init.normal_(model.item_bias)
    towers = towers_of(model.eval())
    plain = RunRecommender(model, graph)
    indexed = RunRecommender(model, graph, index=ItemIndex.build(towers.item, towers.bias))
    for user in ("user-003", "user-077"):
        wanted, found = (r.recommend(user_id=user, k=9, filters=filters) for r in (plain, indexed))
        assert [item.item_id for item in found] == [item.item_id for item in wanted]
        assert [item.score for item in found] == pytest.approx([item.score for item in wanted], abs=1e-4)
    rules = Filters(rules=[lambda candidates, scores: -scores])
    assert indexed.recommend(user_id="user-003", filters=rules) == plain.recommend(user_id="user-003", filters=rules)


def test_an_index_of_another_catalogue_is_refused(parts):
    graph = planted_graph()
    with pytest.raises(ArgumentError, match="the index holds 2000 items, the graph 80"):
        RunRecommender(InductiveKGAT.from_graph(graph), graph, index=ItemIndex.build(*parts[:2]))
