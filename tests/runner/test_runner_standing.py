"""What the runner promises about itself: any image's Python can run it, and it starts quickly."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.runner.plan import PYTHON, Fetch, Main, Plan, Upload

SOURCES = Path(__file__).parents[2] / "src"
OF_OTHER_VERSIONS = {"_sha2", "_typeshed"}
"""Modules of the standard library that not every Python has, and what type checkers alone read."""
MODULES = sorted((SOURCES / "modelyard/runner").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_python_3_9_can_read_it(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_it_imports_the_standard_library_and_itself_alone(path: Path) -> None:
    allowed = sys.stdlib_module_names | OF_OTHER_VERSIONS
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.startswith("modelyard.runner") or name.split(".")[0] in allowed, name


HEAVY = {
    *(
        "asyncio",
        "collections",
        "contextlib",
        "ctypes",
        "dataclasses",
        "email",
        "encodings.idna",
        "enum",
        "functools",
        "hashlib",
        "http",
        "json",
    ),
    *(
        "logging",
        "pathlib",
        "re",
        "runpy",
        "signal",
        "site",
        "socket",
        "ssl",
        "subprocess",
        "threading",
        "typing",
        "urllib.parse",
    ),
}
"""Each of these takes a part of the interpreter's own start to load, `typing` and `json` more than all of it."""


def modules_after(statement: str) -> set[str]:
    """What is loaded after a statement, in a fresh interpreter that is started as the runner is."""
    program = f"import sys; sys.path.append({str(SOURCES)!r}); {statement}\nprint(' '.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_a_run_without_transfers_loads_little() -> None:
    loaded = modules_after("import modelyard.runner.session")
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("modelyard.")} == {
        "modelyard.runner",
        *(
            f"modelyard.runner.{name}"
            for name in ("descendants", "journal", "jsons", "light", "outcomes", "plan", "process", "session", "stop")
        ),
    }


def test_no_part_of_a_plain_run_loads_a_heavy_module(store, token, tmp_path) -> None:
    """All of the run's steps: a source, an empty requirements.txt, a script, an output."""
    store.put("c", "source/train.py", "print('trained')")
    store.put("c", "source/requirements.txt", "# nothing")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_bytes(b"w")
    plan = Plan(
        Main((PYTHON, str(tmp_path / "source/train.py")), {}, str(tmp_path)),
        fetches=(Fetch(str(tmp_path / "source"), "obs://the/source", store.url("c"), "source", record="source"),),
        requirements=str(tmp_path / "source/requirements.txt"),
        cache_dir=str(tmp_path / "cache"),
        uploads=(Upload(str(tmp_path / "model"), "obs://the/out", store.url("c"), "out"),),
        token=token,
        report_path=str(tmp_path / "report.json"),
    )
    (tmp_path / "plan.json").write_text(plan.to_json())
    loaded = modules_after(
        f"from modelyard.runner.session import main; assert main(['', {str(tmp_path / 'plan.json')!r}]) == 0"
    )
    assert "modelyard.runner.upload" in loaded
    assert not loaded & HEAVY
    assert store.content("c", "out/weights") == b"w"


def test_a_cached_layer_does_without_pip() -> None:
    assert not modules_after("import modelyard.runner.layer, modelyard.runner.layer_key") & {
        *("importlib.metadata", "zipfile", "shutil", "sysconfig")
    }
