"""Requirements layers through the real pip, on an image of our own with small packages, and on the real images."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.runner.layer_key import layer_key
from modelyard.runner.outcomes import INSTALL_FAILED, STOPPED
from modelyard.runner.pip import explain
from modelyard.runner.plan import PYTHON, Main, Plan
from modelyard.runner.requirements import asks_for_hashes, requirement_lines


def write_wheel(
    directory: Path, name: str, version: str, code: str = "", requires: tuple[str, ...] = (), script: str = ""
) -> Path:
    """A small pure package as a wheel, with a module of its name and a command of the name `script`."""
    directory.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    folder = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {item}\n" for item in requires)
    files = {
        f"{module}.py": f"version = {version!r}\n{code}\n",
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{folder}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if script:
        files[f"{folder}/entry_points.txt"] = f"[console_scripts]\n{script} = {module}:main\n"
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text.encode())}\n")
    files[f"{folder}/RECORD"] = "".join(rows) + f"{folder}/RECORD,,\n"
    wheel = directory / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture(scope="session")
def index(tmp_path_factory) -> Path:
    """A directory of wheels that pip finds its packages in."""
    directory = tmp_path_factory.mktemp("wheels")
    write_wheel(
        directory, "greeting", "1.0", "def main(): import sys; print('hello from', sys.executable)", script="greet"
    )
    write_wheel(directory, "greeting", "2.0")
    write_wheel(directory, "frail", "1.0", requires=("number-box>=2",))
    write_wheel(directory, "number-box", "1.5")
    write_wheel(directory, "number-box", "2.0")
    write_wheel(directory, "torch", "2.14.0")
    write_wheel(directory, "tensorflow", "2.99.0")
    return directory


@pytest.fixture(scope="session")
def image(tmp_path_factory, index) -> Path:
    """The interpreter of an image that has pip, a framework of old and a library that the framework needs in an old version."""
    directory = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, env=clean_env())
    python = directory / "bin/python"
    held = tmp_path_factory.mktemp("held")
    wheels = [
        write_wheel(held, "number-box", "1.5"),
        write_wheel(held, "torch", "2.13.0+cpu", requires=("number-box<2",)),
        write_wheel(held, "tensorflow-cpu", "2.15.1"),
    ]
    command = [str(python), "-m", "pip", "install", "-q", "--no-index", "--no-deps", *map(str, wheels)]
    subprocess.run(command, check=True, env=clean_env())
    return python


def clean_env(**more: str) -> dict[str, str]:
    dropped = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PIP_FIND_LINKS")
    return {**{name: value for name, value in os.environ.items() if name not in dropped}, **more}


@pytest.fixture
def install(launch, image, index, tmp_path, monkeypatch) -> Callable:
    """Run code with a requirements.txt; pip finds nothing but the wheels of this test."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    source = tmp_path / "source"
    source.mkdir()

    def start(text: str | bytes, code: str = "print('ran')", **options):
        content = text.encode() if isinstance(text, str) else text
        (source / "requirements.txt").write_bytes(content)
        plan = Plan(
            main=Main(argv=(PYTHON, "-c", code), env={}, cwd=str(source)),
            requirements=str(source / "requirements.txt"),
            image_digest="digest",
            cache_dir=str(tmp_path / "cache"),
        )
        return launch(plan._replace(**options), python=str(image))

    return start


def layers(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache/layers").iterdir() if path.is_dir())


@pytest.mark.slow
def test_requirements_are_installed_once(install, tmp_path) -> None:
    code = "import greeting, torch, sys; print(greeting.version, torch.version, sys.prefix)"
    first = install("greeting==1.0\n", code).end()
    assert first.code == 0, first.output
    (layer,) = layers(tmp_path)
    assert f"1.0 2.13.0+cpu {layer}" in first.lines
    assert "pip: Successfully installed greeting-1.0" in first.output
    assert first.steps == ["installing", "running"]
    second = install("greeting==1.0\n", code).end()
    assert f"1.0 2.13.0+cpu {layer}" in second.lines
    assert "layer ready (cached)" in second.output
    assert "pip:" not in second.output
    assert layers(tmp_path) == [layer]


@pytest.mark.slow
def test_a_layer_works_where_it_ends_up(install, tmp_path) -> None:
    code = "import subprocess, greeting; subprocess.run(['greet'], check=True); print(greeting.__file__, greeting.main.__code__.co_filename)"
    ran = install("greeting==1.0", code).end()
    (layer,) = layers(tmp_path)
    assert f"hello from {layer}/bin/python" in ran.output
    line = next(line for line in ran.lines if line.endswith("greeting.py"))
    file, compiled_from = line.split()
    assert file == compiled_from
    assert list(Path(file).parent.glob("__pycache__/greeting.*.pyc"))
    for path in layer.rglob("*"):
        assert not path.stat(follow_symlinks=False).st_mode & 0o022 or path.is_symlink(), path


@pytest.mark.slow
def test_the_images_framework_is_not_installed_again(install, tmp_path) -> None:
    ran = install(
        "torch\ntensorflow\ntensorflow-cpu>=2.15\ngreeting\n", "import torch; print('torch', torch.version)"
    ).end()
    assert ran.code == 0, ran.output
    assert "torch 2.13.0+cpu" in ran.lines
    (layer,) = layers(tmp_path)
    assert not list(layer.rglob("torch*"))
    assert not list(layer.rglob("tensorflow.py"))


@pytest.mark.slow
@pytest.mark.parametrize("line", ["torch==2.14.0", "torch>2.13", "tensorflow==2.99.0"])
def test_another_version_of_the_framework_is_a_conflict(install, tmp_path, line) -> None:
    ran = install(f"greeting\n{line}\n").end()
    assert ran.code == INSTALL_FAILED
    assert ran.report["message"].startswith("The requirements can't be installed: Cannot install")
    assert line.split("=")[0].split(">")[0] in ran.report["message"]
    assert "ran" not in ran.lines
    assert layers(tmp_path) == []


@pytest.mark.slow
def test_a_dependency_the_framework_cannot_live_with_is_a_conflict(install) -> None:
    ran = install("frail").end()
    assert ran.code == INSTALL_FAILED
    assert "number-box" in ran.report["message"]
    assert "torch 2.13.0+cpu depends on number-box<2" in ran.report["message"]


@pytest.mark.slow
def test_an_unknown_package_is_told_in_pips_words(install, tmp_path) -> None:
    ran = install("no-such-package-here==9\n").end()
    assert ran.code == INSTALL_FAILED
    assert "No matching distribution found for no-such-package-here==9" in ran.report["message"]
    assert "pip: ERROR: No matching distribution" in ran.output
    assert layers(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"\n\n", b"# nothing\r\n  # at all\r\n", b"\xef\xbb\xbf# only a mark\n"])
def test_a_file_that_asks_for_nothing_makes_no_layer(install, tmp_path, content) -> None:
    ran = install(content).end()
    assert ran.code == 0
    assert "asks for nothing" in ran.output
    assert not (tmp_path / "cache/layers").exists()


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"\xef\xbb\xbfgreeting==1.0\r\n# end\r\n", "greeting==1.0\n".encode("utf-16")])
def test_files_as_windows_writes_them(install, content) -> None:
    ran = install(content, "import greeting; print(greeting.version)").end()
    assert "1.0" in ran.lines


@pytest.mark.slow
def test_a_missing_file_is_no_step(install, tmp_path) -> None:
    ran = install("greeting", requirements=str(tmp_path / "no-requirements.txt")).end()
    assert ran.code == 0
    assert ran.steps == ["running"]


@pytest.mark.slow
def test_two_runs_build_once(install, tmp_path) -> None:
    runs = [install("greeting==1.0\n", "import greeting; print(greeting.version)") for _ in range(3)]
    ends = [run.end() for run in runs]
    assert [ran.code for ran in ends] == [0, 0, 0]
    assert all("1.0" in ran.lines for ran in ends)
    assert sum("Successfully installed" in ran.output for ran in ends) == 1
    assert len(layers(tmp_path)) == 1


@pytest.mark.slow
def test_a_stop_during_the_installation_leaves_nothing(install, tmp_path, index) -> None:
    source = tmp_path / "slow-package"
    source.mkdir()
    (source / "setup.py").write_text("import time; print('building', flush=True); time.sleep(600)")
    run = install(f"{source}\n")
    run.wait_for("Processing")
    run.terminate()
    ran = run.end(20)
    assert ran.code == STOPPED
    assert layers(tmp_path) == []


@pytest.mark.slow
def test_a_killed_build_is_cleared_away_by_the_next(install, tmp_path) -> None:
    source = tmp_path / "slow-package"
    source.mkdir()
    (source / "setup.py").write_text("import time, os\nwhile not os.path.exists('/nowhere'): time.sleep(0.1)")
    run = install(f"{source}\n")
    run.wait_for("Processing")
    pip = [int(line) for line in Path(f"/proc/{run.process.pid}/task/{run.process.pid}/children").read_text().split()]
    run.process.kill()
    run.process.wait()
    for pid in pip:
        os.killpg(pid, 9)
    (remains,) = layers(tmp_path)
    assert remains.name.startswith(".")
    shutil.rmtree(source)
    write_wheel(source, "greeting", "1.0")
    remains.rename(remains.with_name(f".{key_of(install, tmp_path)}-dead"))
    ran = install("greeting==1.0\n").end()
    assert ran.code == 0
    assert [path.name[0] for path in layers(tmp_path)] != ["."]
    assert len(layers(tmp_path)) == 1


def key_of(install, tmp_path: Path) -> str:
    """The key that the layer of `greeting==1.0` has: taken from a run into another cache."""
    assert install("greeting==1.0\n", cache_dir=str(tmp_path / "other")).end().code == 0
    return next(path.name for path in (tmp_path / "other/layers").iterdir() if path.is_dir())


@pytest.mark.slow
def test_required_hashes_are_honoured(install, index) -> None:
    digest = hashlib.sha256((index / "greeting-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    good = install(f"greeting==1.0 --hash=sha256:{digest}\n", "import greeting; print(greeting.version)").end()
    assert "1.0" in good.lines, good.output
    bad = install(f"greeting==1.0 --hash=sha256:{'0' * 64}\n").end()
    assert bad.code == INSTALL_FAILED
    assert "HASHES" in bad.output


@pytest.mark.slow
def test_another_framework_by_its_hash_is_refused(install, index) -> None:
    digest = hashlib.sha256((index / "torch-2.14.0-py3-none-any.whl").read_bytes()).hexdigest()
    ran = install(f"torch==2.14.0 --hash=sha256:{digest}\n").end()
    assert ran.code == INSTALL_FAILED
    assert "they bring torch 2.14.0 and the image has torch 2.13.0+cpu" in ran.report["message"]


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_is_told(install, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    ran = install("greeting", cache_dir=str(tmp_path / "file")).end()
    assert ran.code == INSTALL_FAILED
    assert "The cache for requirements can't be used" in ran.report["message"]


@pytest.mark.slow
def test_a_real_package_from_the_index(launch, image, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    (tmp_path / "requirements.txt").write_text("tabulate==0.9.0\n")
    plan = Plan(
        main=Main(
            argv=(PYTHON, "-c", "import tabulate; print(tabulate.tabulate([[1, 2]]))"), env={}, cwd=str(tmp_path)
        ),
        requirements=str(tmp_path / "requirements.txt"),
        cache_dir=str(tmp_path / "cache"),
    )
    ran = launch(plan, python=str(image)).end(120)
    assert ran.code == 0, ran.output
    assert "-  -" in ran.output


def test_lines_that_say_something(tmp_path) -> None:
    path = tmp_path / "requirements.txt"
    path.write_bytes(
        b"\xef\xbb\xbf# a comment\r\nnumpy # why\r\n\r\n  scipy\\\r\n>=1\r\nx @ https://host/x.whl#sha256=1\r\n"
    )
    assert requirement_lines(str(path)) == ["numpy", "scipy>=1", "x @ https://host/x.whl#sha256=1"]


@pytest.mark.parametrize(
    ("line", "asks"), [("a==1 --hash=sha256:0", True), ("--require-hashes", True), ("a==1", False)]
)
def test_hash_mode_is_seen(line, asks) -> None:
    assert asks_for_hashes([line]) is asks


def test_the_key_covers_all_that_decides(tmp_path) -> None:
    path = tmp_path / "requirements.txt"
    keys = []

    def take(*surroundings: str) -> None:
        keys.append(layer_key(str(path), list(surroundings)))

    path.write_text("numpy\n-r more.txt\n-cconstraints.txt\n")
    take("image")
    take("other image")
    (tmp_path / "more.txt").write_text("scipy")
    take("image")
    (tmp_path / "more.txt").write_text("scipy>1\n-r requirements.txt")
    take("image")
    (tmp_path / "constraints.txt").write_text("x<1")
    take("image")
    path.write_text("numpy\n./package\n")
    take("image")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/setup.py").write_text("1")
    take("image")
    (tmp_path / "package/setup.py").write_text("2")
    take("image")
    assert len(set(keys)) == len(keys)
    take("image")
    assert keys[-1] == keys[-2]


def test_pips_reason_is_one_sentence() -> None:
    lines = """Collecting a
ERROR: Cannot install a and b because these package versions have conflicting dependencies.

The conflict is caused by:
    The user requested a
    b 1 depends on a<1

To fix this you could try to:
1. loosen
ERROR: ResolutionImpossible: for help visit somewhere""".splitlines()
    assert explain(lines) == (
        "Cannot install a and b because these package versions have conflicting dependencies. The user requested a; b 1 depends on a<1"
    )
    versions = ", ".join(f"1.{number}" for number in range(90))
    unknown = [
        "ERROR: Ignored the following versions that require a different python version: 2.1 Requires-Python >=3.12",
        f"ERROR: Could not find a version that satisfies the requirement numpy==0.1 (from versions: {versions})",
        "ERROR: No matching distribution found for numpy==0.1",
    ]
    assert explain(unknown) == (
        "Could not find a version that satisfies the requirement numpy==0.1 (there are 90 others, the newest 1.87, 1.88, 1.89) "
        "No matching distribution found for numpy==0.1"
    )
    assert explain(["error: subprocess", "", "  it broke  ", ""]) == "it broke"
    assert explain([]) == ""
    assert len(explain(["ERROR: " + "x" * 2000])) == 700


@pytest.mark.slow
@pytest.mark.parametrize(
    ("framework", "version", "requirement", "module"),
    [("TENSORFLOW", "2.15", "tensorflow", "tensorflow"), ("PYTORCH", "2.13", "torch", "torch")],
)
def test_the_real_images_keep_their_framework(
    framework_python, launch, tmp_path, framework, version, requirement, module
) -> None:
    python = framework_python(framework, version)
    (tmp_path / "requirements.txt").write_text(f"{requirement}\ntabulate==0.9.0\n")
    code = f"import json, tabulate; from importlib import metadata; import {module} as m; print(json.dumps([m.__version__, m.__file__]))"
    plan = Plan(
        main=Main(argv=(PYTHON, "-c", code), env={}, cwd=str(tmp_path)),
        requirements=str(tmp_path / "requirements.txt"),
        cache_dir=str(tmp_path / "cache"),
    )
    ran = launch(plan, python=str(python)).end(300)
    assert ran.code == 0, ran.output
    found, file = json.loads(
        next(line for line in ran.lines if line.startswith("[") and not line.startswith("[modelyard]"))
    )
    assert found.startswith(version)
    assert str(tmp_path) not in file
    (tmp_path / "requirements.txt").write_text(f"{requirement}==1.99\n")
    assert launch(plan, python=str(python)).end(300).code == INSTALL_FAILED
