"""Where a result comes from is on record, and the very same source runs again although its path has changed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from journey_platform import RunningPlatform, eventually
from journey_scripts import SMALL_FLAVOR, finish, output_of, start_script, upload_script

from modelyard.sdk.errors import BadRequest

pytestmark = pytest.mark.slow

SCRIPT = "import os; print('version', open('words.txt').read(), sorted(os.listdir(os.environ['EM_DATASET_TRAIN'])))"
STRANGE_NAMES = ("a b", "100%", "#1", "ü 한글", "q?x=1&y", "+plus", "~tilde", "'quote'")


def test_a_source_runs_again_as_it_was(platform: RunningPlatform, tmp_path: Path) -> None:
    client = platform.client
    data = tmp_path / "data"
    data.mkdir()
    for name in STRANGE_NAMES:
        (data / name).write_bytes(name.encode())
    client.storage.upload(data, "provenance/data")
    source = upload_script(platform, tmp_path / "v1", "provenance/source", SCRIPT, words_txt="one")
    first = finish(platform, start_script(platform, "first", source, datasets={"train": "provenance/data"}))
    assert f"version one {sorted(STRANGE_NAMES)}" in output_of(platform, first)
    known = first.provenance
    assert known is not None
    assert known.started_by
    assert known.image_digest
    expected = hashlib.sha256()
    for name in ("train.py", "words.txt"):
        expected.update(f"{name}\0{hashlib.sha256((tmp_path / 'v1' / name).read_bytes()).hexdigest()}\0".encode())
    assert known.source_digest == expected.hexdigest()
    (listed,) = known.dataset_list
    assert (listed.dataset_name, listed.file_count) == ("train", len(STRANGE_NAMES))
    assert listed.listing_digest is not None

    upload_script(platform, tmp_path / "v2", "provenance/source", SCRIPT, words_txt="two")
    second = finish(platform, start_script(platform, "second", source, datasets={"train": "provenance/data"}))
    assert "version two" in output_of(platform, second)
    client.storage.delete("provenance/source", recursive=True)
    again = client.trainings.create(
        "again",
        new_experiment="journeys",
        image=first.image.image_id if first.image else "",
        flavor=SMALL_FLAVOR,
        source_snapshot=known.source_snapshot_id,
        entry_point="train.py",
        datasets={"train": "provenance/data"},
        model_upload="provenance/output/again",
    )
    again = finish(platform, again)
    assert "version one" in output_of(platform, again)
    assert again.provenance is not None
    assert again.provenance.source_digest == known.source_digest
    assert again.provenance.dataset_list == known.dataset_list

    with pytest.raises(BadRequest, match=r"there is no 'other\.py' in the source snapshot"):
        client.trainings.create(
            "wrong",
            image=again.image.image_id if again.image else "",
            flavor=SMALL_FLAVOR,
            source_snapshot=known.source_snapshot_id,
            entry_point="other.py",
            model_upload="provenance/output/wrong",
        )
    place = platform.home / "snapshots" / str(known.source_snapshot_id)
    for training in (first, again):
        assert place.is_dir()
        client.trainings.delete(training.id)
    eventually(lambda: not place.exists(), "the snapshot goes with the last training that used it")
