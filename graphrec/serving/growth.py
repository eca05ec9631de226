"""grow: items that join a fitted model and its graph without retraining."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphrec.encoders import CooccurrenceEncoder, KnowledgeGraphEncoder
from graphrec.errors import ArgumentError
from graphrec.models.base import Recommender
from graphrec.models.blend import Blend
from graphrec.models.ease import EASE
from graphrec.models.inductive_kgat import InductiveKGAT
from graphrec.models.slist import SLIST
from graphrec.serving.store import NewItem
from kg_loaders import Feature, RecGraph, Vocabulary

ModuleT = TypeVar("ModuleT", bound=nn.Module)

CLOSED_FORMS = (EASE, SLIST)  # a fit would give an item that nobody took weights of zero, whatever the penalty


def grow(model: Recommender, graph: RecGraph, items: Sequence[NewItem]) -> tuple[Recommender, RecGraph]:
    """Return a model and a graph with more items; those given stay as they are, and share their weights.

    A new item is to the model what an item is that nobody took in training: its vectors are what its facts give through
    the encoder's own attention, and it counts as less popular than any other. It attends to the graph's entities; none
    of these attends to it, and items that were there keep their vectors to the last bit.

    Args:
        model: A fitted InductiveKGAT with a KG, or a blend of such, also with EASE or SLIST.
        graph: The graph it was fitted on.
        items: What joins, in this order, after the items that are there.

    Raises:
        ArgumentError: The model cannot take new items, or one of them cannot be ranked; see :func:`check_items`.
    """
    check_items(model, graph, items)
    edges = _edges(graph, items)
    return _grow_model(model, graph.num_items, len(items), edges), _grow_graph(graph, items, edges)


def can_grow(model: Recommender) -> bool:
    """Whether a model can rank items that it was not trained with."""
    if isinstance(model, Blend):
        return can_grow(model.first) and (can_grow(model.second) or type(model.second) in CLOSED_FORMS)
    if not isinstance(model, InductiveKGAT) or model.kg is None:
        return False
    # Modalities know their items by their rows; a new item brings no vectors.
    return model.modalities is None and model.like is None


def check_items(model: Recommender, graph: RecGraph, items: Sequence[NewItem]) -> None:
    """Make sure that items can join.

    Raises:
        ArgumentError: The model cannot take new items; an id is there already or given twice; a relation or an entity
            is unknown; or no fact of an item leads to an entity that the model attends to, so nothing could be said
            of it.
    """
    if items and not can_grow(model):
        name = type(model).__name__
        raise ArgumentError(
            f"this {name} cannot rank items that it was not trained with; "
            "an InductiveKGAT with a KG and no modalities can"
        )
    seen: set[str] = set()
    for item in items:
        if item.item_id in graph.entities or item.item_id in seen:
            raise ArgumentError(f"item_id {item.item_id!r} is there already; give a new item an id of its own")
        seen.add(item.item_id)
        for fact in item.facts:
            if fact.relation_id not in graph.relations:
                raise ArgumentError(f"item {item.item_id!r}: the knowledge graph has no relation {fact.relation_id!r}")
            if fact.entity_id not in graph.entities:
                raise ArgumentError(f"item {item.item_id!r}: the knowledge graph has no entity {fact.entity_id!r}")
    for encoder in _encoders(model) if items else ():
        attended = torch.isin(_edges(graph, items)[:, 0], encoder.entities)
        reached = set(_edges(graph, items)[attended, 2].tolist())
        for number, item in enumerate(items):
            if number not in reached:
                raise ArgumentError(
                    f"item {item.item_id!r}: no fact links it to an entity that two items of the training data share, "
                    "so nothing can be said of it"
                )


def _edges(graph: RecGraph, items: Sequence[NewItem]) -> Tensor:
    """Return (entity, edge type, number of the new item) of every fact, int64 ``[num_facts, 3]``."""
    facts = [(fact, number) for number, item in enumerate(items) for fact in dict.fromkeys(item.facts)]
    entity = graph.entities.indices_of(fact.entity_id for fact, _ in facts)
    relation = graph.relations.indices_of(fact.relation_id for fact, _ in facts)
    # An edge into an item that is the head comes from the tail: it is the inverse.
    inverse = np.array([fact.item_is_head for fact, _ in facts], dtype=np.int64)
    number = np.array([number for _, number in facts], dtype=np.int64)
    return torch.from_numpy(np.stack([entity, relation + inverse * graph.num_relations, number], axis=1))


def _encoders(model: Recommender) -> list[KnowledgeGraphEncoder]:
    if isinstance(model, Blend):
        return [*_encoders(model.first), *_encoders(model.second)]
    return [model.kg] if isinstance(model, InductiveKGAT) and model.kg is not None else []


def _grow_model(model: Recommender, num_items: int, more: int, edges: Tensor) -> Recommender:
    if isinstance(model, Blend):
        first, second = (_grow_model(part, num_items, more, edges) for part in (model.first, model.second))
        return _changed(model, modules={"first": first, "second": second}, num_items=num_items + more, _cache={})
    if isinstance(model, EASE | SLIST):
        weight = F.pad(model.weight, (0, more, 0, more))
        return _changed(model, buffers={"weight": weight}, num_items=num_items + more, _cache={})
    assert isinstance(model, InductiveKGAT)
    assert model.kg is not None
    modules: dict[str, nn.Module] = {"kg": _grow_kg(model.kg, num_items, more, edges)}
    if model.co is not None:
        modules["co"] = _grow_co(model.co, more)
    names = ("item", "candidate", "item_bias", "attention_bias")
    tables = {name: table for name in names if (table := getattr(model, name)) is not None}
    if model.prior is not None:
        modules["prior"] = _changed(model.prior, buffers={"num_takers": _zeros_after(model.prior.num_takers, more)})
    tables_of_items = {"taken": model.taken} | ({} if model.foretold is None else {"foretold": model.foretold})
    return _changed(
        model,
        parameters={name: nn.Parameter(_zeros_after(table, more), False) for name, table in tables.items()},
        buffers={name: _zeros_after(table, more) for name, table in tables_of_items.items()},
        modules=modules,
        num_items=num_items + more,
        _cache={},
    )


def _grow_kg(kg: KnowledgeGraphEncoder, num_items: int, more: int, edges: Tensor) -> KnowledgeGraphEncoder:
    entity, edge_type, number = edges[torch.isin(edges[:, 0], kg.entities)].unbind(dim=1)
    source = torch.searchsorted(kg.entities, entity.contiguous())  # sorted: they are what torch.unique found
    return _changed(
        kg,
        buffers={
            "entities": torch.where(kg.entities >= num_items, kg.entities + more, kg.entities),
            "item_edges": torch.cat([kg.item_edges, torch.stack([source, number + num_items])], dim=1),
            "item_edge_type": torch.cat([kg.item_edge_type, edge_type]),
        },
        num_items=num_items + more,
        _layouts={},
    )


def _grow_co(co: CooccurrenceEncoder, more: int) -> CooccurrenceEncoder:
    return _changed(
        co,
        buffers={"neighbor": _zeros_after(co.neighbor, more), "attention": _zeros_after(co.attention, more)},
    )


def _grow_graph(graph: RecGraph, items: Sequence[NewItem], edges: Tensor) -> RecGraph:
    at, more = graph.num_items, len(items)
    ids = graph.entities.ids
    new_ids = [item.item_id for item in items]
    entity, edge_type, number = edges.numpy().T
    moved = _moved(entity, at, more)
    item_is_head = edge_type >= graph.num_relations
    relation = edge_type % max(graph.num_relations, 1)
    item = number + at
    new = np.stack([np.where(item_is_head, item, moved), relation, np.where(item_is_head, moved, item)], axis=1)
    triples = graph.triples.copy()
    for column in (0, 2):
        triples[:, column] = _moved(triples[:, column], at, more)
    titles = [item.title for item in items]
    item_features = _with_rows(graph.item_features, at, more, titles)
    if "title" not in item_features:
        # Made, so that the new have names: the others show their ids, as before.
        labels = ["" if label == id_ else label for label, id_ in zip(graph.item_labels, graph.items, strict=True)]
        item_features = {"title": Feature.text([*labels, *titles]), **item_features}
    return replace(
        graph,
        entities=Vocabulary([*ids[:at], *new_ids, *ids[at:]], graph.entities.kind),
        num_items=at + more,
        triples=np.concatenate([triples, new]),
        item_features=item_features,
        entity_features=_with_rows(graph.entity_features, at, more, titles),
    )


def _moved(entity: np.ndarray, num_items: int, more: int) -> np.ndarray:
    return np.where(entity >= num_items, entity + more, entity)


def _with_rows(features: Mapping[str, Feature], at: int, more: int, titles: Sequence[str]) -> dict[str, Feature]:
    """Insert rows that are missing, but for titles, at ``at``."""
    grown = {}
    for name, feature in features.items():
        if feature.is_text:
            rows = np.array(titles if name == "title" else [""] * more, dtype=object)
            known = np.array([bool(text) for text in rows], dtype=np.bool_)
        else:
            rows = np.zeros((more, feature.values.shape[1]), dtype=np.float32)
            known = np.zeros(more, dtype=np.bool_)
        grown[name] = Feature(
            np.concatenate([feature.values[:at], rows, feature.values[at:]]),
            np.concatenate([feature.present[:at], known, feature.present[at:]]),
        )
    return grown


def _zeros_after(table: Tensor, more: int) -> Tensor:
    return torch.cat([table.detach(), table.new_zeros(more, *table.shape[1:])])


def _changed(
    module: ModuleT,
    parameters: Mapping[str, nn.Parameter] | None = None,
    buffers: Mapping[str, Tensor] | None = None,
    modules: Mapping[str, nn.Module] | None = None,
    **attributes: Any,
) -> ModuleT:
    """Return a module that shares all weights with another but those named."""
    changed = copy.copy(module)
    changed.__dict__.update(
        _parameters={**module._parameters, **(parameters or {})},
        _buffers={**module._buffers, **(buffers or {})},
        _modules={**module._modules, **(modules or {})},
        **attributes,
    )
    return changed
