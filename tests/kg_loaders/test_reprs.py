import numpy as np

from kg_loaders import Feature, Interactions


def test_large_parts_of_a_graph_are_shown_in_a_line():
    pairs = Interactions(np.arange(1000), np.arange(1000), time=np.arange(1000.0))
    assert repr(pairs) == "Interactions(1000 pairs: user, item, time)"
    assert repr(Feature.text(["Heat", "", "Jaws"])) == "Feature(3 texts, 2 known)"
    assert repr(Feature.vectors(np.zeros((4, 9)))) == "Feature(4 vectors of width 9, 4 known)"
