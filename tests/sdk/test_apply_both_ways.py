"""A file is applied in the same way by ordinary and by asyncio programs."""

from __future__ import annotations

from small_platform import IMAGE_NAME, SmallPlatform

from modelyard.sdk.apply import asynchronous, plan
from modelyard.sdk.apply.steps import Action
from modelyard.sdk.client import AsyncClient, Client
from modelyard.sdk.connection import Connection

TEXT = f"""
nas_volumes: [{{name: shared}}]
experiments: [{{name: e, description: first}}]
trainings:
  - {{name: t, experiment: e, image: {IMAGE_NAME}, flavor: m2.c2m4, source: a/src, entry_point: train.py, model_upload: a/out}}
models: [{{name: m, training: t}}]
endpoints: [{{name: end, flavor: m2.c2m4, models: {{m: {{max_batch_size: 8}}}}}}]
"""


async def test_by_an_asyncio_program(connection: Connection, client: Client, platform: SmallPlatform) -> None:
    told: list[str] = []
    async with AsyncClient(connection) as program:
        first = await asynchronous.make_plan(program, TEXT)
        assert {step.action for step in first.steps} == {Action.CREATE}
        await asynchronous.carry_out(
            program, first, wait=True, on_step=lambda step, word: told.append(f"{step.title} {word}")
        )
        assert (await asynchronous.make_plan(program, TEXT)).is_done
    assert told[:2] == ["NAS volume 'shared' create", "NAS volume 'shared' done"]
    assert "model 'm' waits for its training" in told
    assert client.trainings.get("t").training_status_code == "COMPLETE"
    posts = [path for method, path in platform.calls if method == "POST"]
    assert posts == ["nas-volumes", "experiments", "trainings", "models", "endpoints"]


def test_by_an_ordinary_program(client: Client) -> None:
    plan.carry_out(client, plan.make_plan(client, TEXT))
    assert plan.make_plan(client, TEXT).is_done
    changed = plan.make_plan(client, TEXT.replace("max_batch_size: 8", "max_batch_size: 9").replace("first", "second"))
    assert {step.title: step.action for step in changed.steps if step.action is not Action.KEEP} == {
        "experiment 'e'": Action.UPDATE,
        "endpoint 'end'": Action.BLOCKED,
    }
    gone = plan.make_plan(client, "experiments: [{name: e, absent: true}, {name: other, absent: true}]")
    assert [(step.item.name, step.action) for step in gone.steps] == [("other", Action.KEEP), ("e", Action.DELETE)]
