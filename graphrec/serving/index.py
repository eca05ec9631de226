"""ItemIndex: the best items for a user vector, exactly or nearly, without scoring the whole catalogue in Python."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graphrec.errors import ArgumentError, RunError, check_range
from graphrec.experiment.files import read_json, to_json, write_text
from graphrec.histories import Histories

EXACT_UP_TO = 1_000_000  # items; more are searched approximately
BLOCK_ITEMS = 2**17  # scored at once
NEIGHBORS, BUILD_EFFORT, SEARCH_EFFORT = 32, 80, 128  # of the HNSW graph
FEW = 0.1  # of the items: a filter that leaves no more is searched exactly
NUM_QUERIES, RECALL_AT = 200, 10  # for the recall that an index reports
POINTER, FOLDER = "index.json", "index"


@dataclass(frozen=True)
class IndexInfo:
    """What an index is.

    Args:
        num_items: Number of items.
        dim: Width of the vectors, the bias included.
        approximate: Whether it is an HNSW graph.
        recall: Share of the exact best 10 items that it finds, on user vectors given at its making or, without them,
            on item vectors; 1 for an exact index.
        weights: SHA-256 of the weights that made it; empty where it belongs to no run.
    """

    num_items: int
    dim: int
    approximate: bool
    recall: float
    weights: str = ""


class ItemIndex:
    r"""Finds the items of largest :math:`p_u \cdot q_j + b_j`.

    Up to a million items all are looked at, block by block; above, an HNSW graph of faiss is walked (extra "index").
    The bias is one more column of the vectors, against a 1 in the query.

    Args:
        vectors: float32 ``[num_items, dim + 1]``, the last column the bias; may be memory-mapped.
        graph: faiss' index of the same vectors; ``None`` for an exact index.
        info: What it is.

    Example:
        >>> index = ItemIndex.build(torch.eye(3), torch.tensor([0.0, 0.0, 5.0]))
        >>> items, scores = index.search(torch.tensor([[1.0, 0.0, 0.0]]), k=2)
        >>> items.tolist(), scores.tolist()
        ([[2, 0]], [[5.0, 1.0]])

    Source:
        Malkov and Yashunin, "Efficient and Robust Approximate Nearest Neighbor Search Using Hierarchical Navigable
        Small World Graphs" (TPAMI 2020).
    """

    def __init__(self, vectors: NDArray[np.float32], graph: Any, info: IndexInfo) -> None:
        self.vectors = vectors
        self.graph = graph
        self.info = info

    @classmethod
    def build(
        cls,
        vectors: Tensor,
        bias: Tensor | None = None,
        approximate: bool | None = None,
        queries: Tensor | None = None,
        weights: str = "",
    ) -> Self:
        """Make an index and measure its recall.

        Args:
            vectors: float32 ``[num_items, dim]``.
            bias: float32 ``[num_items]``; zeros when not given.
            approximate: Whether to make an HNSW graph; when not given, above a million items.
            queries: User vectors to measure the recall with, ``[num_queries, dim]``; item vectors when not given.
            weights: See :class:`IndexInfo`.

        Raises:
            ArgumentError: Shapes that do not fit, or faiss is missing.
        """
        if vectors.dim() != 2 or not len(vectors):
            raise ArgumentError(f"vectors must have shape [num_items, dim], got {list(vectors.shape)}")
        if bias is not None and bias.shape != vectors.shape[:1]:
            raise ArgumentError(f"bias must have shape [{len(vectors)}], got {list(bias.shape)}")
        bias = torch.zeros(len(vectors)) if bias is None else bias
        table = torch.cat([vectors.float(), bias.float().unsqueeze(1)], dim=1).numpy()
        if approximate is None:
            approximate = len(table) > EXACT_UP_TO
        index = cls(
            table,
            _hnsw(table) if approximate else None,
            IndexInfo(len(table), table.shape[1], approximate, 1.0, weights),
        )
        if approximate:
            asked = vectors[:: max(1, len(vectors) // NUM_QUERIES)] if queries is None else queries
            recall = index.recall(asked[:NUM_QUERIES].float())
            index.info = replace(index.info, recall=recall)
        return index

    def search(
        self, users: Tensor, k: int, allowed: Tensor | None = None, seen: Histories | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the best ``k`` items for each user vector.

        Args:
            users: float32 ``[batch_size, dim]``.
            k: How many.
            allowed: Items to choose from, bool ``[num_items]``; ``None`` means all. Where it leaves a tenth or less, or
                the graph finds too few, the rest is looked at exactly.
            seen: Items not to return, one row for each user.

        Returns:
            Items, int64 ``[batch_size, k]``, best first, -1 where none is left, and their scores, -inf there.

        Raises:
            ArgumentError: Shapes that do not fit, or ``k`` below 1.
        """
        check_range("k", k, low=1)
        num_items, width = self.vectors.shape
        if users.dim() != 2 or users.size(1) != width - 1:
            raise ArgumentError(f"users must have shape [batch_size, {width - 1}], got {list(users.shape)}")
        if allowed is not None and allowed.shape != (num_items,):
            raise ArgumentError(f"allowed must have shape [{num_items}], got {list(allowed.shape)}")
        if seen is not None and len(seen) != len(users):
            raise ArgumentError(f"seen must have {len(users)} rows like users, got {len(seen)}")
        asked = torch.cat([users.float(), torch.ones(len(users), 1)], dim=1)
        few = allowed is not None and int(allowed.sum()) <= FEW * num_items
        if self.graph is None or few:
            return self._exact(asked, k, allowed, seen)
        items, scores = self._walk(asked, k, allowed, seen)
        short = (items < 0).any(dim=1).nonzero().squeeze(1)
        if len(short):
            items[short], scores[short] = self._exact(
                asked[short], k, allowed, None if seen is None else seen.select(short)
            )
        return items, scores

    def recall(self, users: Tensor, k: int = RECALL_AT) -> float:
        """Return the share of the exact best ``k`` items that :meth:`search` finds."""
        asked = torch.cat([users.float(), torch.ones(len(users), 1)], dim=1)
        exact, _ = self._exact(asked, k, None, None)
        found, _ = self.search(users, k)
        hits = (found.unsqueeze(2) == exact.unsqueeze(1)) & (exact >= 0).unsqueeze(1)
        return float(hits.sum() / (exact >= 0).sum())

    def _exact(self, asked: Tensor, k: int, allowed: Tensor | None, seen: Histories | None) -> tuple[Tensor, Tensor]:
        """Look at all items, or at the allowed ones where they are few."""
        num_items = len(self.vectors)
        chosen = None
        if allowed is not None and int(allowed.sum()) <= FEW * num_items:
            chosen = allowed.nonzero().squeeze(1)
        best_scores = torch.full((len(asked), k), -torch.inf)
        best_items = torch.full((len(asked), k), -1)
        for start in range(0, num_items if chosen is None else len(chosen), BLOCK_ITEMS):
            stop = min(start + BLOCK_ITEMS, num_items if chosen is None else len(chosen))
            rows = torch.arange(start, stop) if chosen is None else chosen[start:stop]
            block = self.vectors[start:stop] if chosen is None else self.vectors[rows.numpy()]
            scores = asked @ torch.from_numpy(block).t()  # [batch_size, block]
            if chosen is None and allowed is not None:
                scores.masked_fill_(~allowed[start:stop], -torch.inf)
            if seen is not None:
                place = torch.searchsorted(rows, seen.items)
                there = (place < len(rows)) & (rows[place.clamp(max=len(rows) - 1)] == seen.items)
                scores[seen.rows[there], place[there]] = -torch.inf
            top, at = scores.topk(min(k, scores.size(1)), dim=1)
            both = torch.cat([best_scores, top], dim=1)
            best_scores, order = both.topk(k, dim=1)
            best_items = torch.cat([best_items, rows[at]], dim=1).gather(1, order)
        return best_items.masked_fill(best_scores == -torch.inf, -1), best_scores

    def _walk(self, asked: Tensor, k: int, allowed: Tensor | None, seen: Histories | None) -> tuple[Tensor, Tensor]:
        faiss = _faiss()
        items = np.full((len(asked), k), -1, dtype=np.int64)
        scores = np.full((len(asked), k), -np.inf, dtype=np.float32)
        bits = None if allowed is None else np.packbits(allowed.numpy(), bitorder="little")
        rows = [slice(None)] if seen is None else [slice(row, row + 1) for row in range(len(asked))]
        for number, part in enumerate(rows):
            selectors: list[Any] = [] if bits is None else [faiss.IDSelectorBitmap(bits)]
            if seen is not None:
                past = seen.items[seen.offsets[number] : seen.offsets[number + 1]].numpy()
                selectors.append(faiss.IDSelectorNot(faiss.IDSelectorBatch(past)))
            selector: Any = None
            for one in selectors:
                selector = one if selector is None else faiss.IDSelectorAnd(selector, one)
            effort = faiss.SearchParametersHNSW(efSearch=max(SEARCH_EFFORT, 4 * k), sel=selector)
            scores[part], items[part] = self.graph.search(asked[part].numpy(), k, params=effort)
        found = torch.from_numpy(items)
        return found, torch.from_numpy(scores).masked_fill(found < 0, -torch.inf)

    # On disk

    def save(self, run_dir: str | Path) -> Path:
        """Write the index into a run folder, in place of an earlier one, and return where it is.

        The new one is complete before anything points to it; who has the old one open goes on reading it.

        Raises:
            RunError: It could not be written (full disk, no permission); an earlier one is still there.
        """
        run_dir = Path(run_dir)
        folder = run_dir / f"{FOLDER}-{secrets.token_hex(4)}"
        try:
            folder.mkdir()
            np.save(folder / "vectors.npy", self.vectors)
            if self.graph is not None:
                _faiss().write_index(self.graph, str(folder / "hnsw.faiss"))
            (folder / "info.json").write_text(to_json(asdict(self.info)), encoding="utf-8")
            write_text(run_dir / POINTER, to_json({"folder": folder.name}))
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError | RuntimeError):  # faiss' own is a RuntimeError
                raise RunError(f"could not write {folder}: {' '.join(str(error).split())}") from error
            raise
        for old in run_dir.glob(f"{FOLDER}-*"):
            if old != folder:
                shutil.rmtree(old)
        return folder

    @classmethod
    def load(cls, run_dir: str | Path) -> Self:
        """Open the index of a run folder; its vectors and its graph are mapped into memory, not read.

        Raises:
            RunError: There is none, or it is damaged.
        """
        run_dir = Path(run_dir)
        if not (run_dir / POINTER).is_file():
            raise RunError(f"{run_dir}: it has no index; graphrec index makes one")
        name = str(read_json(run_dir / POINTER).get("folder"))
        while True:
            try:
                return cls._open(run_dir, name)
            except RunError:
                # Whoever saves another one meanwhile takes away what the pointer named before.
                before, name = name, str(read_json(run_dir / POINTER).get("folder"))
                if name == before:
                    raise

    @classmethod
    def _open(cls, run_dir: Path, name: str) -> Self:
        folder = run_dir / name
        if Path(name).name != name or not folder.is_dir():
            raise RunError(f"{run_dir / POINTER}: damaged: there is no folder {name!r}")
        try:
            info = IndexInfo(**read_json(folder / "info.json"))
            # Copy on write: torch warns of arrays that cannot be written to.
            vectors = np.load(folder / "vectors.npy", mmap_mode="c")
            graph = None
            if info.approximate:
                faiss = _faiss()
                graph = faiss.read_index(str(folder / "hnsw.faiss"), faiss.IO_FLAG_MMAP_IFC)
        except (OSError, EOFError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise RunError(f"{folder}: damaged: {' '.join(str(error).split())}") from error
        if vectors.shape != (info.num_items, info.dim):
            raise RunError(f"{folder}: damaged: vectors {list(vectors.shape)}, not [{info.num_items}, {info.dim}]")
        return cls(vectors, graph, info)

    def __repr__(self) -> str:
        kind = f"HNSW, recall@{RECALL_AT} {self.info.recall:.3f}" if self.info.approximate else "exact"
        return f"ItemIndex({self.info.num_items} items, {self.info.dim - 1} wide, {kind})"


def index_run(run_dir: str | Path, approximate: bool | None = None) -> tuple[ItemIndex, Path]:
    """Make the index of a run's items, save it in the run folder, and return it and where it is.

    Its recall is measured on users of the data set.

    Args:
        run_dir: A finished run.
        approximate: See :meth:`ItemIndex.build`.

    Raises:
        RunError: The run is missing, unfinished or damaged.
        ArgumentError: The model's score is no inner product, or faiss is missing.
    """
    from graphrec.experiment.data import load_graph, prepare
    from graphrec.experiment.folder import WEIGHTS, RunFolder
    from graphrec.serving.towers import towers_of

    folder = RunFolder.open(run_dir)
    graph = prepare(load_graph(folder.config.data), folder.config)
    towers = towers_of(folder.load_model(graph))
    known = Histories.from_interactions(graph.part("train", "valid"), graph.num_users)
    asked = known.select(torch.linspace(0, graph.num_users - 1, min(NUM_QUERIES, graph.num_users)).long())
    queries, weights = towers.user_vectors(asked), folder.info.files[WEIGHTS]
    index = ItemIndex.build(towers.item, towers.bias, approximate, queries, weights)
    return index, index.save(folder.path)


def _hnsw(table: NDArray[np.float32]) -> Any:
    faiss = _faiss()
    graph = faiss.IndexHNSWFlat(table.shape[1], NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_EFFORT
    graph.add(table)
    return graph


def _faiss() -> Any:
    if importlib.util.find_spec("faiss") is None:
        raise ArgumentError("an approximate index needs faiss: pip install 'graphrec[index]'")
    import faiss

    return faiss
