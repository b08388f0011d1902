"""The catalogue: the built-in one as users see it, and an administrator's file over it."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from modelyard.resources.images.catalog import CatalogImage, CatalogInvalid, choose_image, load_catalog, to_environment

CPU = load_catalog()
ALL = load_catalog(has_gpu=True, python_versions=("3.10", "3.12", "3.13", "3.14"))


def by_name(images: tuple[CatalogImage, ...], name: str) -> CatalogImage:
    return next(image for image in images if image.name == name)


def admin_file(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "images.yaml"
    path.write_text(content)
    return path


def test_names_and_ids_are_unique_and_ids_follow_from_names() -> None:
    assert len({image.name for image in ALL}) == len(ALL) == len({image.id for image in ALL})
    assert {uuid.UUID(image.id).version for image in ALL} == {5}
    assert [image.id for image in load_catalog(has_gpu=True)] == [image.id for image in load_catalog(has_gpu=True)]
    assert by_name(CPU, "Ubuntu 22.04 CPU TensorFlow Training").id == "e3653820-8566-59dc-9681-c37ee22ce557"


@pytest.mark.parametrize(
    ("name", "framework", "version", "python"),
    [
        ("Ubuntu 22.04 CPU TensorFlow Training", "TENSORFLOW", "2.15.1", "3.11"),
        ("Ubuntu 22.04 CPU TensorFlow 2.15 Training", "TENSORFLOW", "2.15.1", "3.11"),
        ("Ubuntu 22.04 CPU TensorFlow 2.21 Training", "TENSORFLOW", "2.21.0", "3.11"),
        ("Ubuntu 22.04 CPU PyTorch Training", "PYTORCH", "2.13.0", "3.11"),
        ("Ubuntu 22.04 CPU Python Training", "PYTHON", "3.11", "3.11"),
        ("Ubuntu 22.04 CPU TensorFlow Notebook", "TENSORFLOW", "2.15.1", "3.11"),
        ("Ubuntu 22.04 CPU PyTorch 2.13 Notebook", "PYTORCH", "2.13.0", "3.11"),
        ("Ubuntu 22.04 CPU Python Notebook", "PYTHON", "3.11", "3.11"),
        ("Ubuntu 22.04 CPU ONNX Serving", "ONNX", "1.31.1", "3.11"),
        ("Ubuntu 22.04 CPU scikit-learn Serving", "SKLEARN", "1.9.1", "3.11"),
        ("Ubuntu 22.04 CPU scikit-learn 1.5 Serving", "SKLEARN", "1.5.2", "3.11"),
    ],
)
def test_what_a_machine_without_gpu_offers(name: str, framework: str, version: str, python: str) -> None:
    image = by_name(CPU, name)
    assert (image.framework, image.framework_version, image.python_version) == (framework, version, python)
    assert image.core_type == "CPU"
    assert image.groups == (name.rpartition(" ")[2].upper(),)
    assert not image.is_deprecated
    assert image.description


def test_gpu_images_and_other_pythons_appear_only_where_they_can_work() -> None:
    assert {image.core_type for image in CPU} == {"CPU"}
    assert {image.framework for image in ALL if image.core_type == "GPU"} == {"TENSORFLOW", "PYTORCH"}
    pythons = {image.python for image in load_catalog(python_versions=("3.12", "3.9"))}
    assert pythons == {"3.11", "3.12"}


def test_one_default_for_each_framework_and_core_type() -> None:
    notebooks = [(image.framework, image.core_type) for image in ALL if image.is_default and "NOTEBOOK" in image.groups]
    assert sorted(notebooks) == [
        ("PYTHON", "CPU"), ("PYTORCH", "CPU"), ("PYTORCH", "GPU"), ("TENSORFLOW", "CPU"), ("TENSORFLOW", "GPU"),
    ]  # fmt: skip
    defaults = [
        (image.framework, image.core_type) for image in ALL if image.is_default and "NOTEBOOK" not in image.groups
    ]
    assert sorted(defaults) == [
        ("ONNX", "CPU"), ("PYTHON", "CPU"), ("PYTORCH", "CPU"), ("PYTORCH", "GPU"), ("SKLEARN", "CPU"),
        ("TENSORFLOW", "CPU"), ("TENSORFLOW", "GPU"),
    ]  # fmt: skip


def test_a_plain_name_and_its_version_share_one_environment() -> None:
    plain, versioned = (by_name(CPU, f"Ubuntu 22.04 CPU TensorFlow {word}Training") for word in ("", "2.15 "))
    assert to_environment(plain).digest == to_environment(versioned).digest
    assert plain.id != versioned.id
    assert to_environment(plain).name == "TensorFlow 2.15 (CPU)"


@pytest.mark.parametrize("image", ALL, ids=lambda image: image.name)
def test_requirements_are_pinned_and_hold_what_serving_needs(image: CatalogImage) -> None:
    requirements = [Requirement(line) for line in image.requirements]
    assert all(str(each.specifier).startswith("==") and not each.url for each in requirements)
    names = {each.name for each in requirements}
    assert "pip" in names
    if image.framework != "PYTHON":
        assert {"httptools", "orjson", "numpy"} < names
    if image.framework in ("TENSORFLOW", "PYTORCH"):
        assert "tensorboard" in names


def test_a_cpu_image_asks_for_the_cpu_package() -> None:
    for version in ("2.15", "2.21"):
        requirements = by_name(CPU, f"Ubuntu 22.04 CPU TensorFlow {version} Training").requirements
        mine = [line for line in requirements if line.startswith(("tensorflow-cpu==", "tensorflow=="))]
        here = {"x86_64": "tensorflow-cpu", "aarch64": "tensorflow"}
        for machine, wanted in here.items():
            chosen = [
                each.name
                for each in map(Requirement, mine)
                if each.marker and each.marker.evaluate({"platform_machine": machine})
            ]
            assert chosen == [wanted]
    gpu = by_name(ALL, "Ubuntu 22.04 GPU TensorFlow Training").requirements
    assert "tensorflow[and-cuda]==2.15.1" in gpu
    assert not any(line.startswith("tensorflow-cpu==") for line in gpu)


@pytest.mark.parametrize(
    ("version", "chosen"),
    [
        ("2.15.1", "Ubuntu 22.04 CPU TensorFlow Training"),
        ("2.15.0", "Ubuntu 22.04 CPU TensorFlow Training"),
        ("2.21", "Ubuntu 22.04 CPU TensorFlow 2.21 Training"),
        ("2.8.0", "Ubuntu 22.04 CPU TensorFlow Training"),
        ("2.16.1", "Ubuntu 22.04 CPU TensorFlow 2.21 Training"),
        ("2.99", "Ubuntu 22.04 CPU TensorFlow 2.21 Training"),
        ("1.15", "Ubuntu 22.04 CPU TensorFlow Training"),
        ("latest", "Ubuntu 22.04 CPU TensorFlow Training"),
        (None, "Ubuntu 22.04 CPU TensorFlow Training"),
    ],
)
def test_the_image_for_a_model(version: str | None, chosen: str) -> None:
    image = choose_image(ALL, "TENSORFLOW", version)
    assert image is not None
    assert image.name == chosen


def test_no_image_for_an_unknown_framework() -> None:
    assert choose_image(ALL, "CAFFE") is None
    assert choose_image(CPU, "PYTORCH", core_type="GPU") is None


def test_an_administrator_adds_changes_and_removes(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("# ours\npip==26.3\npandas==2.3.0  # tables\n")
    path = admin_file(
        tmp_path,
        """
images:
  - name: Ubuntu 22.04 CPU TensorFlow Training
    same_as: Ubuntu 22.04 CPU TensorFlow 2.21 Training
    description: We moved to Keras 3.
  - name: Ubuntu 22.04 CPU PyTorch 2.13 Training
    is_deprecated: true
  - name: Ubuntu 22.04 CPU Python 3.11 Training
    is_removed: true
  - name: Tables
    framework: PYTHON
    framework_version: "3.11"
    python: ">=3.11,<3.13"
    core_type: CPU
    groups: [TRAINING, NOTEBOOK]
    lock: mine.txt
    requirements: [polars==1.30.0]
  - name: TensorFlow with tables
    same_as: Ubuntu 22.04 CPU TensorFlow 2.15 Training
    without: [wheel]
    requirements: ["NumPy==1.26.3", "pandas==2.3.0"]
""",
    )
    images = load_catalog(path)
    moved = by_name(images, "Ubuntu 22.04 CPU TensorFlow Training")
    assert (moved.framework_version, moved.is_default, moved.description) == ("2.21.0", True, "We moved to Keras 3.")
    assert moved.id == by_name(CPU, moved.name).id
    deprecated = by_name(images, "Ubuntu 22.04 CPU PyTorch 2.13 Training")
    assert deprecated.is_deprecated
    assert deprecated.requirements == by_name(CPU, deprecated.name).requirements
    names = [image.name for image in images]
    assert "Ubuntu 22.04 CPU Python 3.11 Training" not in names
    assert "Ubuntu 22.04 CPU Python Training" in names
    tables = by_name(images, "Tables")
    assert tables.requirements == ("pip==26.3", "pandas==2.3.0", "polars==1.30.0")
    assert tables.groups == ("TRAINING", "NOTEBOOK")
    mixed = by_name(images, "TensorFlow with tables").requirements
    assert mixed[-2:] == ("NumPy==1.26.3", "pandas==2.3.0")
    assert not any(line.startswith(("numpy==", "wheel==")) for line in mixed)


def test_a_missing_or_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert load_catalog(tmp_path / "none.yaml") == CPU
    for content in ("", "images:\n", "images: []\n", "# nothing yet\n"):
        assert load_catalog(admin_file(tmp_path, content)) == CPU


ENTRY = "images:\n  - name: Mine\n    framework: PYTHON\n    framework_version: '1'\n    python: '3.11'\n    core_type: CPU\n    groups: [TRAINING]\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("images: [", "not valid YAML"),
        ("- name: x\n", "key 'images'"),
        ("just text", "key 'images'"),
        ("images: {name: x}\n", "key 'images'"),
        ("images:\n  - 7\n", "entry 1"),
        ("images:\n  - framework: PYTHON\n", "entry 1, name"),
        ("images:\n  - name: Mine\n", "image 'Mine', framework: is missing"),
        (ENTRY.replace("CPU", "TPU"), "image 'Mine', core_type: must be 'CPU' or 'GPU'"),
        (ENTRY.replace("PYTHON", "CAFFE"), "image 'Mine', framework: must be 'TENSORFLOW', "),
        (ENTRY.replace("'3.11'", "three"), "image 'Mine', python: 'three' is neither"),
        (ENTRY.replace("'1'", "one"), "image 'Mine', framework_version: 'one' is not a version"),
        (ENTRY + "    requirements: ['a b c']\n", "image 'Mine', requirements: 'a b c' is not a requirement"),
        (ENTRY + "    colour: red\n", "image 'Mine', colour: is not a known field"),
        (ENTRY + "    lock: none.txt\n", "image 'Mine', lock: 'none.txt' can't be read"),
        (ENTRY + "  - name: Mine\n", "image 'Mine', name: is there twice"),
        ("images:\n  - name: Mine\n    same_as: Yours\n", "image 'Mine', same_as: there is no image 'Yours'"),
        ("images:\n  - {name: A, same_as: B}\n  - {name: B, same_as: A}\n", "same_as: leads back to 'A'"),
        ("images:\n  - {name: A, same_as: A}\n", "same_as: leads back to 'A'"),
        (ENTRY.replace("'1'", "1.10"), "image 'Mine', framework_version: must be a text; put it in quotes"),
    ],
)
def test_faults_name_the_file_the_entry_and_the_field(tmp_path: Path, content: str, said: str) -> None:
    path = admin_file(tmp_path, content)
    with pytest.raises(CatalogInvalid) as caught:
        load_catalog(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)


def test_all_faults_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    path = admin_file(tmp_path, "images:\n  - {name: A, core_type: X}\n  - {name: B, framework: Y, python: Z}\n")
    with pytest.raises(CatalogInvalid) as caught:
        load_catalog(path)
    assert len(caught.value.faults) == 3


def test_images_for_notebooks_alone_serve_nothing() -> None:
    for framework in ("TENSORFLOW", "PYTORCH", "PYTHON"):
        only = [image for image in CPU if image.groups == ("NOTEBOOK",)]
        assert choose_image(only, framework) is None
        chosen = choose_image(CPU, framework)
        assert chosen is not None
        assert chosen.groups == ("TRAINING",)
