"""What every graph layer must do. A test class for a layer inherits the case and says how to make and call one."""

from __future__ import annotations

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.explain import Explainer
from torch_geometric.explain.algorithm import AttentionExplainer

from graphrec.errors import ArgumentError
from graphrec.layers.ops import EdgeLayout

IN, NUM_TYPES, EDGE_DIM = 6, 3, 2
NUM_SRC, NUM_DST = 7, 5


@dataclass(frozen=True)
class Sample:
    """A small typed graph with whatever a layer may want to read.

    Args:
        x: Source vectors, ``[num_src, IN]``.
        x_dst: Destination vectors of a bipartite graph, ``[num_dst, IN]``; ``None``: the sources themselves.
        edge_index: ``[2, num_edges]``.
        edge_type: ``[num_edges]``.
        edge_attr: ``[num_edges, EDGE_DIM]``.
    """

    x: Tensor
    x_dst: Tensor | None
    edge_index: Any
    edge_type: Tensor
    edge_attr: Tensor

    @property
    def destinations(self) -> Tensor:
        return self.x if self.x_dst is None else self.x_dst

    @property
    def num_dst(self) -> int:
        return self.destinations.size(0)

    def edges(self, index: Tensor) -> Sample:
        """Return the sample with these edges, in this order."""
        return replace(
            self,
            edge_index=self.edge_index[:, index],
            edge_type=self.edge_type[index],
            edge_attr=self.edge_attr[index],
        )


def sample(bipartite: bool = False, dtype: torch.dtype = torch.float64) -> Sample:
    """A self loop, a pair joined by all types, one edge twice, a node without edges, edges in no order."""
    generator = torch.Generator().manual_seed(1)
    edges = [[0, 1, 4, 6, 4, 4, 2, 1, 3, 3], [1, 1, 1, 0, 1, 1, 3, 3, 0, 4]]
    return Sample(
        x=torch.randn(NUM_SRC, IN, dtype=dtype, generator=generator),
        x_dst=torch.randn(NUM_DST, IN, dtype=dtype, generator=generator) if bipartite else None,
        edge_index=torch.tensor(edges),
        edge_type=torch.tensor([0, 2, 0, 1, 1, 1, 2, 0, 2, 0]),
        edge_attr=torch.randn(10, EDGE_DIM, dtype=dtype, generator=generator),
    )


class LayerCase(ABC):
    """Behaviour of all graph layers. Name the class ``Test...`` and set ``layer_class``."""

    layer_class: ClassVar[type[nn.Module]]
    options: ClassVar[Mapping[str, Any]] = {}
    attends = True  # whether the layer returns attention that sums to one
    typed = True  # whether the types of edges matter
    bipartite = True  # whether sources and destinations may be two sets

    # How to make and call one

    @abstractmethod
    def make(self) -> Any:
        """Return a layer, always the same, in float32; its weights need not be random."""

    @abstractmethod
    def naive(self, layer: Any, given: Sample) -> Tensor:
        """Return what ``layer`` should, one destination and edge at a time."""

    def call(self, layer: Any, given: Sample, **options: Any) -> Any:
        x = given.x if given.x_dst is None else (given.x, given.x_dst)
        return layer(x, given.edge_index, given.edge_type, **options)

    def layer(self, dtype: torch.dtype = torch.float64) -> Any:
        """Return the layer with random weights, in evaluation mode."""
        torch.manual_seed(0)
        layer = self.make()
        for weight in layer.parameters():
            nn.init.normal_(weight)
        return layer.to(dtype).eval()

    def samples(self) -> list[Sample]:
        return [sample(), sample(bipartite=True)] if self.bipartite else [sample()]

    # Values

    def test_equals_a_naive_loop(self) -> None:
        layer = self.layer()
        for given in self.samples():
            torch.testing.assert_close(self.call(layer, given), self.naive(layer, given))

    def test_edges_may_come_in_any_order(self) -> None:
        layer, order = self.layer(), torch.randperm(10, generator=torch.Generator().manual_seed(2))
        for given in self.samples():
            torch.testing.assert_close(self.call(layer, given.edges(order)), self.call(layer, given))
            if self.attends:
                alpha = self.attention(layer, given)
                torch.testing.assert_close(self.attention(layer, given.edges(order)), alpha[order])

    def test_permuting_nodes_permutes_the_output(self) -> None:
        layer, given = self.layer(), sample()
        order = torch.randperm(NUM_SRC, generator=torch.Generator().manual_seed(2))
        moved = replace(given, x=given.x[order], edge_index=order.argsort()[given.edge_index])
        torch.testing.assert_close(self.call(layer, moved), self.call(layer, given)[order])

    def attention(self, layer: Any, given: Sample) -> Tensor:
        alpha: Tensor = self.call(layer, given, return_attention_weights=True)[1]
        return alpha

    def test_attention_sums_to_one_at_each_destination(self) -> None:
        if not self.attends:
            pytest.skip("the layer does not attend")
        layer = self.layer()
        for given in self.samples():
            alpha = self.attention(layer, given)
            assert alpha.shape[0] == 10
            sums = alpha.new_zeros(given.num_dst, alpha.size(1)).index_add(0, given.edge_index[1], alpha)
            met = torch.bincount(given.edge_index[1], minlength=given.num_dst) > 0
            torch.testing.assert_close(sums, met.to(alpha.dtype)[:, None].expand_as(sums))

    def test_parallel_edges_of_different_relations_stay_apart(self) -> None:
        if not self.typed:
            pytest.skip("the layer knows no types")
        layer, given = self.layer(), sample()
        swapped = replace(given, edge_type=torch.where(given.edge_type == 1, 2, given.edge_type))
        assert not torch.allclose(self.call(layer, swapped)[1], self.call(layer, given)[1])
        once = given.edges(torch.tensor([0, 1, 2, 3, 4, 6, 7, 8, 9]))  # without one of 4 -> 1's two edges of type 1
        assert not torch.allclose(self.call(layer, once)[1], self.call(layer, given)[1])

    def test_the_graph_matters(self) -> None:
        layer, given = self.layer(), sample()
        flipped = replace(given, edge_index=given.edge_index.flip(0))
        assert not torch.allclose(self.call(layer, flipped), self.call(layer, given))

    def test_nodes_without_edges_and_graphs_without_edges_are_finite(self) -> None:
        layer = self.layer()
        for given in self.samples():
            assert self.call(layer, given).isfinite().all()
            nothing = given.edges(torch.empty(0, dtype=torch.int64))
            out = self.call(layer, nothing)
            torch.testing.assert_close(out, self.naive(layer, nothing))
            assert out.shape[0] == given.num_dst

    def test_without_destinations_there_are_no_rows(self) -> None:
        layer = self.layer()
        for given in self.samples():
            nothing = given.edges(torch.empty(0, dtype=torch.int64))
            nobody = nothing.x[:0] if given.x_dst is None else nothing.x
            out = self.call(layer, replace(nothing, x=nobody, x_dst=None if given.x_dst is None else given.x_dst[:0]))
            assert out.shape == (0, self.call(layer, given).size(1))

    def test_without_sources_gradients_are_finite(self) -> None:
        layer = self.layer()
        for given in self.samples():
            nothing = given.edges(torch.empty(0, dtype=torch.int64))
            x = nothing.x[:0].clone().requires_grad_()
            self.call(layer, replace(nothing, x=x)).sum().backward()
            assert x.grad is None or x.grad.shape == x.shape
            assert all(weight.grad is None or weight.grad.isfinite().all() for weight in layer.parameters())

    def test_one_call_like_another_bit_by_bit(self) -> None:
        layer, given = self.layer(torch.float32), sample(dtype=torch.float32)
        # In this mode torch fills memory that nobody wrote with NaN: whoever reads it is found out.
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                results = []
                for _ in range(2):
                    layer.zero_grad()
                    out = self.call(layer, given)
                    out.square().sum().backward()
                    results.append([out.detach(), *(weight.grad.clone() for weight in layer.parameters())])
        finally:
            torch.use_deterministic_algorithms(False)
        assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*results, strict=True))

    # Gradients

    def test_gradients_are_exact(self) -> None:
        layer = self.layer()
        weights = tuple(layer.parameters())
        for given in self.samples():
            x = given.x.clone().requires_grad_()
            x_dst = None if given.x_dst is None else given.x_dst.clone().requires_grad_()
            # gradcheck moves the weights where they are, so they need not be passed on.
            assert torch.autograd.gradcheck(
                lambda x, x_dst, *_, given=given: self.call(layer, replace(given, x=x, x_dst=x_dst)),
                (x, x_dst, *weights),
                fast_mode=True,
            )

    def test_every_weight_gets_a_gradient(self) -> None:
        layer, given = self.layer(), sample()
        if not list(layer.parameters()):
            pytest.skip("the layer has no weights")
        self.call(layer, given).square().sum().backward()
        assert [name for name, weight in layer.named_parameters() if weight.grad is None or not weight.grad.any()] == []

    # In other people's programs

    def test_state_dict_round_trip(self) -> None:
        layer, given = self.layer(), sample()
        other = self.make().double().eval()
        other.load_state_dict(layer.state_dict())
        assert torch.equal(self.call(other, given), self.call(layer, given))
        assert torch.equal(self.call(copy.deepcopy(layer), given), self.call(layer, given))

    def test_edges_first_met_in_inference_mode_stay_trainable(self) -> None:
        layer = self.layer()
        for given in self.samples():
            with torch.inference_mode():
                self.call(layer, given)
                foreign = replace(given, edge_index=given.edge_index.int(), edge_type=given.edge_type.int())
            expected = None
            for met in (given, foreign):
                x = given.x.clone().requires_grad_()
                self.call(layer, replace(met, x=x)).square().sum().backward()
                expected = x.grad if expected is None else expected
                torch.testing.assert_close(x.grad, expected)

    def test_compiled_equals_eager(self) -> None:
        # aot_eager traces forward and backward as inductor would, without needing a C++ compiler.
        layer, given = self.layer(torch.float32), sample(dtype=torch.float32)
        compiled = torch.compile(_Call(self, layer, given), backend="aot_eager")
        with warnings.catch_warnings():
            # Where a trace is broken, dynamo looks for the .grad of what crosses the break, and torch warns of that.
            warnings.filterwarnings("ignore", "The .grad attribute", UserWarning)
            out = compiled()
        torch.testing.assert_close(out, self.call(layer, given))
        out.square().sum().backward()
        gradients = [weight.grad.clone() for weight in layer.parameters()]
        layer.zero_grad()
        self.call(layer, given).square().sum().backward()
        for weight, gradient in zip(layer.parameters(), gradients, strict=True):
            torch.testing.assert_close(weight.grad, gradient)

    def test_explainer_finds_the_attention_in_the_order_of_edges(self) -> None:
        if not self.attends:
            pytest.skip("the layer does not attend")
        layer, given = self.layer(), sample()
        explainer = Explainer(
            _Model(self, layer, given),
            AttentionExplainer(),
            explanation_type="model",
            edge_mask_type="object",
            model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
        )
        mask = explainer(given.x, given.edge_index).edge_mask
        torch.testing.assert_close(mask, self.attention(layer, given).detach().max(dim=1).values)
        # Watched or not, the sums are the same.
        handle = layer.register_message_forward_hook(lambda module, inputs, out: None)
        watched = self.call(layer, given)
        handle.remove()
        torch.testing.assert_close(watched, self.call(layer, given))

    def test_an_edge_mask_of_zeros_hides_the_edges(self) -> None:
        from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

        layer, given = self.layer(), sample()
        set_masks(layer, torch.zeros(10, dtype=torch.float64), given.edge_index, apply_sigmoid=False)
        masked = self.call(layer, given)
        clear_masks(layer)
        nothing = given.edges(torch.empty(0, dtype=torch.int64))
        torch.testing.assert_close(masked, self.call(layer, nothing))

    def test_all_forms_of_edge_index_are_one(self) -> None:
        layer = self.layer()
        for given in self.samples():
            expected, size = self.call(layer, given), (given.x.size(0), given.num_dst)
            strided = torch.stack([given.edge_index, given.edge_index], dim=2)[:, :, 0]
            assert not strided.is_contiguous()
            layout = EdgeLayout.from_edge_index(given.edge_index, *size)
            for form in (given.edge_index.int(), strided, layout):
                torch.testing.assert_close(self.call(layer, replace(given, edge_index=form)), expected)
            for order, row in (("row", 0), ("col", 1)):
                ordered = given.edges(torch.argsort(given.edge_index[row], stable=True))
                index = EdgeIndex(ordered.edge_index, sparse_size=size, sort_order=order)
                torch.testing.assert_close(self.call(layer, replace(ordered, edge_index=index)), expected)

    def test_writing_to_the_edges_is_noticed(self) -> None:
        layer, given = self.layer(), sample()
        edge_index, edge_type = given.edge_index.clone(), given.edge_type.clone()
        changed = replace(given, edge_index=edge_index, edge_type=edge_type)
        first = self.call(layer, changed)
        edge_index[0, 0] = 5
        second = self.call(layer, changed)
        assert not torch.allclose(second, first)
        torch.testing.assert_close(second, self.naive(layer, changed))
        if self.typed:
            edge_type[0] = 1
            torch.testing.assert_close(self.call(layer, changed), self.naive(layer, changed))

    def test_autocast_is_close(self) -> None:
        layer, given = self.layer(torch.float32), sample(dtype=torch.float32)
        for weight in layer.parameters():
            weight.data.mul_(0.3)
        expected = self.call(layer, given)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = self.call(layer, given)
        out.float().square().sum().backward()
        gradients = [weight.grad.clone() for weight in layer.parameters()]
        assert all(gradient.isfinite().all() for gradient in gradients)
        torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            self.call(layer, given).float().square().sum().backward()  # a backward inside of it is like one outside
        for weight, gradient in zip(layer.parameters(), gradients, strict=True):
            torch.testing.assert_close(weight.grad, gradient, atol=0.1 * float(gradient.abs().max()), rtol=0.1)

    def test_half_precision_stays_and_is_close(self) -> None:
        layer, given = self.layer(torch.float32), sample(dtype=torch.float32)
        for weight in layer.parameters():
            weight.data.mul_(0.3)
        expected = self.call(layer, given)
        half = self.call(layer.bfloat16(), replace(given, x=given.x.bfloat16(), edge_attr=given.edge_attr.bfloat16()))
        assert half.dtype == torch.bfloat16
        assert half.requires_grad == bool(list(layer.parameters()))
        torch.testing.assert_close(half.float(), expected, atol=0.1, rtol=0.1)
        if half.requires_grad:
            half.float().square().sum().backward()
        assert all(weight.grad.isfinite().all() for weight in layer.parameters())

    # Mistakes

    def test_what_does_not_fit_is_refused(self) -> None:
        layer, given = self.layer(), sample()
        wrong: list[tuple[Mapping[str, Any], str]] = [
            ({"edge_index": given.edge_index + 2}, r"within 0\.\.6, got 2\.\.8"),
            ({"edge_index": given.edge_index - 1}, r"within 0\.\.6, got -1\.\."),
            ({"edge_index": given.edge_index.double()}, r"edge_index must be integers .*got torch\.float64"),
            ({"edge_index": given.edge_index[0]}, r"edge_index must be integers \[2, num_edges\].*\[10\]"),
            ({"x": given.x[:, :-1]}, rf"\[num_nodes, {IN}\].*got .*\[7, {IN - 1}\]"),
            ({"x": given.x.long()}, r"must be float .*got torch\.int64"),
            ({"x": given.x.to("meta")}, "must be on one device, got cpu, meta and meta"),
        ]
        if self.typed:
            wrong += [
                ({"edge_type": given.edge_type + 1}, rf"edge_type must be within 0\.\.{NUM_TYPES - 1}, got 1\.\.3"),
                ({"edge_type": given.edge_type[:4]}, r"edge_type must have shape \[10\], got \[4\]"),
                ({"edge_type": given.edge_type.to("meta")}, "edge_type must be on cpu like the edges, got meta"),
                ({"edge_type": given.edge_type.double()}, r"edge_type must be integers, got torch\.float64"),
            ]
        for changes, message in wrong:
            with pytest.raises(ArgumentError, match=message):
                self.call(layer, replace(given, **changes))
        with pytest.raises(ArgumentError, match="the edge layout is for 9 source"):
            self.call(layer, replace(given, edge_index=EdgeLayout.from_edge_index(given.edge_index, 9, 9)))

    def test_its_name_and_sizes_are_shown(self) -> None:
        assert repr(self.layer()).startswith(f"{self.layer_class.__name__}({IN}")


class _Call(nn.Module):
    """A layer with what it is called with, as a module without arguments."""

    def __init__(self, case: LayerCase, layer: nn.Module, given: Sample) -> None:
        super().__init__()
        self.case, self.layer, self.given = case, layer, given

    def forward(self) -> Any:
        return self.case.call(self.layer, self.given)


class _Model(nn.Module):
    """A foreign model of one layer, called as PyG's explainers call models."""

    def __init__(self, case: LayerCase, layer: nn.Module, given: Sample) -> None:
        super().__init__()
        self.case, self.layer, self.given = case, layer, given

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.case.call(self.layer, replace(self.given, x=x, edge_index=edge_index))
        return out.sum(dim=0, keepdim=True)
