import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graphrec.errors import ArgumentError
from graphrec.layers.ops.sequences import GROWTH, STEP, SequenceLayout, as_layout


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), max_size=12))
def test_every_entry_has_its_slot_and_rows_stay_whole(lengths):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    layout = SequenceLayout.from_offsets(offsets)
    entries = torch.arange(sum(lengths))
    assert torch.equal(layout.entry[layout.slot], entries)
    rows = []
    for bucket in layout.buckets:
        block = layout.entry[bucket.slots].view(bucket.num_rows, bucket.length)
        sizes = layout.lengths(bucket)
        assert sizes.max() == bucket.length
        assert sizes.min() >= bucket.length / GROWTH - STEP
        assert bucket.ragged == bool((sizes < bucket.length).any())
        for row, entry, size in zip(layout.order[bucket.rows].tolist(), block, sizes.tolist(), strict=True):
            rows.append(row)
            assert entry[:size].tolist() == list(range(offsets[row], offsets[row + 1]))
            assert (entry[size:] == offsets[row + 1] - 1).all()  # filled up with its own last entry
    assert sorted(rows) == [row for row, length in enumerate(lengths) if length]
    assert [lengths[row] for row in rows] == sorted((n for n in lengths if n), reverse=True)
    assert sum(layout.sizes) == layout.num_slots == len(layout.entry)


def test_there_and_back_is_exact_also_for_gradients():
    layout = SequenceLayout.from_offsets(torch.tensor([0, 2, 2, 9, 10]))
    x = torch.randn(10, 2, dtype=torch.float64, requires_grad=True)
    assert torch.equal(layout.empty(layout.fill(x)), x)
    # Squares, so that the gradients of what fills up would show.
    assert torch.autograd.gradcheck(lambda v: layout.empty(layout.fill(v).square()), x)
    slots = torch.randn(layout.num_slots, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layout.empty, slots)


def test_a_layout_is_taken_as_it_is_if_it_fits():
    layout = SequenceLayout.from_offsets(torch.tensor([0, 2, 5], dtype=torch.int32))
    assert as_layout(layout, 5) is layout
    with pytest.raises(ArgumentError, match="the sequence layout is for 5 entries, x has 6"):
        as_layout(layout, 6)
    with pytest.raises(ArgumentError, match=r"offsets must rise from 0 to 6, got 0\.\.5"):
        as_layout(torch.tensor([0, 2, 5]), 6)
