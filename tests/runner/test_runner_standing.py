"""What the runner promises about itself: any image's Python can run it, and it starts quickly."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "src"
MODULES = sorted((SOURCES / "modelyard/runner").glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_python_3_9_can_read_it(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_it_imports_the_standard_library_and_itself_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name.startswith("modelyard.runner") or name.split(".")[0] in sys.stdlib_module_names, name


def modules_after(statement: str) -> set[str]:
    """What is loaded after an import, in a fresh interpreter."""
    program = f"{statement}\nimport sys; print(' '.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-S", "-c", program], cwd=SOURCES, capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


def test_a_run_without_transfers_loads_none_of_the_heavy_modules() -> None:
    loaded = modules_after("import modelyard.runner.session")
    assert "modelyard.runner.process" in loaded
    assert not loaded & {
        "subprocess",
        "socket",
        "ssl",
        "http",
        "email",
        "urllib.parse",
        "hashlib",
        "pathlib",
        "asyncio",
        "logging",
    }
    assert {name for name in loaded if name.startswith("modelyard.")} == {
        "modelyard.runner",
        *(
            f"modelyard.runner.{name}"
            for name in ("descendants", "journal", "outcomes", "plan", "process", "session", "stop")
        ),
    }


def test_fetching_does_without_the_heavy_http_client() -> None:
    loaded = modules_after("import modelyard.runner.session, modelyard.runner.fetch")
    assert not loaded & {"http.client", "email", "ssl", "concurrent.futures", "importlib.metadata", "dataclasses"}


def test_a_cached_layer_does_without_pip() -> None:
    assert not modules_after("import modelyard.runner.layer") & {"importlib.metadata", "zipfile", "shutil", "sysconfig"}
