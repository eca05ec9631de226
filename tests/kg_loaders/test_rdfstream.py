import json
import logging
import os
import socket
import threading
import warnings
from pathlib import Path
from random import Random

import pytest
import rdflib
from cases.rdf import FILES, JSONLD, NT, PARSERS, TTL, XML, put, use_parser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kg_loaders import FormatError, rdfsource
from kg_loaders.rdfstream import read_rows
from kg_loaders.rdftriples import read_triples

DATA = Path(os.environ.get("GRAPHREC_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(params=PARSERS)
def parser(request, monkeypatch):
    use_parser(monkeypatch, request.param)
    return request.param


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("somebody asked for the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


def as_sets(data):
    return (
        sorted(data.triples.astype(str).itertuples(index=False, name=None)),
        sorted(data.literals.itertuples(index=False, name=None)),
    )


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", FILES)
def test_five_syntaxes_say_the_same(tmp_path, parser, name, suffix):
    data = read_triples(put(tmp_path, name + suffix, FILES[name]))
    triples, literals = as_sets(data)
    (prize,) = {tail for _, relation, tail in triples if relation == "http://x/won"}
    assert prize.startswith("_:")
    assert triples == sorted(
        [
            ("http://x/Alien", "http://x/director", "http://x/Scott"),
            ("http://x/Alien", "http://x/won", prize),
            ("http://x/Scott", "http://x/made", "http://x/Alien"),
            (prize, "http://x/given-by", "http://x/Academy"),
        ]
    )
    assert literals == sorted(
        [
            ("http://x/Alien", "http://x/title", "Alien", "en"),
            ("http://x/Alien", "http://x/title", 'Alien – "le huitième passager"', "fr"),
            ("http://x/Alien", "http://x/year", "1979", ""),
            (prize, "http://x/title", "Oscar", ""),
        ]
    )
    assert data.dropped == {"repeated triples": 1}
    assert prize == "_:75657bb9dd475354"  # the name follows from the statements, whatever the syntax and the parser


CORNERS = {
    "numbers.ttl": """@prefix : <http://x/> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
        :a :p 01, +5, -0, 1.50, +.5, 0.00000001, -0.0, 1e3, 1.5E0, true, "bad"^^xsd:integer, "1E999999999"^^xsd:decimal,
        "x"@en-GB, "2020-01-01"^^xsd:date, "nan"^^xsd:double, "2020-13-45"^^xsd:date, \"\"\"two
lines\"\"\" .""",
    "nested.ttl": """@base <http://base/dir/> . @prefix : <http://x/> . PREFIX y: <http://y#>
        <rel> :q <#frag>, <../up>, y:z, [ :r :b ; :s ( 1 :c [] ) ] , _:lab . _:lab a :T ; :p "é\\u00e9\\\\u00e9" .""",
    "relative.ttl": "<alien> <made-by> <#scott> .",
    "tight.nt": '<http://a><http://p>"01"^^<http://www.w3.org/2001/XMLSchema#integer>.\r\n\r\n# x\r\n_:a <http://p>_:a.',
    "bom.nt": "\ufeff<http://a> <http://p> <http://b> .",
    "bom.ttl": "\ufeff<http://a> <http://p> <http://b> .",
    "iri.nt": "<http://a/\\u00e9> <http://p> <http://b/é?x=1&y=(2)> .",
    "list.rdf": """<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="http://x/">
        <x:Film rdf:about="rel"><x:r rdf:parseType="Collection"><x:T rdf:about="http://z"/><x:T/></x:r>
        <x:s rdf:parseType="Resource"><x:t>7 &lt; 8</x:t></x:s><x:u rdf:nodeID="n"/></x:Film>
        <rdf:Description rdf:nodeID="n" x:p="v"/></rdf:RDF>""",
    "context.jsonld": """{"@context":{"ex":"http://ex/","n":"ex:n","k":{"@id":"ex:k","@type":"@id"},
        "l":{"@id":"ex:l","@container":"@list"}},"@id":"rel","n":[1,1.5,1e30,true,"s",{"@value":"x","@language":"en-GB"}],
        "k":["ex:a","_:b"],"l":[1,2],"@reverse":{"ex:r":{"@id":"ex:z"}}, "unknown": 5}""",
}


@pytest.mark.parametrize("name", CORNERS)
def test_both_parsers_agree_on_corners(tmp_path, monkeypatch, name):
    path = put(tmp_path, name, CORNERS[name])
    use_parser(monkeypatch, "pyoxigraph")
    fast = as_sets(read_triples(path))
    use_parser(monkeypatch, "rdflib")
    slow = as_sets(read_triples(path))
    assert fast == slow
    assert fast[0] or fast[1]


def test_numbers_have_one_form(tmp_path, parser):
    literals = as_sets(read_triples(put(tmp_path, "a.ttl", CORNERS["numbers.ttl"])))[1]
    assert {value for _, _, value, _ in literals} == {
        *("1", "5", "0", "1.50", "0.5", "0.00000001", "0.0", "1000", "1.5", "true", "bad", "1E999999999"),
        *("x", "2020-01-01", "nan", "2020-13-45", "two\nlines"),
    }


nodes = st.sampled_from(["<http://x/a>", "<http://x/b>", "<http://x/\\u00fc>", "_:b0", "_:b1", "_:b2"])
predicates = st.sampled_from(["<http://x/p>", "<http://x/q>"])
plain_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
literals = st.builds(
    lambda text, mark: json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F") + mark,
    plain_text.map(lambda text: "".join(c for c in text if c.isprintable())),
    st.sampled_from(["", "@en", "@de-AT", "^^<http://www.w3.org/2001/XMLSchema#integer>", "^^<http://x/type>"]),
)
statements = st.builds("{} {} {} .".format, nodes, predicates, nodes | literals)


@given(st.lists(statements, min_size=1, max_size=12), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parsers_agree_and_row_order_does_not_matter(tmp_path, monkeypatch, lines, random):
    path = put(tmp_path, "a.nt", "\n".join(lines))
    shuffled = put(tmp_path, "b.ttl", "\n".join(random.sample(lines, len(lines))))
    with monkeypatch.context() as patch:
        use_parser(patch, "pyoxigraph")
        fast, again = read_triples(path), read_triples(shuffled)
        use_parser(patch, "rdflib")
        slow = read_triples(path)
    assert as_sets(fast) == as_sets(slow)
    assert fast.dropped == slow.dropped == again.dropped
    if not any("-" in name for name in fast.triples.head_id.cat.categories):  # none that look alike
        assert as_sets(fast) == as_sets(again)


@pytest.mark.skipif(not (DATA / "ml-100k" / "dbpedia.nt").is_file(), reason=f"no ml-100k/dbpedia.nt in {DATA}")
def test_both_parsers_agree_on_real_data(monkeypatch):
    found = []
    for name in PARSERS:
        use_parser(monkeypatch, name)
        found.append(read_triples(DATA / "ml-100k" / "dbpedia.nt"))
    assert len(found[0].triples) + found[0].dropped.get("repeated triples", 0) == 36_805
    assert as_sets(found[0]) == as_sets(found[1])


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.ttl", TTL.replace(":Scott :made", ":Scott , :made"), 6),
        ("a.ttl", TTL + ":a :b :c\n:d :e :f .", 8),
        ("a.ttl", TTL + "\n\nx:a :b :c .", 9),
        ("a.ttl", TTL + '\n:a :b "no end .\n', 8),
        ("a.ttl.gz", TTL + "\n\n\n:a :b <http://no end> .", 10),
        ("a.ttl", TTL.encode() + b"\n:a :b '\xff' .", 8),
        ("a.nt", NT + "<http://a> <http://b> .\n", 12),
        ("a.nt", NT + "<http://a> <http://b> <http://c> <http://d> .\n", 12),
        ("a.nt", NT + '<http://a> "b" <http://c> .\n', 12),
        ("a.nt", NT + "<a> <http://b> <http://c> .\n", 12),
        ("a.nt", NT + "<http://a b> <http://b> <http://c> .\n", 12),
        ("a.nt", NT + "<http://a/{b}> <http://b> <http://c> .\n", 12),
        ("a.nt.gz", NT + "<http://a> <http://b> <http://c>", 12),
        ("a.nt", NT.encode() + b"<http://a> <http://b> '\xff' .\n", 12),
        ("a.nq", NT + '<http://a> <http://b> <http://c> "d" .\n', 12),
        ("a.rdf", XML.replace("</x:won>", "</x:one>"), 11),
        ("a.rdf", XML.replace("</rdf:RDF>", "&nope;</rdf:RDF>"), 14),
        ("a.rdf", XML.replace('rdf:about="http://x/Scott"', 'rdf:about="http://x/Scott" rdf:ID="a b"'), 13),
        ("a.jsonld", JSONLD.replace('"year": 1979,', '"year": 1979'), 5),
    ],
)
def test_malformed_files_are_refused_with_the_line(tmp_path, parser, name, text, line):
    with pytest.raises(FormatError, match=r"malformed RDF|not JSON|not UTF-8") as caught:
        read_rows(put(tmp_path, name, text))
    assert caught.value.line == line
    assert caught.value.path == tmp_path / name


def test_errors_are_one_short_line(tmp_path, parser):
    for name, text in (("a.ttl", "x" * 10**6), ("a.nt", "<http://" + "x y" * 10**5 + "> <http://b> <http://c> .")):
        with pytest.raises(FormatError) as caught:
            read_rows(put(tmp_path, name, text))
        assert len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)


BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "{big}"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;">
<!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;"><!ENTITY e "&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;">]>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="http://x/">
<rdf:Description rdf:about="http://a"><x:p>&e;</x:p></rdf:Description></rdf:RDF>""".replace("{big}", "lol" * 1000)
EXTERNAL = BOMB.split("<!DOCTYPE")[0] + (
    '<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + BOMB[BOMB.index("\n<rdf:RDF") :]
)
DTD = EXTERNAL.replace('[<!ENTITY e SYSTEM "file:///etc/passwd">]', 'SYSTEM "http://localhost/x.dtd"')
LATE = XML.replace("</rdf:RDF>", BOMB[BOMB.index("<!DOCTYPE") : BOMB.index("\n<rdf:RDF")] + "&e;</rdf:RDF>")
FAR = XML.replace(
    "<rdf:RDF", "<!-- " + "x" * 2**20 + " -->" + DTD[DTD.index("<!DOCTYPE") : DTD.index("\n<rdf")] + "<rdf:RDF"
)


@pytest.mark.parametrize("text", [BOMB, EXTERNAL, DTD, LATE, FAR], ids=["laughs", "external", "dtd", "late", "far"])
@pytest.mark.parametrize("name", ["a.rdf", "a.owl.gz"])
def test_entity_bombs_are_refused(tmp_path, parser, no_network, name, text):
    with pytest.raises(FormatError, match="document type and entity declarations are refused"):
        read_rows(put(tmp_path, name, text))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp037", "utf-7"])
def test_entity_bombs_do_not_hide_in_encodings(tmp_path, parser, encoding):
    declaration = f'<?xml version="1.0" encoding="{encoding}"?>'
    text = BOMB.replace('<?xml version="1.0"?>', declaration)
    padded = declaration.replace(" encoding", " " * 5000 + "encoding").encode() + BOMB[21:].encode(encoding)
    for data in (text.encode(encoding), declaration.encode() + BOMB[21:].encode(encoding), padded):
        with pytest.raises(FormatError, match=r"encoding must be|NUL byte|malformed|no end of the XML|are refused"):
            read_rows(put(tmp_path, "a.rdf", data))


@pytest.mark.parametrize(
    "context",
    [
        '"http://localhost:9/context.jsonld"',
        '["http://localhost:9/c", {"x": "http://x/"}]',
        '{"@import": "http://localhost:9/c"}',
        '{"made": {"@id": "http://x/made", "@context": "context.jsonld"}}',
        '"file:///etc/passwd"',
    ],
)
def test_remote_contexts_are_refused(tmp_path, parser, no_network, context):
    text = (
        '[{"@id": "http://x/y"}, {"@id": "http://x/a", "http://x/p": {"@context": '
        + context
        + ', "@id": "http://x/b"}}]'
    )
    with pytest.raises(FormatError, match="lies elsewhere and is not fetched"):
        read_rows(put(tmp_path, "a.jsonld", text))


@pytest.mark.parametrize("name", FILES)
def test_nothing_asks_for_the_network(tmp_path, parser, no_network, name):
    assert len(read_rows(put(tmp_path, name, FILES[name])).heads) == 5


@pytest.mark.parametrize("name", [f"{name}.gz" for name in FILES])
def test_truncated_gzip_is_refused(tmp_path, parser, name):
    path = put(tmp_path, name, FILES[name.removesuffix(".gz")])
    whole = path.read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(
            FormatError, match="truncated or damaged gzip" if size else "no statement|not JSON|no element"
        ):
            read_triples(path)
    path.write_bytes(whole[:-8] + b"damaged!")
    with pytest.raises(FormatError, match="truncated or damaged gzip"):
        read_triples(path)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(FormatError, match="truncated or damaged gzip"):
        read_triples(path)


@pytest.mark.parametrize("name", FILES)
def test_decompression_has_a_limit(tmp_path, parser, name):
    path = put(tmp_path, f"{name}.gz", FILES[name] + " \n" * 2**20)
    assert path.stat().st_size < 10_000
    with pytest.raises(FormatError, match="more than max_bytes = 100000 bytes"):
        read_rows(path, max_bytes=100_000)
    assert read_rows(path, max_bytes=3 * 2**20).heads


@pytest.mark.parametrize("name", ["a.nt", "a.nq.gz", "a.ttl"])
def test_endless_lines_are_refused(tmp_path, parser, monkeypatch, name):
    monkeypatch.setattr(rdfsource, "MAX_LINE_BYTES", 3 * 2**20)
    path = put(tmp_path, name, NT + '<http://a> <http://b> "' + "x" * (4 * 2**20))
    with pytest.raises(FormatError, match=r":12: line is longer than the limit of 3145728 bytes"):
        read_rows(path)
    put(tmp_path, name, NT + '<http://a> <http://b> "' + "x" * (2 * 2**20) + '" .')
    assert len(read_rows(path).literals[-1][2]) == 2 * 2**20


@pytest.mark.parametrize("name", ["a.nt", "a.nq", "a.ttl", "a.rdf", "a.jsonld"])
def test_files_that_end_early_are_refused(tmp_path, parser, name):
    text = FILES[f"films{name[1:]}"].rstrip()
    for size in range(len(text) // 2, len(text) - 1, 3):
        if text[:size].rstrip().endswith(".") or text[:size].rsplit("\n", 1)[-1].strip() in ("", "#"):
            continue  # cut between two statements
        with pytest.raises(FormatError):
            read_rows(put(tmp_path, name, text[:size]))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.ttl", "<http://a> <http://b> " + "( " * 200_000),
        ("a.ttl", "<http://a> <http://b> " + "[ <http://c> " * 200_000),
        ("a.jsonld", "[" * 200_000),
        ("a.jsonld", '{"http://x/p":' * 200_000),
        ("a.rdf", XML.split("<rdf:Description")[0] + "<x:a><x:b>" * 50_000),
        ("a.ttl", "<http://a> <http://b> <<( <http://a> <http://b> <http://c> )>> ."),
        ("a.nt", "<http://a> <http://b> <<( <http://a> <http://b> <http://c> )>> ."),
        ("a.nt", '<http://a> <http://b> "\\u0000" .'),
        ("a.nt", '<http://a> <http://b> "\\uD800" .'),
        ("a.ttl", "<http://a> <http://b> '\\uD800' ."),
        ("a.ttl", '<http://a> <http://b> "a\0b" .'),
        ("a.jsonld", '{"http://x/p": "\\ud800"}'),
        ("a.jsonld", "3"),
        ("a.jsonld", "[]"),
        ("a.jsonld", '{"@context": 7, "@id": 5, "@type": {}}'),
        ("a.rdf", ""),
        ("a.nt", "\n\n# nothing\n"),
    ],
)
def test_odd_files_bring_format_errors_only(tmp_path, parser, name, text):
    with pytest.raises(FormatError):
        read_triples(put(tmp_path, name, text))


def test_files_that_are_not_there(tmp_path, parser):
    with pytest.raises(FormatError, match="No such file"):
        read_rows(tmp_path / "a.nt")
    with pytest.raises(FormatError, match="Is a directory"):
        read_rows(tmp_path.rename(tmp_path.with_name("folder.nt")))
    with pytest.raises(FormatError, match=r"unknown RDF syntax; a name ends with \.nt, \.nq"):
        read_rows(Path("films.csv"))


def test_rdflib_keeps_its_logs_and_warnings_and_settings(tmp_path, parser, caplog, capfd):
    given = rdflib.NORMALIZE_LITERALS, logging.getLogger("rdflib").level
    text = '@prefix x: <http://www.w3.org/2001/XMLSchema#> . <http://a> <http://b> "x"^^x:integer, "y"^^x:date .'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, content in (FILES | {"ill.ttl": text}).items():
            read_rows(put(tmp_path, name, content))
        with pytest.raises(FormatError):
            read_rows(put(tmp_path, "iri.ttl", "<http://a> <http://b> <http://a|b> ."))
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert (rdflib.NORMALIZE_LITERALS, logging.getLogger("rdflib").level) == given


def test_threads_do_not_disturb_each_other(tmp_path, monkeypatch):
    use_parser(monkeypatch, "rdflib")
    path = put(tmp_path, "a.ttl", CORNERS["numbers.ttl"])
    wanted, found = read_rows(path), []
    threads = [threading.Thread(target=lambda: found.append(read_rows(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 8
    assert rdflib.NORMALIZE_LITERALS


def test_pyoxigraph_is_what_reads_where_it_is_installed(tmp_path, monkeypatch):
    use_parser(monkeypatch, "pyoxigraph")
    monkeypatch.setattr(rdflib.Graph, "parse", None)
    assert len(read_rows(put(tmp_path, "a.ttl", TTL)).heads) == 5
    use_parser(monkeypatch, "rdflib")
    with pytest.raises(FormatError):
        read_rows(tmp_path / "a.ttl")


SCRAPS = [
    b"<",
    b">",
    b'"',
    b"\\",
    b"\\u",
    b"_:",
    b".",
    b"{",
    b"[",
    b"(",
    b"&x;",
    b"\n",
    b"\0",
    b"\xff",
    b"",
    b"a",
    b"7",
    b" ",
]


def spoiled(random, text):
    """A true file with a few places overwritten, perhaps cut, or its words in any order."""
    data = text.encode()
    if random.random() < 0.2:
        return b" ".join(random.choices(data.replace(b">", b"> ").split() + SCRAPS, k=random.randrange(15)))
    for _ in range(random.randint(1, 2)):
        place = random.randrange(len(data))
        scrap = random.choice(SCRAPS) if random.random() < 0.9 else random.randbytes(3)
        data = data[:place] + scrap + data[place + random.choice([0, 1, 1, 20]) :]
    return data if random.random() < 0.9 else data[: random.randrange(len(data) + 1)]


def fuzz(folder, num_examples):
    num_read = 0
    # Seeds counted up, not drawn: how many of the files stay readable must not change from run to run.
    for seed in range(num_examples):
        random = Random(seed)
        name = random.choice(sorted(FILES))
        content = spoiled(random, FILES[name])
        zipped = random.random() < 0.1
        path = put(folder, f"{name}.gz" if zipped else name, content)
        if zipped and random.random() < 0.5:
            data = path.read_bytes()
            path.write_bytes(data[: random.randrange(len(data))] + random.choice(SCRAPS))
        try:
            read_triples(path)
        except FormatError:
            continue
        except Exception as error:
            error.add_note(f"seed {seed}: {path.name}")
            raise
        num_read += 1
    return num_read


@pytest.mark.parametrize("num_examples", [150, pytest.param(5_000, marks=pytest.mark.slow)])
def test_only_format_errors_come_out(tmp_path, parser, no_network, num_examples):
    assert num_examples / 20 < fuzz(tmp_path, num_examples) < num_examples * 0.9
