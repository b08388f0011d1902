"""A file of resources: what it may hold, and all that is wrong with it."""

from __future__ import annotations

import textwrap

import pytest

from modelyard.sdk.apply.manifest import read_manifest
from modelyard.sdk.errors import ManifestInvalid
from modelyard.sdk.groups.endpoints import Served, served_models


def faults_of(text: str) -> dict[str, str]:
    with pytest.raises(ManifestInvalid) as caught:
        read_manifest(textwrap.dedent(text))
    return {fault.field: fault.message for fault in caught.value.faults}


def test_things_come_in_the_order_in_which_they_need_each_other() -> None:
    items = read_manifest(
        textwrap.dedent("""
        models: [{name: m, training: t, parameters: {batch: 4}}]
        experiments: [{name: e, tags: {year: 2026}}]
        ---
        trainings:
          - {name: t, experiment: e, image: i, flavor: f, source: a/b, entry_point: t.py, model_upload: a/c, hyperparameters: {n: 1, on: true}}
        """)
    )
    assert [(item.kind.section, item.name) for item in items] == [
        ("experiments", "e"),
        ("trainings", "t"),
        ("models", "m"),
    ]
    assert items[0].fields == {"tags": {"year": "2026"}}
    assert items[1].fields["hyperparameters"] == {"n": 1, "on": True}
    assert items[2].fields == {"training": "t", "parameters": {"batch": "4"}}


def test_all_faults_are_told_at_once_each_with_its_place() -> None:
    faults = faults_of("""
        experimints: []
        experiments: {name: e}
        trainings:
          - {name: t, image: i, flavor: f, source: s, entry_pont: train.py, model_upload: m}
          - just a name
        models:
          - {name: [1]}
          - {name: m}
          - {name: m}
        nas_volumes: [{name: v, absent: perhaps}]
        notebooks: [{name: n, image: i, flavor: f, boot_storage_size: 10, data_storage_size: 10, idle_stop_minutes: soon}]
    """)
    assert "did you mean 'experiments'" in faults["experimints"]
    assert faults["experiments"] == "must be a list"
    assert faults["trainings[0].entry_point"] == "must be given"
    assert "did you mean 'entry_point'" in faults["trainings[0].entry_pont"]
    assert "must have fields" in faults["trainings[1]"]
    assert faults["models[0].name"] == "must be text"
    assert faults["notebooks[0].idle_stop_minutes"] == "must be a whole number"
    assert "stands in the file already (models[1])" in faults["models[2]"]
    assert faults["nas_volumes[0].absent"] == "must be true or false"


@pytest.mark.parametrize(
    ("text", "place", "sentence"),
    [
        ("", "file", "is empty"),
        ("a: [", "file", "is not YAML"),
        ("- 1", "file", "must have sections"),
        ("!!python/object:os.system {}", "file", "is not YAML"),
    ],
)
def test_what_is_no_file_of_resources(text: str, place: str, sentence: str) -> None:
    assert sentence in faults_of(text)[place]


def test_what_should_be_absent_needs_no_more_than_its_name() -> None:
    [item] = read_manifest("stages: [{name: s, endpoint: e, absent: true}]")
    assert item.is_absent
    assert item.key == "e/s"
    assert faults_of("stages: [{name: s, absent: true}]") == {"stages[0].endpoint": "must be given"}


def test_models_are_served_as_the_file_says_and_a_key_is_no_field() -> None:
    [item] = read_manifest(
        "endpoints: [{name: e, flavor: f, models: {plain: /a, quick: {path: /b, max_batch_size: 32}, free: }}]"
    )
    assert served_models(["a", "b"]) == {"a": Served(), "b": Served()} and served_models("a") == {"a": Served()}
    assert served_models(item.fields["models"]) == {
        "plain": Served(path="/a"),
        "quick": Served(path="/b", max_batch_size=32),
        "free": Served(),
    }
    faults = faults_of("""
        endpoints:
          - {name: e, flavor: f, models: {m: {batch: 4}, n: /x}}
          - {name: g, flavor: f, models: m, idempotency_key: k}
    """)
    assert faults["endpoints[0].models.m.batch"] == "is not known"
    assert "is not known" in faults["endpoints[1].idempotency_key"]
