"""Whole platforms for the journeys. Whoever asks for an image gets the shared test cache's environment; the builder is tested elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from modelyard.testing.ports import free_port

sys.path.insert(0, str(Path(__file__).parent))

from journey_platform import MakePlatform, RunningPlatform

from modelyard.compute.backends.local.build import build_environment
from modelyard.compute.backends.local.environments import EnvironmentStore
from modelyard.resources.images.catalog import load_catalog, to_environment

_running: list[RunningPlatform] = []


@pytest.fixture(scope="session")
def images(framework_python: Callable[[str, str], Path], environment_store: EnvironmentStore) -> Path:
    """The directory with the built environments of all images that the journeys use."""
    for framework, version in (
        ("PYTHON", "3.11"),
        ("TENSORFLOW", "2.15"),
        ("TENSORFLOW", "2.21"),
        ("PYTORCH", "2.13"),
        ("SKLEARN", "1.9"),
        ("ONNX", "1.31"),
    ):
        framework_python(framework, version)
    return environment_store.root


@pytest.fixture(scope="session")
def notebook_image(environment_store: EnvironmentStore) -> str:
    """The name of an image for notebooks whose environment is built: the smallest."""
    name = "Ubuntu 22.04 CPU Python Notebook"
    image = next(image for image in load_catalog() if image.name == name)
    build_environment(to_environment(image), environment_store.root, lambda step, message, progress: None)
    return name


@pytest.fixture(scope="session")
def platform(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A platform that runs for the whole session. Tests on it leave it running."""
    running = _prepared(tmp_path_factory.mktemp("platform"), images)
    yield from _lent(running)


@pytest.fixture
def make_platform(images: Path, tmp_path: Path) -> Iterator[MakePlatform]:
    """`make_platform(*options, is_up=True)`: a platform of the test's own, which it may break."""
    yield from _maker(images, tmp_path)


@pytest.fixture(scope="module")
def make_module_platform(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakePlatform]:
    """The same for a platform that the tests of a module share."""
    yield from _maker(images, tmp_path_factory.mktemp("platforms"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what its platforms say."""
    report = yield
    if report.failed:
        for each in _running:
            report.sections.append((f"platform {each.home}", each.evidence()))
    return report


def _maker(images: Path, place: Path) -> Iterator[MakePlatform]:
    made: list[RunningPlatform] = []

    def make(*options: str, name: str = "home", is_up: bool = True) -> RunningPlatform:
        running = _prepared(place / name, images, options)
        made.append(running)
        _running.append(running)
        if is_up:
            _start(running)
        return running

    yield make
    for each in made:
        each.close()
        _running.remove(each)


def _prepared(home: Path, images: Path, options: tuple[str, ...] = ()) -> RunningPlatform:
    home.mkdir(mode=0o700, exist_ok=True)
    home.joinpath("environments").symlink_to(images)
    # Journeys watch notebooks from their first step on, and want the machine to themselves; `test_notebook_spares` is about spares.
    home.joinpath("config.toml").write_text("[notebooks]\nspares = 0\n")
    return RunningPlatform(home, free_port(), free_port(), options)


def _lent(running: RunningPlatform) -> Iterator[RunningPlatform]:
    _running.append(running)
    try:
        _start(running)
        yield running
    finally:
        running.close()
        _running.remove(running)


def _start(running: RunningPlatform) -> None:
    done = running.up()
    assert done.returncode == 0, done.stdout + done.stderr + running.server_log()
