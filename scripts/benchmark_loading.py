"""Measure how long data sets take to read, cold and from the cache, with the peak memory, each in a process of its own.

python scripts/benchmark_loading.py alibaba-ifashion last-fm
python scripts/benchmark_loading.py --triples 200000 --json rows.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Of the child: the imports are not the reader's time; VmHWM, unlike ru_maxrss, is not taken over from the parent.
PROGRAM = """
import json, sys, time
from pathlib import Path
import kg_loaders, kg_loaders.cache, safetensors.numpy
from kg_loaders.formats import rdf
what, name = sys.argv[1:]
read = {"set": kg_loaders.load, "triples": lambda path: rdf.read_triples(Path(path))}[what]
wall, cpu = time.perf_counter(), time.process_time()
read(name)
row = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
peak = [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM:")]
print(json.dumps(row | {"peak_memory_mb": peak[0] if peak else None}))
"""


def in_child(what: str, name: str, cache: str) -> dict[str, Any]:
    """Read once in a new process and return its figures."""
    command = [sys.executable, "-c", PROGRAM, what, name]
    done = subprocess.run(command, env={**os.environ, "GRAPHREC_CACHE": cache}, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"reading {name} failed: {(done.stderr.splitlines() or ['killed'])[-1]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def medians(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every figure."""
    return {key: None if rows[0][key] is None else statistics.median(row[key] for row in rows) for key in rows[0]}


def write_triples(path: Path, number: int) -> None:
    """Write distinct N-Triples of 60,000 entities and 9 relations."""
    base = "http://example.org/"
    lines = (f"<{base}e{i % 60_000}> <{base}r{i % 9}> <{base}e{i * 7919 // 60_000}> ." for i in range(number))
    path.write_text("\n".join(lines), encoding="ascii")


def main(argv: list[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="known data sets or folders")
    parser.add_argument("--triples", type=int, help="also read so many N-Triples, written for it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args(argv)
    if not arguments.names and not arguments.triples:
        parser.error("name a data set, or give --triples")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.names:
            caches = [f"{folder}/{name.replace('/', '_')}-{i}" for i in range(arguments.repeats)]
            cold, cached = (medians([in_child("set", name, cache) for cache in caches]) for _ in range(2))
            rows += [{"what": name, "from": "cold"} | cold, {"what": name, "from": "cache"} | cached]
        if arguments.triples:
            path = Path(folder) / "made.nt"
            write_triples(path, arguments.triples)
            read = [in_child("triples", str(path), folder) for _ in range(arguments.repeats)]
            rows.append({"what": f"{arguments.triples} N-Triples", "from": "cold"} | medians(read))
    for row in rows:
        memory = "" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:8.0f} MB"
        print(f"{row['what']:<24} {row['from']:<7} {row['seconds']:7.3f} s {row['cpu_seconds']:7.3f} s cpu{memory}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
