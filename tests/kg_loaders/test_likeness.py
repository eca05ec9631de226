import numpy as np
import pytest

from kg_loaders import KGLoaderError
from kg_loaders.likeness import ALMOST, by_label, by_vectors, normalized


@pytest.mark.parametrize(
    ("label", "plain"),
    [
        ("The Matrix (1999)", "matrix 1999"),
        ("Matrix, The (1999)", "matrix 1999"),
        ("Matrix, The 1999", "matrix 1999"),
        ("Amélie", "amelie"),
        ("Don't Look Now", "dont look now"),
        ("Don\u2019t Look Now", "dont look now"),
        ("\u2018Til There Was You", "til there was you"),
        ("Hawai\u02bci", "hawaii"),
        ("Tom & Jerry", "tom and jerry"),
        ("The", "the"),
        ("...", ""),
        ("Ёлки", "елки"),
        ("Rock\u00b4n\u00b4Roll", "rock n roll"),
    ],
)
def test_labels_are_normalised(label, plain):
    assert normalized(label) == plain


def test_equal_labels_match_first_and_similar_ones_only_among_the_rest():
    ours = ["Alien (1979)", "Aliens (1986)", "Terminator (1984)"]
    theirs = ["Aliens 1986", "Alien, The 1979", "Terminatr 1984"]
    found = by_label(ours, theirs, 0.9, {})
    pairs = dict(zip(found.source.tolist(), zip(found.target.tolist(), found.reason, strict=True), strict=True))
    assert pairs == {0: (1, "equal label"), 1: (0, "equal label"), 2: (2, "similar label")}
    assert found.score[:2].tolist() == [ALMOST, 1]  # "Alien, The" has an article more
    assert 0.9 <= found.score[2] < 1
    assert len(by_label(ours, theirs, None, {})) == 2


@pytest.mark.parametrize(("ours", "theirs"), [("バス", "ハス"), ("कि", "क"), ("ที่", "ที")])
def test_marks_that_make_another_letter_are_kept(ours, theirs):
    assert len(by_label([ours], [theirs], None, {})) == 0
    assert by_label([ours], [ours], None, {}).score.tolist() == [1]


@pytest.mark.parametrize(("ours", "theirs"), [("Die Hard", "Hard"), ("C++", "C#"), ("The Matrix", "Matrix")])
def test_labels_equal_but_for_an_article_or_a_symbol_are_to_be_looked_at(ours, theirs):
    found = by_label([ours], [theirs], None, {})
    assert (found.score.tolist(), found.reason) == ([ALMOST], ["equal label"])
    assert by_label([ours, "Matrix, The (1999)"], [ours, "The Matrix: 1999"], None, {}).score.tolist() == [1, 1]


@pytest.mark.parametrize(
    "theirs", ["Rocky III (1982)", "Rocky II (1980)", "Rocky (1979)"], ids=["sequel", "year", "first part"]
)
def test_labels_that_differ_in_a_number_are_not_similar(theirs):
    assert len(by_label(["Rocky II (1979)"], [theirs], 0.5, {})) == 0


def test_two_equally_similar_labels_are_ambiguous():
    found = by_label(["abcdefghij"], ["abcdefghix", "abcdefghiy"], 0.8, {})
    assert found.ambiguous.tolist() == [True, True]


def test_a_label_is_similar_only_to_its_own_best():
    found = by_label(["abcdefghij", "abcdefghxx"], ["abcdefghix"], 0.8, {})
    assert (found.source.tolist(), found.ambiguous.tolist()) in (([0, 1], [True, True]), ([0], [False]), ([1], [False]))
    assert (found.score >= 0.8).all()


def test_missing_labels_match_nothing_and_are_counted():
    counts = {}
    assert len(by_label(["", "a"], ["", "b"], None, counts)) == 0
    assert counts == {"source nodes without a label": 1, "target nodes without a label": 1}


def test_similar_labels_without_the_extra_say_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz", None)
    with pytest.raises(KGLoaderError, match=r"need the extra 'link' \(pip install 'graphrec\[link\]'\)"):
        by_label(["abc"], ["abd"], 0.5, {})


def test_vectors_match_mutual_nearest_neighbours():
    ours = np.array([[1, 0], [0.9, 0.1], [0, 1], [0, 0]], dtype=np.float32)
    theirs = np.array([[2, 0], [0, 0], [0.1, 0.9]], dtype=np.float32)
    found = by_vectors(ours, theirs, 0.5)
    assert list(zip(found.source.tolist(), found.target.tolist(), strict=True)) == [(0, 0), (2, 2)]
    assert found.score[0] == pytest.approx(1)
    assert len(by_vectors(ours, theirs, 0.999)) == 1


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_vectors_equal_a_naive_loop_whatever_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr("kg_loaders.likeness.VECTOR_CHUNK", chunk)
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(13, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    cosine = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in theirs] for a in ours])
    wanted = [
        (i, j)
        for i in range(13)
        for j in range(9)
        if cosine[i, j] >= 0.3 and cosine[i].argmax() == j and cosine[:, j].argmax() == i
    ]
    found = by_vectors(ours, theirs, 0.3)
    assert wanted
    assert list(zip(found.source.tolist(), found.target.tolist(), strict=True)) == wanted
