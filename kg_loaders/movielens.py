"""MovieLens-1M in text files, with plots and a DBpedia graph where they are there.

Not one of the formats: it joins an RDF graph to tables, so it stands above both.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kg_loaders.assemble import assemble
from kg_loaders.errors import FormatError, blamed_on
from kg_loaders.graph import RecGraph
from kg_loaders.rdftriples import read_triples
from kg_loaders.textio import find_file, need_file, read_bytes, unread_files
from kg_loaders.texttable import TextTable, read_links, read_table

RATINGS, MOVIES, USERS = "ratings.dat", "movies.dat", "users.dat"
PLOTS, TRIPLES, LINKS = "plots.tsv", "dbpedia.nt", "map.csv"
MOVIE_COLUMNS = ("title", "genres")
USER_COLUMNS = ("gender", "age", "occupation", "zip_code")
PLOT_COLUMNS = ("plot", "director", "actors", "country", "language")  # its title is that of movies.dat
COLONS = "::"
LITERALS_LEFT = "literals left out"


def detect(folder: Path) -> bool:
    """Whether the folder holds ``ratings.dat`` and ``movies.dat``."""
    return all(find_file(folder, name) is not None for name in (RATINGS, MOVIES))


def read(path: Path) -> RecGraph:
    """Read the folder; every file may also be gzipped.

    - ``ratings.dat``: ``user::item::rating::time``. Every rating is an interaction, its value the weight.
    - ``movies.dat``: id, title, genres. A film that nobody rated is an item all the same.
    - ``users.dat`` (optional): id, gender, age, occupation, zip code.
    - ``plots.tsv`` (optional): a header with ``item_id`` and any of plot, director, actors, country, language; a cell
      in quotes may hold doubled ones, as in CSV.
    - ``dbpedia.nt`` with ``map.csv`` (optional): triples, and in two columns the IRI of each film. A film without an
      IRI has no triples; of two films with one IRI the second keeps no link, and is counted.

    The columns of ``movies.dat`` and ``users.dat`` have tabs between them, in UTF-8, or ``::`` as in GroupLens' own
    archive, whose files may be in Latin-1.

    Raises:
        FormatError: A file is missing or malformed.
    """
    ratings = _read_numbered(need_file(path, RATINGS), COLONS, 4)
    movies = _read_described(need_file(path, MOVIES), 1 + len(MOVIE_COLUMNS))
    item_table = _features(movies, "0", dict(zip(MOVIE_COLUMNS, "12", strict=True)))
    if plots := find_file(path, PLOTS):
        table = read_table(plots, "\t")
        item_table = item_table.join(
            _features(table, "item_id", {name: name for name in PLOT_COLUMNS if name in table})
        )
    user_table = None
    if users := find_file(path, USERS):
        table = _read_described(users, 1 + len(USER_COLUMNS))
        user_table = _features(table, "0", dict(zip(USER_COLUMNS, "1234", strict=True)))
    triples: pd.DataFrame | None = None
    links: dict[str, str] | None = None
    dropped = {}
    read = [plots]
    if (graph := find_file(path, TRIPLES)) and (map_file := find_file(path, LINKS)):
        read += [graph, map_file]
        data = read_triples(graph)
        triples, (links, _) = data.triples, read_links(map_file, ",")  # a film without an IRI is none that is left out
        dropped = {**data.dropped, LITERALS_LEFT: len(data.literals)}
    with blamed_on(path):
        return assemble(
            name=path.resolve().name,
            interactions=pd.DataFrame(
                {
                    "user_id": ratings.ids("0"),
                    "item_id": ratings.ids("1"),
                    "weight": ratings.numbers("2"),
                    "time": ratings.numbers("3"),
                }
            ),
            triples=triples,
            links=links,
            user_table=user_table,
            item_table=item_table,
            on_unknown="drop",  # concerns links alone: those of films that are not here, and second ones
            dropped={**dropped, **unread_files(path, read)},
        )


def _read_described(file: Path, width: int) -> TextTable:
    """Read a file without a header whose first line tells what stands between the columns."""
    first = read_bytes(file).lstrip(b"\r\n").split(b"\n", 1)[0]
    if COLONS.encode() in first and b"\t" not in first:
        return _read_numbered(file, COLONS, width, fallback="latin-1")
    return _read_numbered(file, "\t", width)


def _read_numbered(file: Path, separator: str, width: int, fallback: str | None = None) -> TextTable:
    """Read a file without a header."""
    table = read_table(file, separator, header=False, quoted=False, fallback=fallback)
    if len(table.names) != width:
        raise FormatError(file, int(table.lines[0]), f"{len(table.names)} columns, expected {width}")
    return table


def _features(table: TextTable, key: str, columns: dict[str, str]) -> pd.DataFrame:
    """Return columns of text by the id in column ``key``."""
    cells = {name: table.texts(column) for name, column in columns.items()}
    return pd.DataFrame(cells, index=table.unique_ids(key), dtype=object)
