"""Whole runs in a process of their own: exits, signals, arguments, reports."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.runner.outcomes import BAD_PLAN, CANNOT_EXECUTE, NO_ENTRY_POINT, NO_SOURCE, STOPPED, UPLOAD_FAILED
from modelyard.runner.plan import ALWAYS, PYTHON, Fetch, Main, Plan, Required, Upload


def files(store) -> list[str]:
    return [name for name in store.names("c") if ".modelyard-checkpoint" not in name]


def script(code: str, *arguments: str, env: dict[str, str] | None = None, cwd: str = "/", **options) -> Plan:
    return Plan(main=Main(argv=(PYTHON, "-c", code, *arguments), env=env or {}, cwd=cwd), **options)


def test_a_run_that_succeeds(launch) -> None:
    ran = launch(script("print('hello')")).end()
    assert ran.code == 0
    assert ran.lines == ["hello", "[modelyard] The process ended with exit code 0.", "[modelyard] done"]
    assert (ran.report["step"], ran.report["progress"], ran.report["exit_code"]) == ("done", 1.0, 0)
    assert ran.steps == ["running"]
    assert ran.report["steps"][0]["seconds"] > 0


@pytest.mark.parametrize("code", [1, 3, 64, 255])
def test_the_scripts_exit_code_is_the_runs(launch, code) -> None:
    ran = launch(script(f"import sys; sys.exit({code})")).end()
    assert ran.code == code
    assert (ran.report["step"], ran.report["exit_code"]) == ("failed", code)
    assert f"exit code {code}" in ran.report["message"]


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (11, "SIGSEGV"), (6, "SIGABRT")])
def test_an_end_by_a_signal_is_named(launch, number, name) -> None:
    ran = launch(script(f"import os; os.kill(os.getpid(), {number})")).end()
    assert ran.code == 128 + number
    assert name in ran.report["message"]
    assert ("memory" in ran.report["message"]) == (number == 9)


ARGUMENTS = [
    "--a b",
    "",
    "q\"'`$(id)",
    "two\nlines",
    "한글",
    "*",
    "-",
    "--",
    "\\",
    "{interpreter}",
    "&& rm",
    "a=b",
    " \t ",
]


def test_arguments_and_environment_arrive_untouched(launch, monkeypatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_RUNNER", "x")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    env = {"EM_HPS": json.dumps({"a": "q\"'\n"}), "EMPTY": "", "EM_HP_한": "글\n", "PATH_LIKE": "{x}"}
    code = "import sys, os, json; print(json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), os.isatty(0)]))"
    ran = launch(script(code, *ARGUMENTS, env=env, cwd="/usr")).end()
    arguments, seen, cwd, _ = json.loads(ran.lines[0])
    assert arguments == ARGUMENTS
    assert cwd == "/usr"
    assert {name: seen[name] for name in env} == env
    assert set(seen) - set(env) <= {"HOME", "PATH", "LANG", "TMPDIR", "PYTHONUNBUFFERED", "LC_CTYPE"}


def test_the_environments_programs_come_first(launch) -> None:
    ran = launch(script("import os; print(os.environ['PATH'].split(':')[0])")).end()
    assert ran.lines[0] == str(Path(sys.executable).parent)


def test_directories_are_made_before_the_start(launch, tmp_path) -> None:
    wanted = tmp_path / "deep/checkpoint"
    ran = launch(script(f"import os; print(os.path.isdir({str(wanted)!r}))", directories=(str(wanted),))).end()
    assert ran.lines[0] == "True"


def test_lines_arrive_at_once(launch) -> None:
    run = launch(script("import time; print('early'); time.sleep(60)", grace_seconds=0.2))
    run.wait_for("early")
    run.terminate()
    assert run.end().code == 128 + 15


@pytest.mark.parametrize("argv", [("/no/such/program",), ("no-such-program-anywhere",), ("/etc/passwd",)])
def test_a_program_that_cannot_start_is_told(launch, argv) -> None:
    ran = launch(Plan(main=Main(argv=argv, env={}, cwd="/"))).end()
    assert ran.code == CANNOT_EXECUTE
    assert f"'{argv[0]}' can't be started: " in ran.report["message"]


def test_a_working_directory_that_is_not_there_is_told(launch) -> None:
    ran = launch(script("", cwd="/no/such/place")).end()
    assert ran.code == CANNOT_EXECUTE


def test_a_missing_entry_point_lists_what_is_there(launch, store, token, tmp_path) -> None:
    store.put("c", "src/main.py", "print(1)")
    store.put("c", "src/model.py", "")
    target = tmp_path / "source"
    plan = script(
        "print('never')",
        token=token,
        fetches=(Fetch(target=str(target), label="obs://s", container_url=store.url("c"), prefix="src"),),
        must_exist=(Required(str(target / "train.py"), "The entry point train.py is not in obs://s."),),
    )
    ran = launch(plan).end()
    assert ran.code == NO_ENTRY_POINT
    assert ran.report["message"] == "The entry point train.py is not in obs://s. There is: main.py, model.py."
    assert "never" not in ran.output


def test_a_failed_fetch_ends_the_run_before_the_script(launch, store, token, tmp_path) -> None:
    fetch = Fetch(target=str(tmp_path / "in"), label="obs://d", container_url=store.url("c"), prefix="none")
    ran = launch(script("print('never')", fetches=(fetch,), token=token)).end()
    assert (ran.code, ran.report["message"]) == (NO_SOURCE, "obs://d has no objects.")
    assert ran.report["steps"][0]["step"] == "fetching"


@pytest.mark.parametrize("content", ["", "nonsense", "{}", '{"main": {"argv": [], "cwd": "/"}}'])
def test_a_bad_plan_is_told(tmp_path, content) -> None:
    (tmp_path / "plan.json").write_text(content)
    command = [sys.executable, "-m", "modelyard.runner", str(tmp_path / "plan.json")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    ran = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert ran.returncode == BAD_PLAN
    assert ran.stdout.startswith("[modelyard] failed: the plan can't be read")
    assert subprocess.run(command[:-1], capture_output=True, env=env, check=False).returncode == BAD_PLAN


@pytest.fixture
def work(tmp_path: Path, store, token):
    """A plan with an output and checkpoints in the store, for a script that finds them in OUT and CK."""

    def make(code: str, **options) -> Plan:
        out, checkpoints = tmp_path / "out", tmp_path / "ck"
        uploads = (
            Upload(source=str(out), label="obs://out", container_url=store.url("c"), prefix="out"),
            Upload(
                source=str(checkpoints),
                label="obs://ck",
                container_url=store.url("c"),
                prefix="ck",
                sync_seconds=0.2,
                on=ALWAYS,
            ),
        )
        prelude = "import os, sys, time, signal, pathlib; out = pathlib.Path(os.environ['OUT']); ck = pathlib.Path(os.environ['CK'])\n"
        env = {"OUT": str(out), "CK": str(checkpoints)}
        return script(prelude + code, env=env, uploads=uploads, token=token, **options)

    return make


def test_output_and_checkpoints_are_kept(launch, store, work) -> None:
    ran = launch(work("(out/'m').write_text('model'); (ck/'c').write_text('check')")).end()
    assert ran.code == 0
    assert files(store) == ["ck/c", "out/m"]
    assert ran.steps == ["running", "uploading", "uploading"]


def test_a_failed_run_keeps_its_checkpoints_only(launch, store, work) -> None:
    ran = launch(work("(out/'m').write_text('model'); (ck/'c').write_text('check'); sys.exit(7)")).end()
    assert ran.code == 7
    assert files(store) == ["ck/c"]


@pytest.mark.slow
def test_a_killed_run_keeps_the_checkpoints_that_were_whole(launch, store, work) -> None:
    code = "(ck/'c').write_text('check'); time.sleep(2.5); (ck/'s').mkdir(); (ck/'s/half').write_text('ha'); os.kill(os.getpid(), 9)"
    ran = launch(work(code)).end()
    assert ran.code == 137
    assert files(store) == ["ck/c"]


def test_checkpoints_go_up_during_the_run(launch, store, work) -> None:
    run = launch(
        work("(ck/'c').write_text('check'); print('written'); sys.stdin.read(); time.sleep(60)", grace_seconds=0.5)
    )
    run.wait_for("checkpoints kept in obs://ck")
    assert files(store) == ["ck/c"]
    run.terminate()
    run.end()


def test_a_stop_reaches_the_script_and_what_it_still_writes_is_kept(launch, store, work) -> None:
    code = """
def end(*_):
    (ck/'last').write_text('saved'); (out/'m').write_text('half'); sys.exit(0)
signal.signal(signal.SIGTERM, end); print('ready'); time.sleep(60)"""
    run = launch(work(code, grace_seconds=10))
    run.wait_for("ready")
    run.terminate()
    ran = run.end()
    assert ran.code == STOPPED
    assert files(store) == ["ck/last"]  # the output of a stopped run is not a model
    assert ran.report["message"] == "The run was stopped."


@pytest.mark.slow
def test_a_tree_that_ignores_the_stop_is_killed_after_the_grace(launch, store, work, tmp_path) -> None:
    code = """
import subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN); (ck/'c').write_text('x')
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print('child', child.pid, 'ready'); time.sleep(600)"""
    run = launch(work(code, grace_seconds=0.7))
    run.wait_for("ready")
    child = int(run.output().split("child ")[1].split()[0])
    begun = time.monotonic()
    run.terminate()
    ran = run.end()
    assert ran.code == 137
    assert 0.6 < time.monotonic() - begun < 10
    assert files(store) == ["ck/c"]
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2][:4]


def test_a_second_request_does_not_wait_for_the_grace(launch, work) -> None:
    run = launch(
        work("signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); time.sleep(600)", grace_seconds=300)
    )
    run.wait_for("ready")
    run.terminate()
    time.sleep(0.3)
    run.terminate()
    assert run.end(20).code == 137


def test_what_the_script_leaves_running_is_ended(launch, work) -> None:
    code = "import subprocess; print('left', subprocess.Popen(['sleep', '600']).pid, 'behind')"
    ran = launch(work(code)).end()
    left = int(ran.output.split("left ")[1].split()[0])
    stat = Path(f"/proc/{left}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
def test_a_stop_during_the_fetch(launch, store, token, tmp_path, fault) -> None:
    store.put("c", "d/a", "1")
    store.faults.append(fault("GET", "d/a", count=999, status=503))
    fetch = Fetch(target=str(tmp_path / "in"), label="obs://d", container_url=store.url("c"), prefix="d")
    run = launch(script("print('never')", fetches=(fetch,), token=token, retry_seconds=300))
    run.wait_for("Trying again")
    run.terminate()
    ran = run.end(20)
    assert ran.code == STOPPED
    assert "never" not in ran.output


@pytest.mark.slow
def test_a_stop_during_the_output_keeps_the_checkpoints(launch, store, work, fault) -> None:
    store.faults.append(fault("PUT", "out/m", count=999, status=503))
    run = launch(work("(out/'m').write_text('model'); (ck/'c').write_text('check')", retry_seconds=300))
    run.wait_for("Trying again")
    run.terminate()
    ran = run.end(20)
    assert ran.code == STOPPED
    assert files(store) == ["ck/c"]


@pytest.mark.slow
def test_a_stop_during_the_last_checkpoints_lets_them_finish(launch, store, work, fault) -> None:
    store.faults.append(fault("PUT", "ck/c", count=1, pause_seconds=2.0))
    plan = work("(ck/'c').write_text('check'); print('over')")
    run = launch(plan)
    run.wait_for("The process ended")
    run.terminate()
    assert run.end(30).code == STOPPED
    assert files(store) == ["ck/c"]


def test_an_output_that_cannot_be_kept_fails_the_run(launch, store, work, fault) -> None:
    store.faults.append(fault("PUT", "out/m", count=99, status=403, body=b"Ask the owner of c."))
    ran = launch(work("(out/'m').write_text('model')")).end()
    assert ran.code == UPLOAD_FAILED
    assert "write permission is missing" in ran.report["message"]
    assert "Ask the owner of c." in ran.report["message"]


def test_an_empty_output_is_warned_about(launch, work) -> None:
    ran = launch(work("pass")).end()
    assert ran.code == 0
    assert "is empty: there is nothing to upload to obs://out" in ran.output


def test_a_model_server_takes_the_runners_place(launch, store, token, tmp_path) -> None:
    store.put("c", "m/model", "weights")
    fetch = Fetch(target=str(tmp_path / "in"), label="obs://m", container_url=store.url("c"), prefix="m")
    code = f"import os; print(os.getpid(), open('{tmp_path}/in/model').read())"
    run = launch(script(code, fetches=(fetch,), token=token, replace_process=True))
    ran = run.end()
    assert ran.code == 0
    assert f"{run.process.pid} weights" in ran.lines
    assert ran.report["step"] == "running"


def test_signals_are_as_usual_for_the_process(launch) -> None:
    plan = Plan(main=Main(argv=("/bin/sh", "-c", "grep -E 'SigBlk|SigIgn' /proc/self/status"), env={}, cwd="/"))
    ran = launch(plan).end()
    # Signals 32 and 33 belong to the C library: nobody can set them, so whoever started the tests may hand them down ignored.
    reserved = 0b11 << 31
    masks = {name: int(mask, 16) & ~reserved for name, mask in (line.split(":\t") for line in ran.lines[:2])}
    assert masks == {"SigBlk": 0, "SigIgn": 0}


def test_a_report_that_cannot_be_written_does_not_fail_the_run(tmp_path) -> None:
    plan = Plan(main=Main(argv=("true",), env={}, cwd="/"), report_path="/proc/nowhere/report.json")
    (tmp_path / "plan.json").write_text(plan.to_json())
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-m", "modelyard.runner", str(tmp_path / "plan.json")]
    assert subprocess.run(command, env=env, check=False, capture_output=True).returncode == 0
