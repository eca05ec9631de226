"""The compiled loops against torch's kernels, on graphs with empty rows, parallel edges and nodes of many edges."""

import shutil
import subprocess
import sys

import pytest
import torch

from graphrec.layers.ops import EdgeLayout, additive_scores, attend, compiled, dot_scores, gatv2_scores, weighted_sum
from graphrec.layers.ops.compiled import build

NUM_SRC, NUM_DST, NUM_EDGES, NUM_TYPES = 37, 23, 400, 3
SHAPES = [(1, 8), (1, 64), (2, 24), (3, 8), (4, 16), (8, 8), (8, 64)]

needs_compiler = pytest.mark.skipif(build.library() is None, reason="no C compiler on this machine")


@pytest.fixture
def graph():
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(NUM_SRC - 2, (NUM_EDGES,), generator=generator)
    destination = (torch.rand(NUM_EDGES, generator=generator) ** 3 * (NUM_DST - 3)).long() + 1
    kinds = torch.randint(NUM_TYPES, (NUM_EDGES,), generator=generator)
    layout = EdgeLayout.from_edge_index(torch.stack([source, destination]), NUM_SRC, NUM_DST)
    return layout, kinds


def both_ways(monkeypatch, function, tensors):
    """Return outputs and gradients of ``function(*tensors)``, compiled and not; both drew the same output gradients."""
    found = []
    for least in (0, 1 << 60):
        monkeypatch.setattr(compiled, "MIN_NUMBERS", least)
        ran = []
        kept = compiled._run
        monkeypatch.setattr(compiled, "_run", lambda *a, kept=kept, ran=ran, **k: (ran.append(a[0]), kept(*a, **k)))
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        out = function(*leaves)
        out = out if isinstance(out, tuple) else (out,)
        generator = torch.Generator().manual_seed(5)
        weights = [torch.randn(part.shape, generator=generator) for part in out]
        gradients = torch.autograd.grad(out, leaves, weights, materialize_grads=True)
        monkeypatch.setattr(compiled, "_run", kept)
        assert bool(ran) == (least == 0)
        found.append([*out, *gradients])
    return found


def drawn(*shapes):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def assert_equal(found):
    ours, torchs = found
    for one, other in zip(ours, torchs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


@needs_compiler
@pytest.mark.parametrize(("heads", "channels"), SHAPES)
class TestAgainstTorch:
    def test_attend(self, monkeypatch, graph, heads, channels):
        layout, _ = graph
        tensors = drawn((NUM_EDGES, heads), (NUM_SRC, heads, channels))
        assert_equal(both_ways(monkeypatch, lambda scores, x: attend(scores, x, layout), tensors))

    def test_attend_without_a_gradient_of_alpha(self, monkeypatch, graph, heads, channels):
        layout, _ = graph
        tensors = drawn((NUM_EDGES, heads), (NUM_SRC, heads, channels))
        assert_equal(both_ways(monkeypatch, lambda scores, x: attend(scores, x, layout)[0], tensors))

    def test_attend_with_a_gradient_of_alpha_alone(self, monkeypatch, graph, heads, channels):
        layout, _ = graph
        tensors = drawn((NUM_EDGES, heads), (NUM_SRC, heads, channels))
        assert_equal(both_ways(monkeypatch, lambda scores, x: attend(scores, x, layout)[1], tensors))

    def test_weighted_sum(self, monkeypatch, graph, heads, channels):
        layout, _ = graph
        tensors = drawn((NUM_EDGES, heads), (NUM_SRC, heads, channels))
        assert_equal(both_ways(monkeypatch, lambda alpha, x: weighted_sum(alpha, x, layout), tensors))

    def test_dot_scores(self, monkeypatch, graph, heads, channels):
        layout, _ = graph
        tensors = drawn((NUM_DST, heads, channels), (NUM_SRC, heads, channels))
        assert_equal(both_ways(monkeypatch, lambda query, key: dot_scores(query, key, layout), tensors))

    @pytest.mark.parametrize("num_types", [1, NUM_TYPES])
    def test_gatv2_scores(self, monkeypatch, graph, heads, channels, num_types):
        layout, kinds = graph
        types = layout.types(kinds % num_types, num_types)
        wide = (heads, channels)
        tensors = drawn(wide, (NUM_SRC, *wide), (NUM_DST, *wide), (num_types, *wide))

        def scores(att, source, destination, vectors):
            return gatv2_scores(att, source, destination, layout, vectors, types, 0.3)

        assert_equal(both_ways(monkeypatch, scores, tensors))

    @pytest.mark.parametrize(
        ("given", "num_types"),
        [
            ("source destination", 1),
            ("source destination type", 1),
            ("source destination type", NUM_TYPES),
            ("type edge", NUM_TYPES),  # one type and nothing else is a plain sum, which torch takes
            ("source edge", 1),
        ],
    )
    def test_additive_scores(self, monkeypatch, graph, heads, channels, given, num_types):
        layout, kinds = graph
        types = layout.types(kinds % num_types, num_types)
        sizes = {"source": NUM_SRC, "destination": NUM_DST, "type": num_types, "edge": NUM_EDGES}
        names = given.split()

        def scores(*parts):
            named = dict(zip(names, parts, strict=True))
            if "type" in named:
                named |= {"by_type": named.pop("type"), "types": types}
            return additive_scores(layout, negative_slope=0.2 if "source" in named else 1.0, **named)

        assert_equal(both_ways(monkeypatch, scores, drawn(*((sizes[name], heads) for name in names))))


@needs_compiler
def test_a_segment_far_below_the_others_keeps_its_digits(monkeypatch, graph):
    layout, _ = graph
    scores, x = drawn((NUM_EDGES, 4), (NUM_SRC, 4, 16))
    scores[layout.destination == 5] -= 300.0
    found = both_ways(monkeypatch, lambda scores, x: attend(scores, x, layout), [scores, x])
    assert_equal(found)
    assert found[0][1][layout.destination == 5].sum(dim=0).tolist() == pytest.approx([1.0] * 4)


@needs_compiler
def test_one_thread_and_two_give_equal_bits(monkeypatch, graph):
    layout, _ = graph
    monkeypatch.setattr(compiled, "MIN_NUMBERS", 0)
    scores, x = drawn((NUM_EDGES, 4), (NUM_SRC, 4, 16))
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        out, alpha = attend(scores, x, layout)
        found.append((out, alpha))
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@needs_compiler
def test_what_is_not_a_number_stays_so(monkeypatch, graph):
    layout, _ = graph
    monkeypatch.setattr(compiled, "MIN_NUMBERS", 0)
    (x,) = drawn((NUM_SRC, 1, 64))
    x[int(layout.src[0])] = torch.nan
    out = weighted_sum(torch.ones(NUM_EDGES, 1), x, layout)
    assert out[int(layout.destination[0])].isnan().all()
    assert not out[NUM_DST - 1].isnan().any()


@needs_compiler
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_a_score_that_is_no_number_stays_with_its_destination(monkeypatch, graph, wrong):
    layout, _ = graph
    scores, x = torch.randn(NUM_EDGES, 1), torch.randn(NUM_SRC, 1, 8)
    spoilt = scores.clone()
    spoilt[0] = wrong
    good, _ = attend(scores, x, layout)
    others = torch.arange(NUM_DST) != layout.destination[0]
    for least in (0, 1 << 60):
        monkeypatch.setattr(compiled, "MIN_NUMBERS", least)
        out, _ = attend(spoilt, x, layout)
        assert out[~others].isnan().all()
        torch.testing.assert_close(out[others], good[others])


@needs_compiler
def test_indices_may_be_columns_of_a_table(monkeypatch, graph):
    layout, kinds = graph
    monkeypatch.setattr(compiled, "MIN_NUMBERS", 0)
    table = torch.stack([layout.src, layout.destination, layout.arrange(kinds).int()], dim=1)
    pointers = torch.stack([layout.rowptr, layout.rowptr], dim=1)
    columns = EdgeLayout.from_rowptr(pointers[:, 0], table[:, 0], NUM_SRC)
    weights, x, by_type = drawn((NUM_EDGES, 2), (NUM_SRC, 2, 16), (NUM_TYPES, 2))
    assert torch.equal(weighted_sum(weights, x, columns), weighted_sum(weights, x, layout))
    found = additive_scores(columns, by_type=by_type, edge=weights, types=columns.types(table[:, 2], NUM_TYPES))
    assert torch.equal(
        found, additive_scores(layout, by_type=by_type, edge=weights, types=layout.types(kinds, NUM_TYPES))
    )


@pytest.mark.parametrize(
    ("heads", "channels", "dtype", "why"),
    [
        (4, 12, torch.float32, "channels are no multiple of 8"),
        (4, 16, torch.float64, "double precision"),
        (9, 64, torch.float32, "wider than 512"),
    ],
)
def test_torch_serves_what_the_loops_do_not(monkeypatch, graph, heads, channels, dtype, why):
    layout, _ = graph
    monkeypatch.setattr(compiled, "MIN_NUMBERS", 0)
    assert not compiled.usable(layout, heads, channels, torch.zeros(1, dtype=dtype)), why


def test_torch_serves_more_heads_than_the_loops_have_sums_for(monkeypatch, graph):
    layout, _ = graph
    monkeypatch.setattr(compiled, "MIN_NUMBERS", 0)
    monkeypatch.setattr(compiled, "library", lambda: True)
    assert compiled.usable_scalars(layout, 64, torch.zeros(1))
    assert not compiled.usable_scalars(layout, 65, torch.zeros(1))


def test_small_graphs_never_ask_for_a_compiler(monkeypatch, graph):
    layout, _ = graph
    monkeypatch.setattr(compiled, "library", lambda: pytest.fail("asked"))
    assert not compiled.usable(layout, 4, 16, torch.zeros(1))


class TestBuild:
    @pytest.fixture(autouse=True)
    def fresh(self):
        build.library.cache_clear()
        yield
        build.library.cache_clear()

    def test_without_a_compiler_there_are_no_loops(self, monkeypatch):
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert build.library() is None

    def test_the_environment_can_forbid_them(self, monkeypatch):
        monkeypatch.setenv("GRAPHREC_COMPILE", "0")
        assert build.library() is None

    def test_a_compiler_that_fails_is_named_with_what_it_said(self, monkeypatch, tmp_path):
        fake = tmp_path / "cc"
        fake.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho no such flag >&2\nexit 1\n')
        fake.chmod(0o755)
        monkeypatch.setattr(shutil, "which", lambda name: str(fake))
        monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path / "cache"))
        with pytest.warns(RuntimeWarning, match=r"could not be built with .*/cc.*no such flag"):
            assert build.library() is None
        assert list((tmp_path / "cache" / "compiled").iterdir()) == []

    @needs_compiler
    def test_they_are_built_once_for_all_processes(self, monkeypatch, tmp_path):
        monkeypatch.setenv("GRAPHREC_CACHE", str(tmp_path))
        assert build.library() is not None
        (made,) = (tmp_path / "compiled").iterdir()
        written = made.stat().st_mtime_ns
        code = "from graphrec.layers.ops.compiled.build import library; assert library() is not None"
        subprocess.run([sys.executable, "-c", code], check=True)
        assert [path.stat().st_mtime_ns for path in (tmp_path / "compiled").iterdir()] == [written]
