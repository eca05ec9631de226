import random

import pytest
import rdflib
from cases.rdf import FILES, NT, TTL, put

from kg_loaders import FormatError
from kg_loaders.rdftriples import read_triples


def as_sets(data):
    return (
        set(data.triples.astype(str).itertuples(index=False, name=None)),
        set(data.literals.itertuples(index=False, name=None)),
    )


def blank_names(data):
    return {name for name in data.triples.head_id.cat.categories if name.startswith("_:")}


def test_frames_by_hand(tmp_path):
    data = read_triples(put(tmp_path, "a.nt", '<x:a> <x:p> <x:b> .\n<x:a> <x:q> "v"@EN .\n<x:a> <x:p> <x:b> .\n' * 2))
    assert data.triples.astype(str).to_numpy().tolist() == [["x:a", "x:p", "x:b"]]
    assert data.triples.head_id.cat.categories.tolist() == ["x:a", "x:b"]
    assert data.literals.to_numpy().tolist() == [["x:a", "x:q", "v", "en"]]
    assert data.dropped == {"repeated triples": 3, "repeated literals": 1}
    assert data.codes().tolist() == [[0, 0, 1]]


def test_the_same_value_in_two_languages_is_no_repetition(tmp_path):
    data = read_triples(put(tmp_path, "a.nt", '<x:a> <x:q> "v"@en .\n<x:a> <x:q> "v"@de .\n<x:a> <x:q> "v" .'))
    assert len(data.literals) == 3
    assert len(data.triples) == 0


def test_a_folder_is_read_whole_and_its_blank_nodes_stay_apart(tmp_path):
    put(tmp_path, "1.nt", "<x:a> <x:p> _:b .\n_:b <x:q> <x:one> .")
    put(tmp_path, "2.ttl.gz", "<x:a> <x:p> _:b . _:b <x:q> <x:two> .")
    put(tmp_path, "3.nt", "<x:a> <x:p> _:b .\n_:b <x:q> <x:one> .")
    put(tmp_path, "notes.txt", "no RDF")
    data = read_triples(tmp_path)
    assert len(blank_names(data)) == 3  # the first and the third say the same of two nodes
    assert len(data.triples) == 6


def test_blank_nodes_have_names_that_follow_from_what_is_said(tmp_path):
    chain = ["_:a <x:p> _:b .", "_:b <x:p> _:c .", "_:c <x:p> _:d .", '_:d <x:q> "end" .', "<x:s> <x:p> _:a ."]
    fork = ['_:e <x:q> "1" .', '_:f <x:q> "2" .', "_:g <x:p> _:e .", "_:h <x:p> _:f .", "_:i <x:q> <x:s> ."]
    wanted = as_sets(read_triples(put(tmp_path, "a.nt", "\n".join(chain + fork))))
    assert len(blank_names(read_triples(tmp_path / "a.nt"))) == 9
    for seed in range(10):
        lines = chain + fork
        random.Random(seed).shuffle(lines)
        text = "\n".join(lines)
        for old, new in zip("abcdefghi", random.Random(seed).sample(range(100, 200), 9), strict=True):
            text = text.replace(f"_:{old} ", f"_:n{new} ")
        assert as_sets(read_triples(put(tmp_path, "b.nt", text))) == wanted


def test_a_name_changes_with_what_is_said_and_with_nothing_else(tmp_path):
    first = blank_names(read_triples(put(tmp_path, "a.nt", "_:a <x:p> <x:b> .")))
    more = blank_names(read_triples(put(tmp_path, "a.nt", "_:a <x:p> <x:b> .\n<x:b> <x:p> <x:c> .")))
    other = blank_names(read_triples(put(tmp_path, "a.nt", "_:a <x:p> <x:c> .")))
    turned = blank_names(read_triples(put(tmp_path, "a.nt", "<x:b> <x:p> _:a .")))
    assert first == more
    assert len(first | other | turned) == 3


def test_blank_nodes_that_look_alike_stay_two(tmp_path):
    data = read_triples(put(tmp_path, "a.ttl", "<x:a> <x:p> [ <x:q> 1 ], [ <x:q> 1 ], [ <x:q> 2 ] ."))
    names = blank_names(data)
    assert len(names) == 3
    assert sum(name.endswith("-1") for name in names) == 1


def test_a_long_list_is_named_in_no_time(tmp_path):
    data = read_triples(put(tmp_path, "a.ttl", "<x:a> <x:p> ( " + "1 " * 5000 + ") ."))
    assert len(blank_names(data)) == 5000


@pytest.mark.parametrize("kind", [rdflib.Graph, rdflib.Dataset])
def test_a_graph_of_rdflib_gives_the_same(tmp_path, kind):
    graph = rdflib.Graph().parse(data=TTL, format="turtle")
    if kind is rdflib.Dataset:
        whole, graph = graph, kind()
        for number, triple in enumerate(whole):
            graph.graph(f"http://x/{number % 3}").add(triple)
    assert as_sets(read_triples(graph)) == as_sets(read_triples(put(tmp_path, "a.nt", FILES["films.nt"])))


def test_nothing_to_read(tmp_path):
    with pytest.raises(FormatError, match="no RDF file in the folder"):
        read_triples(tmp_path)
    with pytest.raises(FormatError, match="no statement"):
        read_triples(put(tmp_path, "a.nt", "# nothing"))
    with pytest.raises(FormatError, match="No such file"):
        read_triples(str(tmp_path / "b.nt"))
    with pytest.raises(FormatError, match="max_bytes = 10"):
        read_triples(put(tmp_path, "a.nt", NT), max_bytes=10)
