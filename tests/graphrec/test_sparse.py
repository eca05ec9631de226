import numpy as np
import pytest

from graphrec.histories import Histories
from graphrec.sparse import cooccurrence_blocks, history_matrix


def test_history_matrix_is_zero_or_one():
    histories = Histories.from_lists([[2, 0, 2], [], [1]])
    assert history_matrix(histories, num_items=4).toarray().tolist() == [[1, 0, 1, 0], [0] * 4, [0, 1, 0, 0]]


@pytest.mark.parametrize("block_rows", [1, 3, 7, 100])
def test_blocks_are_the_rows_of_the_gram_matrix(block_rows):
    rng = np.random.default_rng(0)
    taken = rng.random((11, 7)) < 0.4
    histories = Histories.from_lists([np.flatnonzero(row).tolist() for row in taken])
    expected = taken.astype(float).T @ taken.astype(float)
    seen = []
    for rows, block in cooccurrence_blocks(histories, 7, block_rows):
        assert np.array_equal(block.toarray(), expected[rows])
        seen += range(rows.start, rows.stop)
    assert seen == list(range(7))
