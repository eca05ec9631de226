import io

import pytest
from cases.rdf import NT, XML, put

from kg_loaders import FormatError
from kg_loaders.rdfsource import RdfSource, checked_json


@pytest.mark.parametrize("name", ["a.nt", "a.nt.gz"])
@pytest.mark.parametrize("size", [1, 7, 1023, 1024, 5000])
def test_hands_on_every_byte_but_the_byte_order_mark(tmp_path, name, size):
    text = (NT * 20).encode()
    path = put(tmp_path, name, b"\xef\xbb\xbf" + text)
    with RdfSource(path, "nt", 10**6) as source:
        chunks = list(iter(lambda: source.read(size), b""))
    assert b"".join(chunks) == text
    assert max(map(len, chunks)) <= size
    assert source.failure is None


def test_the_limit_is_exact(tmp_path):
    path = put(tmp_path, "a.nt", NT)
    size = path.stat().st_size
    with io.BufferedReader(RdfSource(path, "nt", size)) as source:
        assert len(source.read()) == size
    with pytest.raises(FormatError, match="more than max_bytes"), RdfSource(path, "nt", size - 1) as source:
        source.readall()
    assert source.closed


def test_a_declaration_is_seen_across_two_reads(tmp_path):
    for offset in range(1010, 1026):
        text = XML.replace("\n<rdf:RDF", "\n" + " " * (offset - 40) + "<!DOCTYPE r []><rdf:RDF")
        with (
            pytest.raises(FormatError, match="declarations are refused") as caught,
            RdfSource(put(tmp_path, "a.rdf", text), "xml", 10**6) as source,
        ):
            source.readall()
        assert caught.value.line == 2


def test_faults_name_their_line(tmp_path):
    path = put(tmp_path, "a.ttl", "\n" * 3000 + "a\0b")
    with pytest.raises(FormatError, match=r"a\.ttl:3001: NUL byte"), RdfSource(path, "turtle", 10**6) as source:
        source.readall()


def test_contexts_inside_the_file_are_allowed(tmp_path):
    data = b'[{"@context": [{"x": "http://x/", "y": {"@id": "x:y", "@context": {}}}, null], "x:p": ["@context"]}]'
    assert checked_json(tmp_path, data) == data


def test_other_encodings_are_named(tmp_path):
    text = XML.replace("UTF-8", "ISO-8859-1").encode("latin-1", "replace")
    with pytest.raises(FormatError, match="encoding must be UTF-8, the file declares 'ISO-8859-1'"):
        RdfSource(put(tmp_path, "a.rdf", XML.replace("UTF-8", "ISO-8859-1")), "xml", 10**6)
    with pytest.raises(FormatError, match=r"not well-formed|encoding must be UTF-8"):
        RdfSource(put(tmp_path, "a.rdf", text), "xml", 10**6)
    with pytest.raises(FormatError, match="no end of the XML declaration in the first 1024 bytes"):
        RdfSource(put(tmp_path, "a.rdf", XML.replace(" encoding", " " * 2000 + "encoding")), "xml", 10**6)
    for name in ("utf-8", "US-ASCII"):
        RdfSource(put(tmp_path, "a.rdf", XML.replace("UTF-8", name)), "xml", 10**6).close()
