import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kg_loaders import FormatError, Interactions, RecGraph, Vocabulary
from kg_loaders.formats import pair_text
from kg_loaders.registry import detect

TRAIN, TEST, UNCUT = "0\t7\t1\n2\t3\t1\n0\t3\t1\n", "2\t7\t1\n", "2\t7\t1\n0\t9\t1\n"


def put(folder, train=TRAIN, test=TEST, uncut=UNCUT):
    for name, text in (("train.txt", train), ("test.txt", test), ("test_original.txt", uncut)):
        (folder / name).write_text(text)
    return folder


def test_a_hand_written_folder(tmp_path):
    graph = pair_text.read(put(tmp_path))
    assert graph == RecGraph(
        users=Vocabulary(["0", "2"], "user"),
        entities=Vocabulary(["3", "7"], "entity"),
        num_items=2,
        interactions=Interactions(
            np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1]), split=np.array([0, 0, 0, 2], dtype=np.int8)
        ),
    )
    assert dict(graph.dropped) == {"rows of test_original.txt that test.txt leaves out": 1}
    assert graph.name == tmp_path.name


def test_the_format_is_told_by_its_three_names(tmp_path):
    assert detect(put(tmp_path)) == "pair_text"
    (tmp_path / "test_original.txt").unlink()
    assert detect(tmp_path) == "kgat_text"


def test_the_order_of_rows_does_not_matter(tmp_path):
    expected = pair_text.read(put(tmp_path))
    assert pair_text.read(put(tmp_path, "".join(reversed(TRAIN.splitlines(keepends=True))))) == expected


def test_a_test_pair_that_stands_in_train_is_counted_and_stays_train(tmp_path):
    graph = pair_text.read(put(tmp_path, test=TEST + "0\t3\t1\n"))
    assert graph.dropped["test pairs also in train"] == 1
    assert len(graph.part("test")) == 1


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("0\t7\t1\n1\t2\t0\n", 2, "the third column must be 1, got 0"),
        ("0\t7\n", 1, "2"),
        ("0\tx\t1\n", 1, "x"),
    ],
)
def test_malformed_rows_are_refused_with_their_line(tmp_path, text, line, reason):
    with pytest.raises(FormatError, match=reason) as caught:
        pair_text.read(put(tmp_path, train=text))
    assert (caught.value.path.name, caught.value.line) == ("train.txt", line)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="01 9\t\n-.x", max_size=20))
def test_only_format_errors_come_out_of_near_misses(tmp_path_factory, text):
    graph = None
    with contextlib.suppress(FormatError):
        graph = pair_text.read(put(tmp_path_factory.mktemp("pairs"), train=text))
    assert graph is None or graph.num_interactions > 0
