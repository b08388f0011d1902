"""Scripts in several processes: the wait for the others, the variables, torchrun's command, who keeps the output, and later attempts."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from modelyard.runner.gang import joined, meet
from modelyard.runner.outcomes import STOPPED, StepFailed
from modelyard.runner.plan import PYTHON, BadPlan, Gang, Main, Plan, Resume, Upload
from modelyard.runner.stop import Stop

PEERS = [
    {"index": 1, "host": "b.test", "ports": {"master": 11, "worker": 12}, "interface": "eth7"},
    {"index": 0, "host": "a.test", "ports": {"master": 21, "worker": 22}, "interface": "eth7"},
]
SAY = "import json, os, sys; print(json.dumps([dict(os.environ), sys.argv[1:]]))"


def gang(tmp_path: Path, node: int = 0, **fields: Any) -> Gang:
    return Gang(node=str(node), size=2, peers_path=str(tmp_path / "peers.json"), **fields)


def introduce(tmp_path: Path) -> None:
    (tmp_path / "draft").write_text(json.dumps(PEERS))
    (tmp_path / "draft").rename(tmp_path / "peers.json")


def test_nothing_of_the_script_runs_before_the_introduction(launch, tmp_path) -> None:
    main = Main(argv=(PYTHON, "-c", SAY), env={"LOGS": str(tmp_path / "logs")}, cwd="/")
    run = launch(Plan(main=main, gang=gang(tmp_path, 1, shared=("LOGS",))))
    deadline = time.monotonic() + 20
    while not run.report_path.exists() or json.loads(run.report_path.read_text())["step"] != "waiting":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)
    assert run.output() == ""
    introduce(tmp_path)
    ran = run.end()
    env, _ = json.loads(ran.lines[0])
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    assert [env[name] for name in names] == ["1", "2", "0", "1", "1", "a.test", "21"]
    assert json.loads(env["TF_CONFIG"]) == {
        "cluster": {"worker": ["a.test:22", "b.test:12"]},
        "task": {"type": "worker", "index": 1},
    }
    assert [env[name] for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")] == ["eth7", "eth7"]
    assert env["LOGS"] == f"{tmp_path}/logs/instance-1"
    assert (tmp_path / "logs/instance-1").is_dir()
    assert ran.steps == ["waiting", "running"]


def test_the_first_instance_keeps_its_places_and_users_keep_their_interface(tmp_path) -> None:
    introduce(tmp_path)
    mine = gang(tmp_path, shared=("LOGS",))
    main = Main(argv=(PYTHON, "train.py"), env={"LOGS": "/logs", "GLOO_SOCKET_IFNAME": "own0"}, cwd="/")
    env = joined(main, mine, meet(mine, Stop())).env
    assert (env["LOGS"], env["GLOO_SOCKET_IFNAME"], env["RANK"]) == ("/logs", "own0", "0")


@pytest.mark.parametrize(
    ("argv", "rest"),
    [
        ((PYTHON, "/s/train.py", "--a", "b c"), ["/s/train.py", "--a", "b c"]),
        (("/bin/bash", "/s/train.sh", "--a", "b"), ["--no-python", "/bin/bash", "/s/train.sh", "--a", "b"]),
    ],
)
def test_torchrun(tmp_path, argv, rest) -> None:
    introduce(tmp_path)
    mine = gang(tmp_path, 1, processes=3)
    main = joined(Main(argv=argv, env={}, cwd="/"), mine, meet(mine, Stop()))
    place = "--nnodes=2 --node-rank=1 --nproc-per-node=3 --master-addr=a.test --master-port=21"
    assert list(main.argv) == [PYTHON, "-m", "torch.distributed.run", *re.split("[ =]", place), *rest]
    assert "RANK" not in main.env  # each of its processes gets one of its own
    assert "LOCAL_RANK" not in main.env


def test_a_stop_while_waiting(launch, tmp_path) -> None:
    run = launch(Plan(main=Main(argv=(PYTHON, "-c", "print('never')"), env={}, cwd="/"), gang=gang(tmp_path)))
    deadline = time.monotonic() + 20
    while not run.report_path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.terminate()
    ran = run.end(20)
    assert ran.code == STOPPED
    assert "never" not in ran.output


@pytest.mark.parametrize("content", ["", "[]", "7", '[{"index": 0}, {"index": 1}]', "[{}]", json.dumps(PEERS[:1])])
def test_an_introduction_that_cannot_be_read_is_told(tmp_path, content) -> None:
    (tmp_path / "peers.json").write_text(content)
    with pytest.raises(StepFailed, match=r"can't be read|tells of"):
        meet(gang(tmp_path), Stop())


@pytest.mark.parametrize("node", ["2", "-1", "x", "", "⟦modelyard:index⟧"])
def test_a_wrong_node_is_a_bad_plan(tmp_path, node) -> None:
    plan = Plan(main=Main(argv=("true",), env={}, cwd="/"), gang=gang(tmp_path)._replace(node=node))
    with pytest.raises(BadPlan, match=r"plan.gang.node: expected"):
        Plan.from_json(plan.to_json())


def test_only_the_first_instance_keeps_the_output(launch, store, token, tmp_path) -> None:
    introduce(tmp_path)
    for node in (0, 1):
        source = tmp_path / f"model{node}"
        code = f"import pathlib; pathlib.Path({str(source)!r}, 'm').write_text('of {node}')"
        upload = Upload(source=str(source), label="obs://out", container_url=store.url("c"), prefix="out")
        plan = Plan(
            main=Main(argv=(PYTHON, "-c", code), env={}, cwd="/"),
            uploads=(upload,),
            token=token,
            gang=gang(tmp_path, node),
        )
        ran = launch(plan).end()
        assert ran.code == 0
    assert store.content("c", "out/m") == b"of 0"
    assert f"{source} of this instance is not kept: instance 0 keeps obs://out" in ran.output


@pytest.mark.parametrize(
    ("attempt", "has_content", "seen"), [(0, True, "first"), (1, False, "first"), (1, True, "own")]
)
def test_a_later_attempt_begins_with_what_was_kept(launch, tmp_path, attempt, has_content, seen) -> None:
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    if has_content:
        (directory / "c").write_text("x")
    main = Main(argv=(PYTHON, "-c", "import os; print(os.environ['INPUT'])"), env={"INPUT": "first"}, cwd="/")
    resume = Resume(attempt=str(attempt), variable="INPUT", directory=str(directory))
    ran = launch(Plan(main=main, resume=resume)).end()
    assert {"first": "first", "own": str(directory)}[seen] in ran.lines
    assert ("attempt 2: it goes on" in ran.output) == (seen == "own")


def test_the_report_tells_of_a_failure_before_anything_is_kept(launch, store, token, tmp_path, fault) -> None:
    source = tmp_path / "checkpoint"
    store.faults.append(fault("PUT", "ck/c", count=1, pause_seconds=3.0))
    code = f"import pathlib, sys; pathlib.Path({str(source)!r}, 'c').write_text('x'); sys.exit(5)"
    upload = Upload(source=str(source), label="obs://ck", container_url=store.url("c"), prefix="ck", on="always")
    run = launch(Plan(main=Main(argv=(PYTHON, "-c", code), env={}, cwd="/"), uploads=(upload,), token=token))
    run.wait_for("uploading to obs://ck")
    report = json.loads(run.report_path.read_text())
    assert (report["step"], report["exit_code"]) == ("uploading", 5)
    assert report["ended_at"].endswith("Z")
    assert run.end().code == 5


@pytest.mark.parametrize("how", ["alone", "ignoring", "forking"])
def test_what_left_its_session_is_ended_with_the_script(launch, tmp_path, how) -> None:
    pids = tmp_path / "pids"
    code = f"""
import os, signal, sys, time
def daemon(work):
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        os.setsid()
        work()
def note():
    with open({str(pids)!r}, "a") as file: file.write(f"{{os.getpid()}}\\n")
def plain():
    note(); time.sleep(600)
def ignoring():
    signal.signal(signal.SIGTERM, signal.SIG_IGN); note(); time.sleep(600)
def forking():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        note()
        if os.fork(): os._exit(0)
        time.sleep(0.005)
daemon({{"alone": plain, "ignoring": ignoring, "forking": forking}}[{how!r}])
while not os.path.exists({str(pids)!r}): time.sleep(0.01)
print("ready"); {"" if how == "alone" else "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"}
"""
    run = launch(Plan(main=Main(argv=(PYTHON, "-c", code), env={}, cwd="/"), grace_seconds=0.5))
    run.wait_for("ready")
    if how != "alone":
        run.process.send_signal(signal.SIGTERM)
    assert run.end(30).code == (0 if how == "alone" else 137)
    left = [pid for pid in pids.read_text().split() if Path(f"/proc/{pid}").exists() and _is_ours(pid)]
    assert left == []


def _is_ours(pid: str) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] != "Z" and b"forking" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
