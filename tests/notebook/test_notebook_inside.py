"""What runs inside a notebook, piece by piece, without Jupyter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modelyard.notebook import default_environment, kernels, startup, surroundings
from modelyard.notebook.conda import environments, shell
from modelyard.notebook.conda.problems import Problem
from modelyard.notebook.conda.virtual import requirement
from modelyard.notebook.plan import BadPlan, Plan
from modelyard.notebook.telling import Telling


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A notebook in a directory, with this interpreter's environment as its image."""
    for name in ("root/easymaker/custom-conda-envs", "root/easymaker/cont-init.d", "run"):
        (tmp_path / name).mkdir(parents=True)
    home = f"{tmp_path}/root"
    return Plan(
        home=home, data=f"{home}/easymaker", base=f"{tmp_path}/opt/conda", image=sys.prefix, run=f"{tmp_path}/run",
        title="Python 3.11 (CPU)", variables={"EM_REGION": "kr1"}, token="secret", authority="-----PEM-----",
    )  # fmt: skip


def test_a_plan_goes_there_and_back() -> None:
    plan = Plan("/h", "/d", "/b", "/i", "/r", "t", {"A": "1"}, idle_minutes=5, base_url="/x/")
    assert Plan.from_json(plan.to_json()) == plan
    for text in ("{", "[]", "{}", '{"home": 1}'):
        with pytest.raises(BadPlan):
            Plan.from_json(text)


def test_the_default_environment_has_the_image_s_packages_and_room_for_more(plan: Plan) -> None:
    default_environment.make_default_environment(plan)
    default_environment.make_default_environment(plan)
    code = "import sys, httpx; print(sys.prefix); print(httpx.__file__)"
    done = subprocess.run([f"{plan.base}/bin/python", "-c", code], capture_output=True, text=True, check=True)
    prefix, file = done.stdout.splitlines()
    assert prefix == plan.base
    assert file.startswith(sys.prefix)
    assert default_environment.installed(plan) == []
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    Path(f"{plan.base}/lib/{version}/site-packages/thing-1.2.dist-info").mkdir()
    assert default_environment.installed(plan) == ["thing==1.2"]
    default_environment.remember(plan, ["thing==1.2"])
    assert default_environment.take_lost(plan) == ["thing==1.2"]
    assert Path(f"{plan.state}/{default_environment.LOST}").read_text() == "thing==1.2\n"
    assert default_environment.take_lost(plan) == [], "told once"
    Path(f"{plan.state}/default-packages.json").write_text('{"no": 1}')
    assert default_environment.take_lost(plan) == []


def test_every_environment_is_a_kernel_while_it_is_there(plan: Plan) -> None:
    place = Path(plan.environments)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "mine")], check=True)
    (place / "empty").mkdir()
    (place / "file").write_text("")
    found = kernels.find_environments(plan)
    assert [each.name for each in found] == ["mine"]
    assert found[0].version == f"{sys.version_info.major}.{sys.version_info.minor}"
    kernels.write_kernels(plan, found)
    specifications = Path(plan.base) / "share/jupyter/kernels"
    assert sorted(each.name for each in specifications.iterdir()) == ["env-mine", "python3"]
    specification = json.loads((specifications / "env-mine/kernel.json").read_text())
    assert specification["argv"][0] == f"{place}/mine/bin/python"
    assert specification["display_name"].startswith("mine")
    kernels.write_kernels(plan, [])
    assert [each.name for each in specifications.iterdir()] == ["python3"]


def test_start_up_scripts_run_in_order_and_say_how_it_went(plan: Plan, capfd: pytest.CaptureFixture[str]) -> None:
    scripts = {
        "20-second": "#!/bin/sh\necho second $EM_REGION\n",
        "10-first": "#!/bin/sh\necho first; exit 7\n",
        "30-broken": "no interpreter line",
    }
    for name, text in scripts.items():
        path = Path(plan.scripts) / name
        path.write_text(text)
        path.chmod(0o755)
    (Path(plan.scripts) / "40-plain").write_text("#!/bin/sh\n")
    telling = Telling(f"{plan.run}/report.json")
    variables = surroundings.user_variables(plan, "")
    for _ in range(2):
        startup.run_scripts(plan, variables, telling)
    results = {each.name: each.read_text() for each in Path(plan.scripts).glob("*.*")}
    assert results["10-first.exitcode"] == "7\n"
    assert results["10-first.output"] == "first\n"
    assert results["20-second.output"] == "second kr1\n"
    assert results["30-broken.exitcode"] == "127\n"
    assert "#!" in results["30-broken.output"]
    assert results["40-plain.exitcode"] == "126\n"
    assert len(results) == 8, "results are not taken for scripts"
    together = Path(plan.data, "cont-init.output").read_text()
    assert together.index("first") < together.index("second")
    report = json.loads(Path(plan.run, "report.json").read_text())
    assert report["steps"][0]["detail"] == "4 scripts, 3 failed"
    assert "secret" not in together + json.dumps(report)


def test_what_users_find_around_them(plan: Plan) -> None:
    variables = surroundings.user_variables(plan, "http://127.0.0.1:9")
    assert variables["EM_REGION"] == "kr1"
    assert variables["HTTPS_PROXY"] == variables["https_proxy"] == "http://127.0.0.1:9"
    assert "127.0.0.1" in variables["NO_PROXY"]
    bundle = Path(variables["REQUESTS_CA_BUNDLE"]).read_text()
    assert bundle.rstrip().endswith("-----PEM-----")
    assert len(bundle) > 1000, "the system's authorities are in it too"
    surroundings.write_shell_start(plan)
    subprocess.run(["bash", "-n", f"{plan.home}/.bashrc"], check=True)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy>=1.2,<2", "numpy>=1.2,<2"),
        ("python=3.11", "python==3.11.*"),
        ("numpy=1.26=py311_0", "numpy==1.26.*"),
    ],
)
def test_conda_s_words_in_pip_s(spec: str, wanted: str) -> None:
    assert requirement(spec) == wanted


def test_what_is_no_package_is_refused() -> None:
    with pytest.raises(Problem, match="is not a package"):
        requirement("--index-url=http://x")


def test_activating_and_back(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    default_environment.make_default_environment(plan)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", f"{plan.environments}/mine"], check=True)
    for name, value in surroundings.user_variables(plan, "").items():
        monkeypatch.setenv(name, value)
    assert [each.name for each in environments.listed()] == ["base", "mine"]
    lines = shell.script(["activate", "mine"]).splitlines()
    assert f"export CONDA_PREFIX={plan.environments}/mine" in lines
    path = next(line for line in lines if line.startswith("export PATH="))
    assert path.startswith(f"export PATH={plan.environments}/mine/bin:{plan.base}/bin:")
    for name in ("CONDA_PREFIX", "PATH"):
        value = next(line for line in lines if line.startswith(f"export {name}=")).partition("=")[2]
        monkeypatch.setenv(name, value)
    back = shell.script(["deactivate"])
    assert f"export PATH={plan.base}/bin:" in back
    assert f"{plan.environments}/mine" not in back
    with pytest.raises(Problem, match="there is no environment 'other'"):
        shell.script(["activate", "other"])
    with pytest.raises(Problem, match="use --prefix"):
        environments.named("a/b")


def test_conda_s_command_line(plan: Plan) -> None:
    default_environment.make_default_environment(plan)
    environment = {**os.environ, **surroundings.user_variables(plan, "")}

    def conda(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "modelyard.notebook.conda", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert conda("--version").stdout.startswith("conda ")
    listed = conda("env", "list").stdout
    assert "base" in listed
    assert plan.base in listed
    for arguments, words in (
        (("create", "python=3.11"), "say which environment"),
        (("install", "-n", "none", "x"), "there is no environment"),
        (("remove", "-n", "base", "--all"), "can't be removed"),
        (("create", "-n", "x", "-c", f"file://{plan.run}/nothing"), "no channel answers"),
    ):
        done = conda(*arguments)
        assert done.returncode == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
