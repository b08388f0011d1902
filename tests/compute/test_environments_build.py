"""The real builder with the real uv and pip, on small wheels from a directory that pip is configured for: nothing of the network."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.build_errors import BuildFailed
from modelyard.compute.backends.local.environments import EnvironmentStore, spec_json
from modelyard.compute.port import Environment

pytestmark = pytest.mark.slow

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
BUILDER = [sys.executable, "-m", "modelyard.compute.backends.local.build"]


def make_wheel(
    directory: Path, name: str, version: str, requires: Sequence[str] = (), modules: int = 1, script: bool = False
) -> None:
    """A small real wheel: package `name` with `modules` modules, and a command of the same name if asked for."""
    info = f"{name.replace('-', '_')}-{version}.dist-info"
    package = name.replace("-", "_")
    files = {f"{package}/__init__.py": f"VERSION = {version!r}\n\n\ndef main():\n    print('{name}', VERSION)\n"}
    files |= {
        f"{package}/m{number}.py": f"def f{number}(x):\n    return x + {number}\n" for number in range(1, modules)
    }
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{name} = {package}:main\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / f"{package}-{version}-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)


@pytest.fixture(scope="module")
def pip_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real wheel of pip, which every environment gets."""
    directory = tmp_path_factory.mktemp("pip")
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", directory, "pip"], check=True)
    return next(directory.glob("pip-*.whl"))


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of wheels that pip is configured for, and no index. Every environment gets pip: here a small package of that name."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    make_wheel(directory, "pip", "1.0")
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nno-index = true\nfind-links = {directory}\n")
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    source = importlib.util.find_spec("modelyard")
    assert source is not None and source.submodule_search_locations
    monkeypatch.setenv(
        "PYTHONPATH", str(Path(source.submodule_search_locations[0]).parent)
    )  # for the builder's own process
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "environments"


def build(environment: Environment, root: Path) -> Path:
    return build_environment(environment, root, lambda step, message, progress: None)


def leftovers(root: Path) -> list[str]:
    """What the builder left in the root beside environments and its own permanent directories."""
    names = {entry.name for entry in root.iterdir()}
    return sorted(name for name in names if name.startswith(".") and name not in {".locks", ".pythons"})


def start_builder(environment: Environment, root: Path) -> tuple[subprocess.Popen[str], Path]:
    spec, report = root.parent / "spec.json", root.parent / "report.json"
    spec.write_text(spec_json(environment))
    command = [*BUILDER, "--spec", str(spec), "--root", str(root), "--report", str(report)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), report


def until_line(process: subprocess.Popen[str], beginning: str) -> None:
    assert process.stdout is not None
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(f"[modelyard] {beginning}"):
            return
    pytest.fail(f"no line '{beginning}' in {seen}")


def test_a_built_environment_is_whole_and_works_anywhere(
    wheels: Path, pip_wheel: Path, root: Path, tmp_path: Path
) -> None:
    shutil.copy(pip_wheel, wheels)
    make_wheel(wheels, "alpha", "1.0", requires=["beta>=2"], script=True)
    make_wheel(wheels, "beta", "2.0")
    make_wheel(wheels, "beta", "2.1")
    environment = Environment("Alpha", HERE, ("alpha==1.0", "beta==2.0"))
    steps: list[tuple[str, float]] = []

    path = build_environment(environment, root, lambda step, message, progress: steps.append((step, progress)))

    store = EnvironmentStore(root)
    facts = store.facts(environment)
    assert path == store.path(environment)
    assert store.is_built(environment)
    assert facts is not None
    assert {"alpha==1.0", "beta==2.0"} < set(facts.packages)
    assert any(package.startswith("pip==") for package in facts.packages)
    assert facts.installer == "uv"
    assert facts.warnings == ()
    assert Path(facts.executable).is_file()
    assert Path(facts.base_prefix, "lib", f"python{HERE}", "os.py").is_file()
    assert facts.size_bytes > 1_000_000
    assert leftovers(root) == []
    assert [step for index, (step, _) in enumerate(steps) if index == 0 or steps[index - 1][0] != step] == [
        "resolving", "downloading", "installing", "compiling", "ready",
    ]  # fmt: skip
    assert [progress for _, progress in steps] == sorted(progress for _, progress in steps)

    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(path, elsewhere, symlinks=True)
    shutil.rmtree(path)
    done = subprocess.run([elsewhere / "bin" / "alpha"], capture_output=True, text=True, check=True)
    assert done.stdout == "alpha 1.0\n"
    where = subprocess.run(
        [elsewhere / "bin" / "python", "-c", "import beta; print(beta.__file__)"], capture_output=True, text=True
    )
    assert where.stdout.startswith(str(elsewhere))


def test_everything_is_compiled_readable_and_never_checked_again(
    wheels: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    make_wheel(wheels, "alpha", "1.0", modules=20)
    old = os.umask(0o077)
    try:
        path = build(Environment("Alpha", HERE, ("alpha==1.0",)), root)
    finally:
        os.umask(old)
    package = path / "lib" / f"python{HERE}" / "site-packages" / "alpha"
    compiled = list((package / "__pycache__").glob("*.pyc"))
    assert len(compiled) == 20
    assert {file.read_bytes()[4:8] for file in compiled} == {b"\x01\0\0\0"}  # PEP 552: hash-based, unchecked
    for directory, names, files in os.walk(path):
        for entry in [Path(directory, name) for name in names + files]:
            if not entry.is_symlink():
                assert entry.stat().st_mode & 0o777 in ({0o755} if entry.is_dir() else {0o644, 0o755}), entry
    assert path.stat().st_mode & 0o777 == 0o755


def test_building_again_does_nothing(wheels: Path, root: Path) -> None:
    make_wheel(wheels, "alpha", "1.0")
    environment = Environment("Alpha", HERE, ("alpha==1.0",))
    before = build(environment, root).stat()
    steps: list[str] = []
    build_environment(environment, root, lambda step, message, progress: steps.append(step))
    assert steps == ["ready"]
    assert EnvironmentStore(root).path(environment).stat().st_ino == before.st_ino


def test_builders_at_the_same_time_build_once(wheels: Path, root: Path) -> None:
    make_wheel(wheels, "alpha", "1.0", modules=300)
    environment = Environment("Alpha", HERE, ("alpha==1.0",))
    processes = [start_builder(environment, root)[0] for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("compiling:" in output for output in outputs) == 1
    assert leftovers(root) == []


@pytest.mark.parametrize("step", ["resolving", "downloading", "installing", "compiling"])
def test_kill_9_at_any_step_leaves_nothing_that_looks_built(wheels: Path, root: Path, step: str) -> None:
    make_wheel(wheels, "alpha", "1.0", modules=1000)
    environment = Environment("Alpha", HERE, ("alpha==1.0",))
    process, _ = start_builder(environment, root)
    until_line(process, step)
    process.kill()
    process.communicate()
    assert not EnvironmentStore(root).is_built(environment)
    assert not EnvironmentStore(root).path(environment).exists()
    path = build(environment, root)
    assert len(list((path / "lib" / f"python{HERE}" / "site-packages" / "alpha" / "__pycache__").iterdir())) == 1000
    assert leftovers(root) == []


@pytest.mark.parametrize("step", ["resolving", "compiling"])
def test_sigterm_clears_up(wheels: Path, root: Path, step: str) -> None:
    make_wheel(wheels, "alpha", "1.0", modules=1000)
    environment = Environment("Alpha", HERE, ("alpha==1.0",))
    process, report = start_builder(environment, root)
    until_line(process, step)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 143, output
    assert json.loads(report.read_text())["message"] == "The build was stopped."
    assert [entry.name for entry in root.iterdir()] == [".locks"]


def test_a_failed_build_says_why_and_leaves_nothing(wheels: Path, root: Path) -> None:
    with pytest.raises(BuildFailed, match=r"offers alpha==7.7 for Python .*correct the requirements of 'Alpha'"):
        build(Environment("Alpha", HERE, ("alpha==7.7",)), root)
    assert [entry.name for entry in root.iterdir()] == [".locks"]


def test_the_command_reports_failure_and_bad_specifications(wheels: Path, root: Path) -> None:
    process, report = start_builder(Environment("Alpha", HERE, ("alpha==7.7",)), root)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    told = json.loads(report.read_text())
    assert told["step"] == "failed"
    assert "alpha==7.7" in told["message"]
    assert f"[modelyard] failed: {told['message']}" in output

    (root.parent / "bad.json").write_text('{"name": "x"}')
    command = [*BUILDER, "--spec", str(root.parent / "bad.json"), "--root", str(root), "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "python: must be a text" in json.loads(report.read_text())["message"]


def test_a_relative_root_with_spaces(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(wheels, "alpha", "1.0", script=True)
    monkeypatch.chdir(tmp_path)
    path = build(Environment('An "odd"\nname', HERE, ("alpha==1.0",)), Path("my environments"))
    assert path.is_absolute()
    assert subprocess.run([path / "bin" / "alpha"], capture_output=True, text=True).stdout == "alpha 1.0\n"


def test_a_place_that_cannot_be_written(wheels: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BuildFailed, match="Not a directory"):
        build(Environment("Alpha", HERE, ()), tmp_path / "file" / "environments")


def test_an_environment_whose_interpreter_is_gone_is_built_anew(wheels: Path, root: Path) -> None:
    environment = Environment("Plain", HERE, ())
    python = EnvironmentStore(root).python(environment)
    build(environment, root)
    python.unlink()
    python.symlink_to("/gone/python")
    assert not EnvironmentStore(root).is_built(environment)
    build(environment, root)
    assert subprocess.run([python, "-c", ""]).returncode == 0
    assert leftovers(root) == []


def test_a_cpu_image_takes_the_cpu_build_that_only_pip_is_configured_for(wheels: Path, root: Path) -> None:
    make_wheel(wheels, "torch", "2.0", requires=["nvidia-cublas", "triton"])
    make_wheel(wheels, "torch", "2.0+cpu")
    make_wheel(wheels, "nvidia-cublas", "12.0")
    make_wheel(wheels, "triton", "3.0")
    environment = Environment("Torch", HERE, ("torch==2.0",))
    build(environment, root)
    facts = EnvironmentStore(root).facts(environment)
    assert facts is not None
    assert "torch==2.0+cpu" in facts.packages
    assert not any(package.startswith(("nvidia", "triton")) for package in facts.packages)
    assert facts.warnings == ()


def test_a_gpu_image_takes_the_cuda_build_although_a_cpu_build_sorts_above_it(wheels: Path, root: Path) -> None:
    make_wheel(wheels, "torch", "2.0", requires=["nvidia-cublas"])
    make_wheel(wheels, "torch", "2.0+cpu")
    make_wheel(wheels, "nvidia-cublas", "12.0")
    environment = Environment("Torch", HERE, ("torch==2.0",), "GPU")
    build(environment, root)
    facts = EnvironmentStore(root).facts(environment)
    assert facts is not None
    assert {"torch==2.0", "nvidia-cublas==12.0"} < set(facts.packages)
    assert facts.warnings == ()


def test_a_cuda_build_is_taken_with_a_warning_only_where_nothing_else_is(wheels: Path, root: Path) -> None:
    make_wheel(wheels, "torch", "2.0", requires=["nvidia-cublas"])
    make_wheel(wheels, "nvidia-cublas", "12.0")
    for core_type in ("CPU", "GPU"):
        environment = Environment("Torch", HERE, ("torch==2.0",), core_type)
        build(environment, root)
        facts = EnvironmentStore(root).facts(environment)
        assert facts is not None
        assert "nvidia-cublas==12.0" in facts.packages
        assert bool(facts.warnings) == (core_type == "CPU")
        assert all("CUDA build" in warning for warning in facts.warnings)


def test_pip_builds_where_uv_is_told_a_place_that_does_not_answer(
    wheels: Path, pip_wheel: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(pip_wheel, wheels)
    make_wheel(wheels, "alpha", "1.0", requires=["beta>=1"], script=True)
    make_wheel(wheels, "beta", "1.1")
    index = tmp_path / "simple"
    for wheel in wheels.iterdir():
        page = index / wheel.name.partition("-")[0] / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        with page.open("a") as file:
            file.write(f'<a href="{wheel.as_uri()}">{wheel.name}</a>\n')
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {index.as_uri()}\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    environment = Environment("Alpha", HERE, ("alpha==1.0",))

    path = build(environment, root)

    facts = EnvironmentStore(root).facts(environment)
    assert facts is not None
    assert facts.installer == "pip"
    assert {"alpha==1.0", "beta==1.1"} < set(facts.packages)
    moved = tmp_path / "moved"
    shutil.copytree(path, moved, symlinks=True)
    shutil.rmtree(path)
    done = subprocess.run([moved / "bin" / "alpha"], capture_output=True, text=True, check=True)
    assert done.stdout == "alpha 1.0\n"
    assert subprocess.run([moved / "bin" / "pip", "--version"], capture_output=True).returncode == 0
