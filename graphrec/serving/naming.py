"""Names that a person can read, for the relations and entities of knowledge graphs."""

from __future__ import annotations

import re
from urllib.parse import unquote

from kg_loaders import RecGraph

# Properties named by what was done, as what the one who did it is; and plurals.
NOUNS = {
    "award won": "award",
    "cinematography": "cinematographer",
    "composed by": "composer",
    "directed by": "director",
    "edited by": "editor",
    "editing": "editor",
    "performed by": "performer",
    "production companies": "production company",
    "produced by": "producer",
    "published by": "publisher",
    "starring": "actor",
    "subjects": "subject",
    "written by": "writer",
}
MACHINE_ID = re.compile(
    r"""[a-z]\.\w+      # Freebase: m.02h40lc
    | [PQ]?\d+                           # Wikidata, and plain numbers
    | _:.*                               # blank nodes
    | (\w+:)?([0-9a-f-]{16,}|\d+)        # hashes and numbers, perhaps with a prefix
    """,
    re.VERBOSE,
)
HASH = re.compile(r"\b[0-9a-f-]{16,}\b|\b\d+\b")


def relation_name(graph: RecGraph, edge_type: int) -> str:
    """Return what an entity is to an item at the other end of an edge, in a word or two; empty where no word says it.

    ``film.film.directed_by`` becomes "director". Where the item is the tail of a Freebase property, the type of the
    head says it: ``film.director.film`` becomes "director" too.

    Args:
        graph: The graph.
        edge_type: ``r`` for an edge from the relation's head to its tail, ``r + num_relations`` for its inverse.
    """
    item_is_head = edge_type >= graph.num_relations
    parts = _local_name(graph.relations.id_of(edge_type % graph.num_relations)).split(".")
    head_says_it = len(parts) == 3 and not item_is_head
    # Of film.film_genre.films_in_this_genre the word is "genre".
    word = parts[1].removeprefix(f"{parts[0]}_") if head_says_it else parts[-1]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]+(?![0-9a-f-]{16,})|_", " ", word)
    words = " ".join(HASH.sub(" ", words).split()).strip(" -:").lower()
    return NOUNS.get(words, words)


def entity_name(graph: RecGraph, entity: int) -> str:
    """Return an entity's label, or its id where that is in words; empty where it is not.

    ``http://dbpedia.org/resource/Robert_De_Niro`` becomes "Robert De Niro".
    """
    id_, label = graph.entities.id_of(entity), graph.entity_labels[entity]
    if label != id_:
        return label
    text = unquote(_local_name(id_)).replace("_", " ").strip()
    return "" if MACHINE_ID.fullmatch(id_) or MACHINE_ID.fullmatch(text) else text


def _local_name(id_: str) -> str:
    """Return the last part of an IRI; any other id as it is."""
    return re.split(r"[/#]", id_.rstrip("/#"))[-1] if "://" in id_ else id_
