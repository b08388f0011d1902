"""Notebooks by `apply`: made, kept, changed where they can be, and taken away."""

from __future__ import annotations

import pytest
from journey_platform import RunningPlatform

from modelyard.sdk.apply.plan import Action, carry_out, make_plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("notebook_image")]

_FILE = """
notebooks:
  - name: from-a-file
    image: Ubuntu 22.04 CPU Python Notebook
    flavor: c2.c1m1
    boot_storage_size: 10
    data_storage_size: {size}
    nas: {{pictures: "nas://{volume}:/deep"}}
    idle_stop_minutes: {minutes}
    absent: {absent}
"""


def test_a_notebook_is_made_kept_changed_and_taken_away(platform: RunningPlatform) -> None:
    client = platform.client
    volume = client.nas_volumes.create("of-a-file").id

    def text(size: int = 10, minutes: int = 60, absent: str = "false") -> str:
        return _FILE.format(volume=volume, size=size, minutes=minutes, absent=absent)

    carry_out(client, make_plan(client, text()))
    made = client.notebooks.get("from-a-file")
    assert (made.idle_stop_minutes, made.nas_mount_list[0].nas_uri) == (60, f"nas://{volume}:/deep")
    assert make_plan(client, text()).is_done

    carry_out(client, make_plan(client, text(minutes=0)))
    assert client.notebooks.get("from-a-file").idle_stop_minutes is None
    assert make_plan(client, text(minutes=0)).is_done

    (step,) = make_plan(client, text(size=20, minutes=0)).steps
    assert (step.action, [change.field for change in step.changes]) == (Action.BLOCKED, ["data_storage_size"])

    carry_out(client, make_plan(client, text(absent="true")), may_delete=True, timeout_seconds=120)
    assert client.notebooks.list(name="from-a-file") == []
