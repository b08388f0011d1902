"""The plan survives its way through JSON, and a bad one is told by its field."""

import json

import pytest

from modelyard.runner.plan import ALWAYS, PYTHON, BadPlan, Fetch, Main, Plan, Required, Upload

FULL = Plan(
    main=Main(argv=(PYTHON, "train.py", "--a", "", "q\"'\n한글"), env={"EM_HPS": '{"a": 1}'}, cwd="/workspace"),
    fetches=(
        Fetch(target="/workspace/source", label="obs://x", container_url="http://h/v1/AUTH_a/c", prefix="p"),
        Fetch(target="/workspace/data", label="nas://y", path="/mnt/y", is_required=False),
    ),
    must_exist=(Required("/workspace/source/train.py", "It is not there."),),
    requirements="/workspace/source/requirements.txt",
    image_digest="abc",
    cache_dir="/var/cache/modelyard",
    uploads=(
        Upload(
            source="/workspace/ck", label="obs://z", container_url="http://h/v1/AUTH_a/c", sync_seconds=5, on=ALWAYS
        ),
    ),
    token="t",
    report_path="/run/modelyard/report.json",
    grace_seconds=3,
)


def test_a_plan_comes_back_as_it_was() -> None:
    assert Plan.from_json(FULL.to_json()) == FULL


def test_a_minimal_plan_has_defaults() -> None:
    plan = Plan.from_json('{"main": {"argv": ["true"], "cwd": "/"}}')
    assert plan == Plan(main=Main(argv=("true",), env={}, cwd="/"))
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"main": None}, "plan.main: expected an object"),
        ({"main": {"argv": [], "cwd": "/"}}, "plan.main.argv: expected a program"),
        ({"main": {"argv": ["a\0b"], "cwd": "/"}}, r"plan.main.argv\[0\]: a NUL"),
        ({"main": {"argv": ["a"], "env": {"A=B": "x"}, "cwd": "/"}}, "can't be an environment variable"),
        ({"main": {"argv": ["a"], "env": {"A": 1}, "cwd": "/"}}, "plan.main.env: expected an object of texts"),
        ({"main": {"argv": "a", "cwd": "/"}}, "plan.main.argv: expected a list"),
        ({"fetches": [{"target": "/t", "label": "l"}]}, r"plan.fetches\[0\]: expected either container_url or path"),
        ({"fetches": [{"target": 3, "label": "l"}]}, r"plan.fetches\[0\].target: expected a text"),
        (
            {"fetches": [{"target": "/t", "label": "l", "container_url": "u", "is_file": True}]},
            "prefix: expected the object",
        ),
        (
            {"uploads": [{"source": "/s", "label": "l", "path": "/p", "on": "maybe"}]},
            r"uploads\[0\].on: expected 'success'",
        ),
        (
            {"uploads": [{"source": "/s", "label": "l", "path": "/p", "sync_seconds": -1}]},
            "sync_seconds: expected a number",
        ),
        (
            {"replace_process": True, "uploads": [{"source": "/s", "label": "l", "path": "/p"}]},
            "leaves nobody to upload",
        ),
        ({"requirements": "/r", "cache_dir": ""}, "plan.cache_dir"),
        ({"grace_seconds": "long"}, "plan.grace_seconds: expected a number"),
        ({"replace_process": 1}, "plan.replace_process: expected true or false"),
    ],
)
def test_a_bad_field_is_named(change: dict, message: str) -> None:
    content = {"main": {"argv": ["true"], "cwd": "/"}, **change}
    with pytest.raises(BadPlan, match=message):
        Plan.from_json(json.dumps(content))


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '"x"'])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(BadPlan):
        Plan.from_json(text)
