"""What each modality of an item, such as its text or picture, does to a score."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from graphrec.histories import Histories
from graphrec.models.base import Recommender
from graphrec.models.inductive_kgat import InductiveKGAT


@dataclass(frozen=True)
class ModalityEffect:
    """How far the score of an item falls when the item lacks a modality.

    Args:
        name: The modality: an item feature, or "text" for all text of the item.
        effect: The difference; below 0 where the modality speaks against the item.
    """

    name: str
    effect: float

    def __str__(self) -> str:
        """Say it.

        Example:
            >>> str(ModalityEffect("image", 0.314))
            'its image adds 0.31 to the score'
        """
        verb = "adds" if self.effect >= 0 else "takes"
        place = "to" if self.effect >= 0 else "from"
        return f"its {self.name} {verb} {abs(self.effect):.2f} {place} the score"


def effects_on(model: Recommender, histories: Histories, item: int) -> tuple[ModalityEffect, ...]:
    """Return the effect of each modality that an item has, largest first; none where the model fuses none.

    Args:
        model: Any model.
        histories: One row: the user's past.
        item: Index of the item.
    """
    if not isinstance(model, InductiveKGAT):
        return ()
    with torch.no_grad():
        effects = model.modality_effects(histories, item)
    return tuple(ModalityEffect(name, effects[name]) for name in sorted(effects, key=lambda name: -abs(effects[name])))
