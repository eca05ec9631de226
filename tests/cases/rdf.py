"""One small RDF graph in five syntaxes, and both parsers."""

import gzip
import sys

import pytest

# Alien was made by Scott (said twice), has two titles, a year, and a blank node that tells of a prize.
NT = """\
<http://x/Alien> <http://x/director> <http://x/Scott> .
<http://x/Alien> <http://x/director> <http://x/Scott> .
# a comment

<http://x/Alien> <http://x/title> "Alien"@en .
<http://x/Alien> <http://x/title> "Alien \\u2013 \\"le huiti\\u00E8me passager\\""@fr .
<http://x/Alien> <http://x/year> "1979"^^<http://www.w3.org/2001/XMLSchema#integer> .
<http://x/Alien> <http://x/won> _:prize .
_:prize <http://x/title> "Oscar" .
_:prize <http://x/given-by> <http://x/Academy> .
<http://x/Scott> <http://x/made> <http://x/Alien> .
"""
NQ = NT.replace("<http://x/Academy> .", "<http://x/Academy> <http://x/graph> .").replace('"Oscar" .', '"Oscar" _:g .')
TTL = """\
@prefix : <http://x/> .
:Alien :director :Scott , :Scott ;
    :title "Alien"@en , "Alien – \\"le huitième passager\\""@fr ;
    :year 1979 ;
    :won [ :title "Oscar" ; :given-by :Academy ] .
:Scott :made :Alien .
"""
XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="http://x/">
  <rdf:Description rdf:about="http://x/Alien">
    <x:director rdf:resource="http://x/Scott"/>
    <x:director rdf:resource="http://x/Scott"/>
    <x:title xml:lang="en">Alien</x:title>
    <x:title xml:lang="fr">Alien – "le huitième passager"</x:title>
    <x:year rdf:datatype="http://www.w3.org/2001/XMLSchema#integer">1979</x:year>
    <x:won>
      <rdf:Description x:title="Oscar"><x:given-by rdf:resource="http://x/Academy"/></rdf:Description>
    </x:won>
  </rdf:Description>
  <rdf:Description rdf:about="http://x/Scott"><x:made rdf:resource="http://x/Alien"/></rdf:Description>
</rdf:RDF>
"""
JSONLD = """\
{"@context": {"@vocab": "http://x/", "director": {"@type": "@id"}, "made": {"@type": "@id"},
  "given-by": {"@type": "@id"}},
 "@graph": [
  {"@id": "http://x/Alien", "director": ["http://x/Scott", "http://x/Scott"], "year": 1979,
   "title": [{"@value": "Alien", "@language": "en"},
             {"@value": "Alien – \\"le huitième passager\\"", "@language": "fr"}],
   "won": {"title": "Oscar", "given-by": "http://x/Academy"}},
  {"@id": "http://x/Scott", "made": "http://x/Alien"}]}
"""
FILES = {"films.nt": NT, "films.nq": NQ, "films.ttl": TTL, "films.rdf": XML, "films.jsonld": JSONLD}

PARSERS = ("pyoxigraph", "rdflib")


def use_parser(monkeypatch, name):
    """Choose the parser; pyoxigraph's needs the extra."""
    if name == "pyoxigraph":
        pytest.importorskip("pyoxigraph", reason="the rdf extra is not installed")
    else:
        monkeypatch.setitem(sys.modules, "pyoxigraph", None)


def put(folder, name, text):
    """Write a file, gzipped if its name says so."""
    data = text if isinstance(text, bytes) else text.encode()
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path
