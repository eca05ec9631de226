"""Which case classes the test files of a folder hold: meta tests ask whether nothing was left without one."""

import importlib.util
import inspect
from pathlib import Path
from typing import TypeVar

Case = TypeVar("Case")


def cases_in(folder: Path, kind: type[Case]) -> list[type[Case]]:
    """Return the ``Test`` classes of ``kind`` that pytest finds in a folder."""
    found = []
    for path in sorted(folder.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"meta_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found += [
            value
            for name, value in vars(module).items()
            if name.startswith("Test") and inspect.isclass(value) and issubclass(value, kind)
        ]
    return found
