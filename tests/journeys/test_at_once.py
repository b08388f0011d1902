"""Requests that contradict each other and come at the same moment: one of them is refused, and nothing is left that points nowhere."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from journey_platform import MakePlatform, RunningPlatform
from journey_rest import Rest
from journey_scripts import SMALL_FLAVOR, upload_script

pytestmark = pytest.mark.slow

ROUND_COUNT = 8

Request = tuple[str, str, dict[str, Any] | None]


@pytest.fixture(params=["sqlite", "postgresql"])
def any_platform(request: pytest.FixtureRequest, make_platform: MakePlatform) -> RunningPlatform:
    """A platform on each database."""
    if request.param == "sqlite":
        return make_platform()
    return make_platform("--database-url", request.getfixturevalue("pg_url"))


def test_creations_and_deletions_at_the_same_moment(any_platform: RunningPlatform, tmp_path: Path) -> None:
    client = any_platform.client
    (tmp_path / "model").mkdir()
    (tmp_path / "model/model.pkl").write_bytes(pickle.dumps(None))
    client.storage.upload(tmp_path / "model", "race/model")
    upload_script(any_platform, tmp_path / "source", "race/source", "print('hello')")
    flavor_id = client.flavors.id_of(SMALL_FLAVOR)
    training = {
        "trainingName": "race",
        "imageId": client.images.id_of("Ubuntu 22.04 CPU Python 3.11 Training"),
        "flavorId": flavor_id,
        "sourceDirUri": client.storage.uri("race/source"),
        "entryPoint": "train.py",
        "modelUploadUri": client.storage.uri("race/output"),
    }
    with Rest(any_platform) as rest, ThreadPoolExecutor(8) as pool:
        for number in range(ROUND_COUNT):
            model = client.models.create(f"model-{number}", artifact="race/model", format="SKLEARN")
            experiment = client.experiments.create(f"experiment-{number}")
            client.experiments.wait(experiment.id, timeout_seconds=60.0)
            endpoint = {
                "endpointName": f"endpoint-{number}",
                "flavorId": flavor_id,
                "endpointModelResourceList": [{"modelId": model.id}],
            }
            requests: list[Request] = [
                ("POST", "/endpoints", endpoint),
                ("POST", "/endpoints", endpoint),
                ("DELETE", f"/models/{model.id}", None),
                ("POST", "/trainings", training | {"experimentId": experiment.id}),
                ("DELETE", f"/experiments/{experiment.id}", None),
                ("POST", "/experiments", {"experimentName": f"twin-{number}"}),
                ("POST", "/experiments", {"experimentName": f"twin-{number}"}),
            ]
            answers = list(pool.map(lambda each: rest.call(*each), requests))
            assert all(answer.status_code < 500 for answer in answers), [answer.text for answer in answers]
            made, made_too, model_gone, trained, experiment_gone, *twins = map(is_done, answers)
            assert not (made and made_too), "two endpoints of one name"
            assert not (model_gone and (made or made_too)), "an endpoint whose model is gone"
            assert not (experiment_gone and trained), "a training whose experiment is gone"
            assert sorted(twins) == [False, True], "two experiments of one name, or none"
        assert {item.name for item in client.experiments.list()} >= {f"twin-{n}" for n in range(ROUND_COUNT)}


def is_done(answer: httpx.Response) -> bool:
    """Whether the platform did what was asked."""
    return answer.status_code == 200
