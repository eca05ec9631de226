"""Bad input, item by item: where each is tested, and what every reader must stand whatever its format."""

import ast
import gzip
import tracemalloc
from pathlib import Path

import pytest

from kg_loaders import FormatError, load
from kg_loaders.registry import FORMATS

TESTS = Path(__file__).parents[1]
FORMAT_TESTS, KGAT = "kg_loaders/formats", "kg_loaders/formats/test_kgat_text.py"

# From an item of the requirement to the tests that hold us to it.
ITEMS = {
    "missing file": ("meta/test_bad_input.py::test_a_missing_file_is_named", f"{KGAT}::test_a_missing_folder_is_named"),
    "empty file": ("meta/test_bad_input.py::test_an_empty_file_is_named",),
    "wrong column count": (
        "kg_loaders/test_textio.py::test_a_row_of_another_width_is_refused_with_its_line",
        "kg_loaders/test_texttable.py::test_malformed_tables_are_refused_with_their_line",
        "kg_loaders/test_numbered.py::test_malformed_lists",
        "kg_loaders/test_movielens.py::test_malformed_files",
    ),
    "non-integer, negative or overflowing id": (
        "kg_loaders/test_textio.py::test_what_is_no_integer_is_refused_with_its_line",
        f"{KGAT}::test_bad_input_is_refused_with_file_and_line",
        f"{FORMAT_TESTS}/test_labelled_text.py::test_malformed_ratings",
        f"{FORMAT_TESTS}/test_labelled_text.py::test_malformed_tables_of_numpy",
        f"{FORMAT_TESTS}/test_sequence_text.py::test_bad_sequences_are_refused_with_their_line",
        f"{FORMAT_TESTS}/test_sequence_text.py::test_bad_attributes_are_refused_with_their_line",
    ),
    "ids beyond the lists": (
        f"{KGAT}::test_bad_input_is_refused_with_file_and_line",
        f"{KGAT}::test_ids_beyond_the_lists_can_be_dropped_and_counted",
        "kg_loaders/test_assemble.py::test_links_of_unknown_items_are_named_or_counted",
    ),
    "item in test only": (f"{KGAT}::test_users_without_items_and_items_in_test_only_are_kept",),
    "user without items": (
        f"{KGAT}::test_users_without_items_and_items_in_test_only_are_kept",
        "kg_loaders/test_assemble.py::test_categories_and_rows_of_tables_are_kept_even_if_they_occur_nowhere",
    ),
    "KG without any item": (
        "kg_loaders/test_assemble.py::test_a_knowledge_graph_without_items_is_refused",
        f"{KGAT}::test_a_graph_in_which_no_item_occurs_is_refused",
        f"{FORMAT_TESTS}/test_labelled_text.py::test_a_graph_without_any_item",
        f"{FORMAT_TESTS}/test_recbole_atomic.py::test_a_graph_in_which_no_item_occurs_is_refused",
        f"{FORMAT_TESTS}/test_tables.py::test_missing_folders_truncated_files_and_triples_without_items",
        f"{FORMAT_TESTS}/test_rdf.py::test_parts_that_do_not_fit",
        "kg_loaders/test_movielens.py::test_a_graph_of_other_things",
    ),
    "triple with unknown relation": (
        f"{KGAT}::test_bad_input_is_refused_with_file_and_line",
        "graphrec/models/test_inductive_kgat.py::test_triples_with_an_unknown_relation_are_refused",
    ),
    "duplicated pairs": (
        f"{KGAT}::test_duplicates_and_leaks_are_counted",
        f"{FORMAT_TESTS}/test_recbole_atomic.py::test_repeated_rows_are_counted",
        f"{FORMAT_TESTS}/test_tables.py::test_repeated_rows_are_counted",
        "kg_loaders/test_assemble.py::test_of_a_pair_in_several_splits_the_earliest_is_kept_and_the_rest_counted",
    ),
    "CRLF, BOM and trailing blanks": ("meta/test_bad_input.py::test_files_from_windows_read_the_same",),
    "truncated gzip": (
        "meta/test_bad_input.py::test_a_truncated_gzip_is_named",
        "kg_loaders/test_textio.py::test_a_truncated_gzip_is_refused",
    ),
    "1 GB line": (
        "meta/test_bad_input.py::test_a_line_of_one_gigabyte_is_refused",
        "kg_loaders/test_textio.py::test_an_endless_line_is_refused_before_it_is_in_memory",
    ),
    "malformed Turtle with line number": (
        "kg_loaders/test_rdfstream.py::test_malformed_files_are_refused_with_the_line",
    ),
    "RDF/XML entity bombs": (
        "kg_loaders/test_rdfstream.py::test_entity_bombs_are_refused",
        "kg_loaders/test_rdfstream.py::test_entity_bombs_do_not_hide_in_encodings",
    ),
    "remote JSON-LD contexts": (
        "kg_loaders/test_rdfstream.py::test_remote_contexts_are_refused",
        "kg_loaders/test_rdfstream.py::test_nothing_asks_for_the_network",
    ),
    "a NaN feature": (
        "kg_loaders/test_numbered.py::test_bad_vectors",
        "kg_loaders/test_texttable.py::test_malformed_vectors_are_refused_with_their_line",
        "kg_loaders/test_assemble.py::test_malformed_features_are_refused",
    ),
    "a run folder from another version": (
        "graphrec/experiment/test_folder.py::test_other_format_versions_are_refused",
        "graphrec/experiment/test_folder.py::test_strange_info_is_refused",
    ),
    "a run folder with changed vocabulary": (
        "graphrec/experiment/test_folder.py::test_changed_graphs_are_refused",
        "graphrec/test_cli.py::test_changed_data_are_noticed",
    ),
    "a full disk while saving": (
        "graphrec/training/test_checkpoint.py::test_a_full_disk_leaves_the_old_one",
        "graphrec/training/test_checkpoint.py::test_a_file_size_limit_leaves_the_old_one",
        "graphrec/training/test_resume.py::test_a_full_disk_stops_the_run_and_what_was_saved_resumes",
        "graphrec/experiment/test_folder.py::test_full_disk_while_saving_leaves_the_run_unfinished",
        "graphrec/experiment/test_files.py::test_full_disk_leaves_the_old_file_intact",
        "kg_loaders/test_cache.py::test_a_full_device_costs_a_warning_only",
    ),
    "readers are fuzzed": (
        f"{FORMAT_TESTS}/test_fuzz.py::test_kgat_text",
        f"{FORMAT_TESTS}/test_fuzz.py::test_recbole_atomic",
        f"{FORMAT_TESTS}/test_fuzz.py::test_tables",
        f"{FORMAT_TESTS}/test_fuzz.py::test_sequence_text",
        f"{FORMAT_TESTS}/test_fuzz.py::test_damaged_parquet",
        f"{FORMAT_TESTS}/test_fuzz.py::test_movielens",
        f"{FORMAT_TESTS}/test_labelled_text.py::test_only_format_errors_come_out_of_near_misses",
        f"{FORMAT_TESTS}/test_nx.py::test_only_format_errors_come_out",
        f"{FORMAT_TESTS}/test_pair_text.py::test_only_format_errors_come_out_of_near_misses",
        "kg_loaders/test_rdfstream.py::test_only_format_errors_come_out",
    ),
    "errors are one line": ("graphrec/test_cli.py::test_errors_are_one_line",),
}

# One small data set in every format; the first file is the one that cannot do without.
FILES = {
    "movielens": {
        "ratings.dat": b"2::10::5::900\n7::9::3::800\n2::9::1::700\n",
        "movies.dat": b"9\tHeat\tCrime\n10\tAlien\tHorror\n",
    },
    "labelled_text": {"ratings_final.txt": b"2\t1\t1\n2\t3\t1\n5\t3\t0\n", "kg_final.txt": b"1\t0\t7\n3\t0\t7\n"},
    "pair_text": {"train.txt": b"2\t10\t1\n7\t9\t1\n", "test.txt": b"2\t9\t1\n", "test_original.txt": b"2\t9\t1\n"},
    "kgat_text": {"train.txt": b"0 0 2\n1 1\n", "test.txt": b"1 0\n", "kg_final.txt": b"0 0 3\n2 0 3\n"},
    "recbole_atomic": {
        "a.inter": b"user_id:token\titem_id:token\ttimestamp:float\n2\t10\t900\n7\t9\t800\n2\t9\t700\n",
        "a.kg": b"head_id:token\trelation_id:token\ttail_id:token\n9\tby\tm.1\n10\tby\tm.1\n",
    },
    "sequence_text": {"a.txt": b"2 10 9 11\n7 9\n", "a_item2attributes.json": b'{"9": [1, 2],\n"10": [2]}\n'},
    "tables": {
        "interactions.csv": b"user_id,item_id,weight\n2,10,1.5\n7,9,2\n2,9,1\n",
        "triples.csv": b"head_id,relation_id,tail_id\n9,by,m.1\n10,by,m.1\n",
    },
    "rdf": {
        "a.ttl": b"@prefix x: <http://x/> .\nx:9 x:by x:m1 .\nx:10 x:by x:m1 .\n",
        "interactions.csv": b"user_id,item_id\n2,http://x/10\n7,http://x/9\n2,http://x/9\n",
    },
    "nx": {
        "a.nx.json": b'{"directed": true, "multigraph": true, "graph": {},\n"nodes": [{"node": "u", "kind": "user"},\n'
        b'{"node": "h", "kind": "item"}, {"node": "a", "kind": "item"}],\n'
        b'"edges": [{"source": "u", "target": "h", "key": "interacts"}]}\n'
    },
}
EVERY_FILE = [(format_, name) for format_, files in FILES.items() for name in files]


def put(folder: Path, format_: str) -> Path:
    for name, content in FILES[format_].items():
        (folder / name).write_bytes(content)
    return folder


def read(folder: Path, format_: str):
    return load(folder, format_, cache=False)


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_has_its_tests(item):
    for test in ITEMS[item]:
        file, _, name = test.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert len(found) == 1, f"{test} does not exist"
        body = ast.dump(ast.Module(found[0].body, []))
        assert any(sign in body for sign in ("Assert(", "attr='raises'", "attr='warns'")), f"{test} asserts nothing"


def test_every_format_is_put_to_the_test():
    assert set(FILES) == set(FORMATS)


@pytest.mark.parametrize("format_", FILES)
def test_a_missing_file_is_named(tmp_path, format_):
    assert read(put(tmp_path, format_), format_).num_interactions > 0
    needed = next(iter(FILES[format_]))
    (tmp_path / needed).unlink()
    with pytest.raises(FormatError) as caught:
        read(tmp_path, format_)
    assert tmp_path in (caught.value.path, caught.value.path.parent)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("format_", "name"), EVERY_FILE)
def test_an_empty_file_is_named(tmp_path, format_, name):
    for content in (b"", b" \r\n\n"):
        (put(tmp_path, format_) / name).write_bytes(content)
        with pytest.raises(FormatError, match=r": (the file is empty|there is no statement in it)$") as caught:
            read(tmp_path, format_)
        assert caught.value.path == (tmp_path if name == "a.ttl" else tmp_path / name)  # RDF is read by the folder


@pytest.mark.parametrize(("format_", "name"), EVERY_FILE)
def test_a_truncated_gzip_is_named(tmp_path, format_, name):
    expected = read(put(tmp_path, format_), format_)
    content = gzip.compress((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    packed = tmp_path / f"{name}.gz"
    if (format_, name) != ("rdf", "interactions.csv"):  # is found beside RDF under this name only
        packed.write_bytes(content)
        assert read(tmp_path, format_) == expected
        packed.write_bytes(content[:-9])
        with pytest.raises(FormatError, match="truncated or damaged gzip") as caught:
            read(tmp_path, format_)
        assert caught.value.path == packed


@pytest.mark.parametrize(("format_", "name"), EVERY_FILE)
def test_a_line_of_one_gigabyte_is_refused(tmp_path, format_, name):
    with (put(tmp_path, format_) / name).open("rb+") as file:
        file.truncate(2**30)  # takes no room on the disk
    tracemalloc.start()
    with pytest.raises(FormatError, match="longer than the limit of|NUL byte") as caught:
        read(tmp_path, format_)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.path == tmp_path / name
    assert caught.value.line == FILES[format_][name].count(b"\n") + 1
    assert peak < 256 * 2**20


@pytest.mark.parametrize("format_", FILES)
def test_files_from_windows_read_the_same(tmp_path, format_):
    expected = read(put(tmp_path, format_), format_)
    for name, content in FILES[format_].items():
        blanks = b"" if name == "movies.dat" else b" "  # there the last cell is text, which is kept to the letter
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", blanks + b"\r\n") + b"\r\n \r\n")
    assert read(tmp_path, format_) == expected
