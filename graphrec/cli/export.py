"""``graphrec export RUN``: item vectors, and ONNX files of both sides of a model."""

from __future__ import annotations

from pathlib import Path

from graphrec.cli.common import Parser, print_json


def main(argv: list[str]) -> None:
    """Run the command."""
    parser = Parser("export", "Write item vectors and ONNX files, for use without graphrec.")
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--vectors", default="safetensors", metavar="FORMAT", help="safetensors (default) or parquet")
    parser.add_argument("--no-onnx", action="store_true", help="item vectors alone")
    arguments = parser.parse_args(argv)

    from graphrec.serving.export import check_export, export
    from graphrec.serving.recommender import RunRecommender

    onnx = not arguments.no_onnx
    check_export(arguments.output, arguments.vectors, onnx)
    report = export(RunRecommender.load(arguments.run), arguments.output, arguments.vectors, onnx)
    if arguments.json:
        print_json({"output": str(arguments.output), **report})
        return
    for path in sorted(arguments.output.iterdir()):
        print(f"{path}  {path.stat().st_size / 2**20:.1f} MB")
    if onnx:
        print(f"onnxruntime and torch differ by at most {report['max_difference']:.1e} of the largest score")
