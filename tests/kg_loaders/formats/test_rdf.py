import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rdflib
from cases.rdf import FILES, PARSERS, put, use_parser

from kg_loaders import FormatError, KGLoaderError, load
from kg_loaders.formats import rdf

DATA = Path(os.environ.get("GRAPHREC_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_ml_1m = pytest.mark.skipif(not (DATA / "ml-1m" / "dbpedia.nt").is_file(), reason=f"no ml-1m/dbpedia.nt in {DATA}")

TTL = """\
@prefix : <http://x/> . @prefix owl: <http://www.w3.org/2002/07/owl#> .
@prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> . @prefix dc: <http://dc/> .
:Alien :director :Scott ; :genre :scifi ; rdfs:label "Alien" ; :year 1979 ; :id "1" ; dc:title "ALIEN" .
:Heat :director :Mann ; :genre :crime, :thriller ; rdfs:label "Heat"@en, "Hitze"@de ; :id "2" ; :title "HEAT" .
:Scott :directed :Alien ; rdfs:label "Ridley Scott" ; :won [ rdfs:label "Oscar" ; :in :Hollywood ] .
:Mann :directed :Heat, :Ali ; :id "9" .
:Nobody rdfs:label "Nobody" .
:director owl:inverseOf :directed .
"""
PAIRS = pd.DataFrame(
    {"user_id": ["ann", "bob", "bob", "eve", "joe"], "item_id": ["1", "1", "2", "3", "1"], "time": [1.0, 2, 3, 4, 5]}
)
MAP = {"1": "http://x/Alien", "2": "http://x/Heat"}


@pytest.fixture(params=PARSERS)
def parser(request, monkeypatch):
    use_parser(monkeypatch, request.param)


@pytest.fixture
def path(tmp_path):
    return put(tmp_path, "films.ttl", TTL)


def triples_of(graph):
    def short(id_):
        return id_.rstrip("/").replace("#", "/").rsplit("/", 1)[-1] if not id_.startswith("_:") else "_"

    return sorted(
        (short(graph.entities.id_of(h)), short(graph.relations.id_of(r)), short(graph.entities.id_of(t)))
        for h, r, t in graph.triples
    )


def texts_of(features, name, vocabulary):
    feature = features[name]
    return {id_: v for id_, v, p in zip(vocabulary, feature.values, feature.present, strict=True) if p}


def test_by_hand(parser, path):
    graph = rdf.read(path, interactions=PAIRS, links=MAP)
    assert graph.name == "films"
    assert graph.items.ids == ("1", "2", "3")
    assert (graph.num_users, graph.num_entities) == (4, 13)
    assert graph.interactions.time.tolist() == [1, 2, 3, 4, 5]
    assert triples_of(graph) == sorted(
        [
            ("1", "director", "Scott"),
            ("1", "genre", "scifi"),
            ("2", "director", "Mann"),
            ("2", "genre", "crime"),
            ("2", "genre", "thriller"),
            ("Scott", "directed", "1"),
            ("Scott", "won", "_"),
            ("_", "in", "Hollywood"),
            ("Mann", "directed", "2"),
            ("Mann", "directed", "Ali"),
            ("director", "inverseOf", "directed"),
        ]
    )
    assert "http://x/Scott" in graph.entities
    assert texts_of(graph.item_features, "label", graph.items) == {"1": "Alien", "2": "Heat | Hitze"}
    assert texts_of(graph.item_features, "year", graph.items) == {"1": "1979"}
    (prize,) = (id_ for id_ in graph.entities if id_.startswith("_:"))
    assert texts_of(graph.entity_features, "label", graph.entities) == {
        "http://x/Scott": "Ridley Scott",
        prize: "Oscar",
    }
    assert graph.item_labels == ["Alien", "Heat | Hitze", "3"]
    assert graph.dropped == {"literals of nodes without triples": 1}


def test_predicates_that_end_alike_keep_their_whole_name(path):
    names = set(rdf.read(path, interactions=PAIRS, links=MAP).item_features)
    assert names == {"label", "year", "id", "http://dc/title", "http://x/title"}


def test_label_is_the_label_of_rdfs_whatever_else_ends_so(tmp_path):
    path = put(tmp_path, "a.ttl", TTL + ':Alien <http://y/label> "other" .')
    graph = rdf.read(path, interactions=PAIRS, links=MAP)
    assert texts_of(graph.item_features, "label", graph.items)["1"] == "Alien"
    assert texts_of(graph.item_features, "http://y/label", graph.items) == {"1": "other"}


def test_only_wanted_literals_become_features(path):
    label = "http://www.w3.org/2000/01/rdf-schema#label"
    graph = rdf.read(path, interactions=PAIRS, links=MAP, literals=[label])
    assert set(graph.item_features) == {"label"}
    assert graph.dropped == {"literals of nodes without triples": 1, "literals left out": 6}
    none = rdf.read(path, interactions=PAIRS, links=MAP, literals=[])
    assert (dict(none.item_features), dict(none.entity_features)) == ({}, {})
    assert none.dropped == {"literals left out": 12}
    with pytest.raises(KGLoaderError, match=r"literals names 'http://x/yeer', .*; did you mean 'http://x/year'\?"):
        rdf.read(path, interactions=PAIRS, links=MAP, literals=["http://x/yeer"])


def test_links_by_a_predicate(path):
    graph = rdf.read(path, interactions=PAIRS, link_predicate="http://x/id", on_unknown="drop")
    assert ("1", "director", "Scott") in triples_of(graph)
    assert "id" not in {*graph.item_features, *graph.entity_features}
    assert graph.dropped == {"literals of nodes without triples": 1, "links of unknown items": 1}
    with pytest.raises(FormatError, match=r"films\.ttl: links name an item that is not there: '9'"):
        rdf.read(path, interactions=PAIRS, link_predicate="http://x/id")
    with pytest.raises(
        KGLoaderError, match=r"link_predicate 'http://x/ids' is not in the data; did you mean 'http://x/id'"
    ):
        rdf.read(path, interactions=PAIRS, link_predicate="http://x/ids")
    with pytest.raises(KGLoaderError, match="either links or link_predicate"):
        rdf.read(path, interactions=PAIRS, links=MAP, link_predicate="http://x/id")


def test_links_by_a_predicate_that_leads_to_iris(tmp_path):
    path = put(tmp_path, "a.ttl", "@prefix : <x:> . :a :same <m:1> ; :p :b . :c :same <m:2>, <m:3> . :d :same <m:1> .")
    pairs = pd.DataFrame({"user_id": ["u"] * 3 + ["v"], "item_id": ["m:1", "m:2", "m:3", "m:1"]})
    with pytest.raises(FormatError, match="'x:a' and 'x:d' are both linked to item 'm:1'"):
        rdf.read(path, interactions=pairs, link_predicate="x:same")
    graph = rdf.read(path, interactions=pairs, link_predicate="x:same", on_unknown="drop")
    assert graph.entities.ids == ("m:1", "m:2", "m:3", "x:b")
    assert graph.triples.tolist() == [[0, 0, 3]]
    assert graph.dropped == {"items linked to an entity that another item has": 2}


def test_without_links_items_are_iris(path):
    pairs = PAIRS.assign(item_id=[f"http://x/{name}" for name in ("Alien", "Alien", "Heat", "Jaws", "Alien")])
    graph = rdf.read(path, interactions=pairs)
    assert graph.items.ids == ("http://x/Alien", "http://x/Heat", "http://x/Jaws")
    assert graph.item_labels[0] == "Alien"


def test_two_items_of_one_entity(path):
    twice = MAP | {"3": "http://x/Heat"}
    with pytest.raises(FormatError, match="items '2' and '3' are both linked to entity 'http://x/Heat'"):
        rdf.read(path, interactions=PAIRS, links=twice)
    graph = rdf.read(path, interactions=PAIRS, links=twice, on_unknown="drop")
    assert texts_of(graph.item_features, "label", graph.items) == {"1": "Alien", "2": "Heat | Hitze"}


@pytest.mark.parametrize("wanted", [True, {"http://x/director": "http://x/directed"}])
def test_inverse_relations_can_be_merged(path, wanted):
    graph = rdf.read(path, interactions=PAIRS, links=MAP, merge_inverses=wanted)
    assert [triple for triple in triples_of(graph) if triple[1].startswith("direct")] == [
        ("Mann", "directed", "2"),
        ("Mann", "directed", "Ali"),
        ("Scott", "directed", "1"),
    ] or wanted is not True
    assert graph.dropped["triples merged with their inverse"] == 2
    assert graph.dropped.get("statements of owl:inverseOf", 0) == (wanted is True)
    relations = {id_.rsplit("/", 1)[-1] for id_ in graph.relations}
    assert "director" not in relations
    assert ("http://x/director" in graph.entities) == (wanted is not True)


def test_the_relation_that_stays_may_be_new(tmp_path):
    path = put(tmp_path, "a.ttl", "@prefix : <x:> . :a :q :b . :b :q :b .")
    pairs = pd.DataFrame({"user_id": ["u", "v"], "item_id": ["x:a", "x:b"]})
    graph = rdf.read(path, interactions=pairs, merge_inverses={"x:q": "x:p"})
    assert graph.relations.ids == ("x:p",)
    assert graph.triples.tolist() == [[1, 0, 0], [1, 0, 1]]
    assert graph.dropped == {}
    with pytest.raises(KGLoaderError, match="merge_inverses names 'x:z', which is no relation"):
        rdf.read(path, interactions=pairs, merge_inverses={"x:z": "x:p"})
    with pytest.raises(KGLoaderError, match="merge them in pairs"):
        rdf.read(path, interactions=pairs, merge_inverses={"x:q": "x:p", "x:p": "x:o"})


def test_row_order_does_not_matter(tmp_path):
    lines = FILES["films.nt"].splitlines()
    pairs = PAIRS.assign(item_id=["a", "a", "b", "c", "a"])
    graphs = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        path = put(tmp_path, "a.nt", "\n".join(rng.permutation(lines)))
        shuffled = pairs.iloc[rng.permutation(len(pairs))]
        graphs.append(rdf.read(path, interactions=shuffled, links={"a": "http://x/Alien"}))
    assert len({graph.fingerprint for graph in graphs}) == 1


def test_five_syntaxes_make_one_graph(tmp_path, parser):
    graphs = [
        rdf.read(put(tmp_path, name, text), interactions=PAIRS, links={"1": "http://x/Alien"})
        for name, text in FILES.items()
    ]
    assert len({graph.fingerprint for graph in graphs}) == 1
    graph = rdflib.Graph().parse(data=FILES["films.ttl"], format="turtle")
    assert rdf.read(graph, interactions=PAIRS, links={"1": "http://x/Alien"}) == graphs[0]


def test_a_folder_with_its_tables(tmp_path, path):
    put(
        tmp_path,
        "interactions.csv",
        "user_id,item_id,time,weight,split\nann,1,5,4.5,train\nann,2,6,3,test\nbob,1,1,1,valid\n",
    )
    put(tmp_path, "map.csv", 'item_id::string,URI::string\n1,http://x/Alien\n2,"http://x/Heat"\n')
    assert rdf.detect(tmp_path)
    assert rdf.detect(path)
    assert not rdf.detect(tmp_path / "map.csv")
    graph = load(tmp_path, format="rdf", cache=False)
    assert graph.interactions.split.tolist() == [0, 2, 1]
    assert graph.interactions.weight.tolist() == [4.5, 3, 1]
    assert ("1", "director", "Scott") in triples_of(graph)
    again = load(path, cache=False, interactions=tmp_path / "interactions.csv", links=str(tmp_path / "map.csv"))
    assert again == graph
    put(tmp_path, "pairs.tsv", "user_id\titem_id\nann\t1\nbob\t2\n")
    assert rdf.read(path, interactions=tmp_path / "pairs.tsv", links=MAP).interactions.time is None


def test_the_tables_of_a_folder_may_be_gzipped_or_have_tabs(tmp_path):
    rows, links = "user_id,item_id\nann,1\nbob,2\n", "item,iri\n1,http://x/Alien\n2,http://x/Heat\n"
    for name in ("plain", "packed", "tabs"):
        (tmp_path / name).mkdir()
        put(tmp_path / name, "films.ttl", TTL)
    put(tmp_path / "plain", "interactions.csv", rows)
    put(tmp_path / "plain", "map.csv", links)
    (tmp_path / "packed" / "interactions.csv.gz").write_bytes(gzip.compress(rows.encode()))
    (tmp_path / "packed" / "map.csv.gz").write_bytes(gzip.compress(links.encode()))
    put(tmp_path / "tabs", "interactions.tsv", rows.replace(",", "\t"))
    put(tmp_path / "tabs", "map.csv", links)
    expected = load(tmp_path / "plain", cache=False)
    assert ("1", "director", "Scott") in triples_of(expected)
    for name in ("packed", "tabs"):
        graph = load(tmp_path / name, cache=False)
        assert graph == expected
        assert graph.dropped == expected.dropped == {"literals of nodes without triples": 1}


def test_tables_of_a_folder_that_others_take_the_place_of_are_named(tmp_path, path):
    for name in ("interactions.csv", "interactions.tsv", "map.csv"):
        put(tmp_path, name, "user_id,item_id\nann,1\nbob,2\n")
    graph = rdf.read(tmp_path, interactions=PAIRS, links=MAP)
    unread = {reason for reason in graph.dropped if "not read" in reason}
    assert unread == {f"file not read: {name}" for name in ("interactions.csv", "interactions.tsv", "map.csv")}
    graph = rdf.read(tmp_path, interactions=tmp_path / ".." / tmp_path.name / "interactions.csv", links=MAP)
    unread = {reason for reason in graph.dropped if "not read" in reason}
    assert unread == {f"file not read: {name}" for name in ("interactions.tsv", "map.csv")}


@pytest.mark.parametrize(
    ("table", "links", "message"),
    [
        ("user,item_id\na,1\n", "i,u\n1,http://x/Alien\n", r"interactions\.csv:1: no column 'user_id'"),
        (
            "user_id,item_id,split\na,1,train\na,2,dev\n",
            "i,u\n1,x:a\n",
            r"interactions\.csv:3: split must be one of .*'dev'",
        ),
        ("user_id,item_id,time\na,1,now\n", "i,u\n1,x:a\n", r"interactions\.csv:2: column 'time' holds 'now'"),
        (
            "user_id,item_id,timestamp,rating\na,1,5,3\n",
            "i,u\n1,http://x/Alien\n",
            r"interactions\.csv: interactions have no 'timestamp', only .*; did you mean 'time'\?",
        ),
        ("user_id,item_id\na,1\n", "i,u,v\n1,x:a,x:b\n", r"map\.csv:1: 3 columns, expected the item's id and its IRI"),
        ("user_id,item_id\na,1\n", "i,u\n1,x:a\n1,x:b\n", r"map\.csv:3: i '1' has a second row"),
        ("user_id,item_id\na,1\n", "i,u\n7,x:a\n", "links name an item that is not there: '7'"),
        ("user_id,item_id\na,1\n", "i,u\n1,x:nowhere\n", "no item occurs in any of the"),
        (None, None, "RDF holds no interactions: give interactions="),
    ],
)
def test_parts_that_do_not_fit(tmp_path, table, links, message):
    put(tmp_path, "films.ttl", TTL)
    if table is not None:
        put(tmp_path, "interactions.csv", table)
        put(tmp_path, "map.csv", links)
    with pytest.raises(FormatError, match=message):
        rdf.read(tmp_path)


def test_frames_of_other_columns(path):
    with pytest.raises(FormatError, match="interactions must have a column 'item_id'"):
        rdf.read(path, interactions=PAIRS.rename(columns={"item_id": "item"}))
    with pytest.raises(FormatError, match=r"interactions have no 'timestamp', only .*; did you mean 'time'\?"):
        rdf.read(path, interactions=PAIRS.rename(columns={"time": "timestamp"}), links=MAP)


@needs_ml_1m
def test_movielens_with_dbpedia(parser):
    pairs = pd.DataFrame({"user_id": ["1", "2", "2", "3"], "item_id": ["1", "2", "21", "3"]})
    folder = DATA / "ml-1m"
    graph = rdf.read(folder / "dbpedia.nt", interactions=pairs, links=folder / "map.csv", on_unknown="drop")
    jumanji = graph.triples[graph.triples[:, 0] == graph.items.index_of("2")]
    assert "http://dbpedia.org/resource/Joe_Johnston" in graph.entities.ids_of(jumanji[:, 2])
    assert graph.num_triples + graph.dropped.get("repeated triples", 0) == 34_941
    assert graph.dropped["items without a link in the map"] == 630


@needs_ml_1m
def test_of_two_hundred_thousand_triples_none_is_lost(tmp_path, monkeypatch):
    use_parser(monkeypatch, "pyoxigraph")
    lines = (DATA / "ml-1m" / "dbpedia.nt").read_text().splitlines()
    copies = [line.replace("> <", f"_{n}> <", 1) if n else line for n in range(6) for line in lines][:200_000]
    path = put(tmp_path, "big.nt", "\n".join(copies))
    data = rdf.read_triples(path)
    assert len(data.triples) + data.dropped.get("repeated triples", 0) == 200_000


def test_rdflib_is_loaded_by_nobody_else():
    code = (
        "import sys, kg_loaders.formats.rdf as _, kg_loaders; "
        "print(sorted({'rdflib', 'pyoxigraph', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
