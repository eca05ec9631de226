"""Edge layouts: a graph's edges sorted by destination and by source, for the fused kernels."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from graphrec.errors import ArgumentError

INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class EdgeLayout:
    """Edges in compressed form, in both directions.

    Sorting costs more than attention itself, so a layout is made once and kept; the second sort waits until a
    gradient asks for it. Kernels see edges *in layout order*: edge ``k`` of the layout is edge ``order[k]`` of the
    caller. Parallel edges stay apart.

    Args:
        num_src: Number of source nodes.
        num_dst: Number of destination nodes.
        rowptr: Where each destination's edges begin, ``[num_dst + 1]``.
        src: Source of each edge, ``[num_edges]``.
        permutation: The caller's edge number of each edge, int64 ``[num_edges]``; ``None``: in the caller's order.

    Example:
        >>> layout = EdgeLayout.from_edge_index(torch.tensor([[3, 0, 1], [1, 0, 1]]), num_src=4, num_dst=2)
        >>> layout.rowptr.tolist(), layout.src.tolist(), layout.order.tolist()
        ([0, 1, 3], [0, 3, 1], [1, 0, 2])
    """

    num_src: int
    num_dst: int
    rowptr: Tensor
    src: Tensor
    permutation: Tensor | None = None
    _kept: dict[str, Any] = field(default_factory=dict, repr=False)

    # Constructors

    @classmethod
    def of(cls, edge_index: Tensor | EdgeLayout, num_src: int, num_dst: int) -> EdgeLayout:
        """Return the layout of ``edge_index``, made once for as long as that tensor lives and is not written to.

        A write past autograd, through ``edge_index.data``, is not noticed: write to the tensor itself.

        Raises:
            ArgumentError: A wrong shape or type, an index out of range, or a layout of a graph of another size.
        """
        if isinstance(edge_index, EdgeLayout):
            if (edge_index.num_src, edge_index.num_dst) != (num_src, num_dst):
                raise ArgumentError(
                    f"the edge layout is for {edge_index.num_src} source and {edge_index.num_dst} destination nodes, "
                    f"x has {num_src} and {num_dst}"
                )
            return edge_index
        if edge_index.is_inference():  # such tensors do not count their writes
            return cls.from_edge_index(edge_index, num_src, num_dst)
        key = (edge_index._version, num_src, num_dst)
        kept = _LAYOUTS.get(edge_index)
        if kept is None or kept[0] != key:
            kept = (key, cls.from_edge_index(edge_index, num_src, num_dst))
            _LAYOUTS[edge_index] = kept
        return cast(EdgeLayout, kept[1])

    @classmethod
    @torch.inference_mode(False)
    def from_edge_index(cls, edge_index: Any, num_src: int, num_dst: int) -> EdgeLayout:
        """Sort ``edge_index`` (``[2, num_edges]``, row 0 source, row 1 destination), unless it is sorted.

        The sort is stable, so equal inputs give equal layouts. Of a sorted PyG ``EdgeIndex`` the pointers and
        permutations that it keeps are used.

        Raises:
            ArgumentError: A wrong shape or type, or an index out of range.
        """
        if edge_index.dim() != 2 or edge_index.size(0) != 2 or edge_index.dtype not in _INTEGERS:
            raise ArgumentError(
                f"edge_index must be integers [2, num_edges], got {edge_index.dtype} {list(edge_index.shape)}"
            )
        # A PyG EdgeIndex is known by its method: importing PyG takes longer than most sorts.
        if hasattr(edge_index, "get_csc") and edge_index.is_sorted:
            return cls._from_pyg(edge_index, num_src, num_dst)
        source, destination = edge_index[0].long(), edge_index[1].long()
        _check_indices("source", source, num_src)
        _check_indices("destination", destination, num_dst)
        permutation = None
        if bool((destination[1:] < destination[:-1]).any()):
            permutation = _stable_order(destination)
            source = source.index_select(0, permutation)
        dtype = _index_dtype(num_src, num_dst, source.numel())
        rowptr = _pointers(destination, num_dst)
        return cls(num_src, num_dst, _packed(rowptr, dtype), _packed(source, dtype), permutation)

    @classmethod
    @torch.inference_mode(False)
    def from_rowptr(cls, rowptr: Tensor, src: Tensor, num_src: int, name: str = "rowptr") -> EdgeLayout:
        """Take edges that are grouped by destination already: those of ``d`` are ``src[rowptr[d]:rowptr[d + 1]]``.

        Args:
            rowptr: The pointers, ``[num_dst + 1]``.
            src: The sources, ``[num_edges]``.
            num_src: Number of sources.
            name: What the caller's caller knows the pointers by, for errors.

        Raises:
            ArgumentError: Pointers that do not rise from 0 to the number of edges, or an index out of range.
        """
        if rowptr.dim() != 1 or not rowptr.numel() or src.dim() != 1:
            raise ArgumentError(
                f"{name} and src must be vectors, {name} not empty, got {list(rowptr.shape)}, {list(src.shape)}"
            )
        bounds, falls = (int(rowptr[0]), int(rowptr[-1])), rowptr[1:] < rowptr[:-1]
        if bounds != (0, src.numel()) or bool(falls.any()):
            got = f"{bounds[0]}..{bounds[1]}"
            if bool(falls.any()):
                place = int(falls.nonzero()[0])
                got += f", with {int(rowptr[place])} and then {int(rowptr[place + 1])} at {place}"
            raise ArgumentError(f"{name} must rise from 0 to {src.numel()}, got {got}")
        _check_indices("source", src, num_src)
        num_dst = rowptr.numel() - 1
        dtype = _index_dtype(num_src, num_dst, src.numel())
        return cls(num_src, num_dst, _packed(rowptr, dtype), _packed(src, dtype))

    @classmethod
    def _from_pyg(cls, edge_index: Any, num_src: int, num_dst: int) -> EdgeLayout:
        (rowptr, src), permutation = edge_index.get_csc()
        (colptr, dst), transpose = edge_index.get_csr()
        rowptr, src, colptr, dst = (_plain(part) for part in (rowptr, src, colptr, dst))
        _check_indices("source", src, num_src)
        _check_indices("destination", dst, num_dst)
        # An EdgeIndex may know of fewer nodes than x has.
        rowptr, colptr = _extended(rowptr, num_dst), _extended(colptr, num_src)
        dtype = _index_dtype(num_src, num_dst, src.numel())
        if permutation is not None:  # the caller's order is the transposed one
            permutation = _plain(permutation).long()
            transpose = torch.empty_like(permutation)
            transpose[permutation] = torch.arange(src.numel(), device=src.device)
        else:
            transpose = _plain(transpose).long()
        layout = cls(num_src, num_dst, rowptr.to(dtype), src.to(dtype), permutation)
        layout._kept["transposed"] = (colptr.to(dtype), dst.to(dtype), transpose)
        return layout

    # Both directions

    @property
    def num_edges(self) -> int:
        """Number of edges."""
        return self.src.numel()

    @cached_property
    @torch.inference_mode(False)
    def order(self) -> Tensor:
        """The caller's edge number of each edge, int64 ``[num_edges]``."""
        if self.permutation is None:
            return torch.arange(self.num_edges, device=self.src.device)
        return self.permutation

    @cached_property
    @torch.inference_mode(False)
    def destination(self) -> Tensor:
        """Destination of each edge in layout order, ``[num_edges]``."""
        nodes = torch.arange(self.num_dst, device=self.rowptr.device, dtype=self.rowptr.dtype)
        return torch.repeat_interleave(nodes, (self.rowptr[1:] - self.rowptr[:-1]).long(), output_size=self.num_edges)

    @cached_property
    @torch.inference_mode(False)
    def cell(self) -> Tensor:
        """Number of each edge's cell in a table of destinations by sources, ``destination * num_src + src``."""
        dtype = _index_dtype(self.num_src * self.num_dst, 0, 0)
        return self.destination.to(dtype) * self.num_src + self.src

    @cached_property
    def num_occupied(self) -> int:
        """How many destinations have edges."""
        return int((self.rowptr[1:] > self.rowptr[:-1]).sum())

    @property
    def colptr(self) -> Tensor:
        """Where each source's edges begin in transposed order, ``[num_src + 1]``."""
        return self._transposed[0]

    @property
    def dst(self) -> Tensor:
        """Destination of each edge in transposed order, ``[num_edges]``."""
        return self._transposed[1]

    @property
    def transpose(self) -> Tensor:
        """Layout position of each edge in transposed order, int64 ``[num_edges]``."""
        return self._transposed[2]

    @property
    @torch.inference_mode(False)
    def _transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        if "transposed" not in self._kept:
            transpose = _stable_order(self.src)
            dst = self.destination.index_select(0, transpose)
            self._kept["transposed"] = (_pointers(self.src, self.num_src).to(self.src.dtype), dst, transpose)
        return cast(tuple[Tensor, Tensor, Tensor], self._kept["transposed"])

    # What belongs to edges

    def check_rows(self, of: Literal["source", "destination", "edge"], **tensors: Tensor | None) -> None:
        """Make sure that tensors have a row for each source, each destination or each edge.

        The compiled loops see addresses alone: behind too few rows they would read whatever lies there.

        Raises:
            ArgumentError: One has not.
        """
        count = {"source": self.num_src, "destination": self.num_dst, "edge": self.num_edges}[of]
        for name, tensor in tensors.items():
            if tensor is not None and tensor.size(0) != count:
                raise ArgumentError(f"{name} must have a row for each {of}, {count}, got {list(tensor.shape)}")

    def arrange(self, values: Tensor) -> Tensor:
        """Bring ``values`` (``[num_edges, ...]``) from the caller's order into layout order."""
        return values if self.permutation is None else values.index_select(0, self.permutation)

    def restore(self, values: Tensor) -> Tensor:
        """Bring ``values`` (``[num_edges, ...]``) from layout order into the caller's order."""
        if self.permutation is None:
            return values
        return torch.empty_like(values).index_copy(0, self.permutation, values)

    def types(self, edge_type: Tensor, num_types: int) -> EdgeLayout:
        """Return the layout of the same edges with their types as sources, in the same order.

        It is made once for each ``edge_type`` (``[num_edges]``, in the caller's order) that is not written to.

        Raises:
            ArgumentError: A wrong shape, type or device, or an edge type out of range.
        """
        key = None if edge_type.is_inference() else (edge_type._version, num_types)
        kept = self._kept.get("types")
        if kept is None or key is None or kept[0] is not edge_type or kept[1] != key:
            kept = (edge_type, key, self._types(edge_type, num_types))
            self._kept["types"] = kept
        return cast(EdgeLayout, kept[2])

    @torch.inference_mode(False)
    def _types(self, edge_type: Tensor, num_types: int) -> EdgeLayout:
        if edge_type.shape != (self.num_edges,):
            raise ArgumentError(f"edge_type must have shape [{self.num_edges}], got {list(edge_type.shape)}")
        if edge_type.dtype not in _INTEGERS:
            raise ArgumentError(f"edge_type must be integers, got {edge_type.dtype}")
        if edge_type.device != self.src.device:
            raise ArgumentError(f"edge_type must be on {self.src.device} like the edges, got {edge_type.device}")
        _check_bounds("edge_type", edge_type, num_types)
        index = _packed(self.arrange(edge_type), self.src.dtype)
        return EdgeLayout(num_types, self.num_dst, self.rowptr, index, self.permutation)


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_LAYOUTS: Any = WeakTensorKeyDictionary()


def _check_indices(name: str, index: Tensor, size: int) -> None:
    if index.dtype not in _INTEGERS:
        raise ArgumentError(f"edge_index {name}s must be integers, got {index.dtype}")
    _check_bounds(f"edge_index {name}s", index, size)


def _check_bounds(name: str, index: Tensor, size: int) -> None:
    if not index.numel():
        return
    low, high = (int(bound) for bound in torch.aminmax(index))
    if low < 0 or high >= size:
        raise ArgumentError(f"{name} must be within 0..{size - 1}, got {low}..{high}")


def _index_dtype(num_src: int, num_dst: int, num_edges: int) -> torch.dtype:
    # int32 halves the memory traffic, and the fast kernels want it; larger graphs keep int64.
    return torch.int32 if max(num_src, num_dst, num_edges) <= INT32_MAX else torch.int64


def _packed(index: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``index`` as the compiled loops read it: of ``dtype``, one number right after the other."""
    packed = index.to(dtype).contiguous()
    return packed.clone() if packed.is_inference() else packed  # no gradient could keep it


def _stable_order(index: Tensor) -> Tensor:
    """Return the stable ascending order of ``index``, which holds no negative number."""
    if index.device.type != "cpu":
        return torch.argsort(index, stable=True)
    # Sorted as pairs (index, position) packed into one number; NumPy sorts plain numbers six times as fast as torch
    # sorts with positions.
    bits = index.numel().bit_length()
    pairs = (index.long() << bits).bitwise_or_(torch.arange(index.numel()))
    pairs.numpy().sort()
    return pairs.bitwise_and_((1 << bits) - 1)


def _pointers(index: Tensor, size: int) -> Tensor:
    return torch.nn.functional.pad(torch.bincount(index, minlength=size).cumsum(0), (1, 0))


def _extended(pointers: Tensor, size: int) -> Tensor:
    missing = size + 1 - pointers.numel()
    return torch.cat([pointers, pointers[-1:].expand(missing)]) if missing > 0 else pointers[: size + 1]


def _plain(index: Tensor) -> Tensor:
    return index.as_subclass(Tensor)
