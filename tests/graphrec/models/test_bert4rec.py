from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from cases.model_case import GradientCase

from graphrec.errors import ArgumentError
from graphrec.histories import Histories
from graphrec.models import BERT4Rec


class TestBERT4Rec(GradientCase):
    model_class = BERT4Rec
    options: ClassVar = {"dim": 16, "dropout": 0.0, "max_length": 20, "num_negatives": 40, "mask_share": 0.4}
    epochs = 40


def make(**options):
    torch.manual_seed(0)
    model = BERT4Rec(7, **{"dim": 8, "dropout": 0.0, "max_length": 4, "num_negatives": 100, **options})
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.5)
    return model.eval()


def with_gaps(model, items, gaps):
    """The states of the gaps in one history, by the layers themselves."""
    x = model.item[items].clone()
    x[gaps] = model.mask
    states = model.encoder(x * 8**0.5, torch.tensor([0, len(items)]))[gaps]
    return model.norm(F.gelu(model.lin(states)))


def test_an_answer_fills_a_gap_behind_the_end():
    model = make()
    scores = model.score(Histories.from_lists([[6, 5, 1, 2, 3], [], [0]]))
    for row, items in enumerate(([1, 2, 3, 0], [0], [0, 0])):  # the last is the gap; three items leave room for it
        state = with_gaps(model, items, [len(items) - 1])
        torch.testing.assert_close(scores[row], (state @ model.item.t() + model.item_bias)[0])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_training_asks_for_what_was_masked(share):
    model = make(mask_share=share)
    losses = []
    for items in ([2, 3, 4, 5], [6]):  # the most recent four of the first
        gaps = list(range(len(items))) if share else [len(items) - 1]
        logits = with_gaps(model, items, gaps) @ model.item.t() + model.item_bias
        losses.append(F.cross_entropy(logits, torch.tensor(items)[gaps], reduction="none"))
    batch = Histories.from_lists([[1, 2, 3, 4, 5], [], [6]], [0, 1, 2])
    torch.testing.assert_close(model.loss(batch, torch.Generator()), torch.cat(losses).mean())


def test_masks_follow_the_generator():
    model, batch = make(mask_share=0.5), Histories.from_lists([[1, 2, 3, 4], [6, 5, 0, 1]])
    first, again, other = (model.loss(batch, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 1}, "max_length must be >= 2, got 1"),
        ({"mask_share": 1.5}, "mask_share must be within"),
        ({"heads": 3}, "heads must divide channels"),
    ],
)
def test_values_outside_their_range_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        BERT4Rec(5, **{"dim": 8, **options})
