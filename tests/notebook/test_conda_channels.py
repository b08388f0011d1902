"""`conda` with channels: environments of packages from a directory or a server, and what people do with them."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import modelyard

sys.path.insert(0, str(Path(__file__).parent))

from conda_channel import PLACEHOLDER, add_package

pytestmark = pytest.mark.slow

SCRIPT = f"#!/bin/sh\necho $(cat {PLACEHOLDER}/share/words) from {PLACEHOLDER}\n"


@pytest.fixture
def channel(tmp_path: Path) -> Path:
    """`native` (for this machine) needs `words` (for all); a space in its path."""
    place = tmp_path / "my channel"
    hooks = {
        "etc/conda/activate.d/w.sh": "export WORDS=heard\n",
        "etc/conda/deactivate.d/w.sh": "export WORDS=silent\n",
    }
    add_package(place, "noarch", "words", "1.0", {"share/words": "hello", **hooks})
    add_package(place, "noarch", "words", "1.1", {"share/words": "hello again", **hooks})
    add_package(place, "linux-64", "native", "2.0", {"bin/native": SCRIPT}, depends=["words"])
    return place


class Conda:
    """The command, as the terminals of a notebook have it."""

    def __init__(self, place: Path, image: str) -> None:
        self.home, self.environments = place / "root", place / "root/easymaker/custom-conda-envs"
        self.environments.mkdir(parents=True)
        self.python = f"{image}/bin/python"
        self.variables = {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "CONDA_EXE": f"{place}/opt/conda/bin/conda",
            "CONDA_ENVS_PATH": str(self.environments),
            "MODELYARD_NOTEBOOK_IMAGE": image,
            "PYTHONPATH": str(Path(modelyard.__file__).parent.parent),
            # Nothing outside is asked in a test, wherever it runs.
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9"),
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-s", "-P", "-m", "modelyard.notebook.conda", *arguments]
        done = subprocess.run(command, env=self.variables, capture_output=True, text=True, check=False, cwd=self.home)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def does(self, *arguments: str) -> str:
        """What it prints where it must work."""
        done = self.run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    def refuses(self, *arguments: str) -> str:
        """What it says where it must not."""
        done = self.run(*arguments)
        assert done.returncode in (1, 2), (arguments, done.stdout)
        return done.stderr

    def native(self, name: str) -> str:
        return subprocess.run(
            [self.environments / name / "bin/native"], capture_output=True, text=True, check=True
        ).stdout

    def versions(self, name: str) -> dict[str, str]:
        """Of all packages of an environment."""
        lines = [line.split() for line in self.does("list", "-n", name).splitlines() if not line.startswith("#")]
        return {words[0]: words[1] for words in lines}


@pytest.fixture
def conda(tmp_path: Path, image: str) -> Conda:
    return Conda(tmp_path, image)


def test_the_life_of_an_environment_of_a_channel(conda: Conda, channel: Path) -> None:
    url = f"file://{str(channel).replace(' ', '%20')}"
    made = conda.does("create", "-y", "--prefix", "easymaker/custom-conda-envs/one", "-c", url, "native", "words=1.0")
    assert "conda activate one" in made
    assert conda.native("one") == f"hello from {conda.environments}/one\n"
    assert conda.versions("one") == {"native": "2.0", "words": "1.0"}
    assert "there is already an environment" in conda.refuses("create", "-n", "one", "-c", url, "native")

    # A copy is its own: it stays when the first one changes, and names its own directory.
    conda.does("create", "-n", "two", "--clone", "one")
    (conda.environments / "one/bin/tool").write_text(f"#!{conda.environments}/one/bin/python\n")
    conda.does("create", "-n", "three", "--clone", "one")
    assert (conda.environments / "three/bin/tool").read_text() == f"#!{conda.environments}/three/bin/python\n"
    (conda.environments / "one/more").mkdir()
    conda.does("create", "-p", f"{conda.environments}/one/more/within", "--clone", "one")
    assert not (conda.environments / "one/more/within/more/within").exists()
    conda.does("update", "-n", "one", "-c", url, "words")
    assert conda.versions("one") == {"native": "2.0", "words": "1.1"}
    assert conda.native("two") == f"hello from {conda.environments}/two\n"

    listed = conda.does("env", "list")
    assert [line.split()[0] for line in listed.splitlines()[2:]] == ["one", "three", "two"]
    assert "heard" in conda.does("run", "-n", "one", "sh", "-c", "echo $WORDS")
    shell = f'eval "$({conda.python} -s -P -m modelyard.notebook.conda shell.bash $1 $2)"; echo "$WORDS $CONDA_DEFAULT_ENV"; '
    both = f"set -- activate one; {shell} set -- deactivate; {shell}"
    done = subprocess.run(["/bin/bash", "-c", both], env=conda.variables, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[0] == "heard one"

    # What is needed goes with what it is needed by.
    conda.does("install", "-n", "two", "-c", url, "words=1.1")
    assert conda.versions("two")["words"] == "1.1"
    conda.does("remove", "-n", "two", "-c", url, "words")
    assert conda.versions("two") == {}
    assert not (conda.environments / "two/bin/native").exists()
    conda.does("install", "-n", "two", "-c", url, "words")
    conda.does("env", "remove", "-n", "two")
    assert not (conda.environments / "two").exists()


def test_channels_of_files_of_settings_and_of_a_server(conda: Conda, channel: Path) -> None:
    description = conda.home / "environment.yml"
    description.write_text(
        f"name: told\nchannels: ['{channel}']\ndependencies: [native, words=1.0]\nvariables: {{A: 1}}\n"
    )
    assert "variables has no effect" in conda.does("env", "create")
    assert conda.native("told").startswith("hello from")
    conda.does("env", "export", "-n", "told", "-f", "again.yml")
    conda.does("env", "create", "-f", "again.yml", "-n", "again")
    assert conda.versions("again") == conda.versions("told")

    # From `.condarc`, by hand and by the command, and from a server. What was configured before, or would be looked in anyway, stays.
    handler = functools.partial(Silent, directory=str(channel))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        conda.does("config", "--add", "channels", f"http://127.0.0.1:{server.server_port}")
        shown = f"channels:\n  - http://127.0.0.1:{server.server_port}\n  - conda-forge\n"
        assert conda.does("config", "--show", "channels").strip() == shown.strip()
        conda.does("create", "-n", "served", "native")
        assert conda.native("served").startswith("hello again from")
        server.shutdown()
    own = conda.home / ".condarc"
    own.write_text("ssl_verify: false\nchannels: [one]\n")
    assert "It goes with the next stop" in conda.does("config", "--append", "channels", "two")
    assert own.read_text() == "ssl_verify: false\nchannels:\n- one\n- two\n"
    conda.does("config", "--remove", "channels", "one", "--remove", "channels", "two")
    assert "127.0.0.1" in conda.does("config", "--show", "channels"), "the other file counts again"
    own.unlink()
    (conda.home / "easymaker/.condarc").write_text(f"channels:\n  - {channel}\n")
    conda.does("create", "-n", "configured", "native")
    assert "channels' must be a list" in _with_condarc(conda, "channels: 7\n")
    assert "can't be read" in _with_condarc(conda, "channels: [")


def test_what_is_wrong_is_told(conda: Conda, channel: Path) -> None:
    url = f"file://{str(channel).replace(' ', '%20')}"
    (conda.home / "odd.yml").write_text("- just a list\n")
    for arguments, words in (
        (("create", "-n", "x", "-c", f"{url}-not", "native"), "there is no such directory"),
        (("create", "-n", "x", "-c", str(conda.home), "native"), "it has no index"),
        (("create", "-n", "x", "-c", url, "-c", "http://127.0.0.1:9", "native"), "http://127.0.0.1:9 (["),
        (
            ("create", "-n", "x", "-c", url, "-c", "my channel", "native"),
            "https://conda.anaconda.org/my channel (URL can't",
        ),
        (("create", "-n", "x", "-c", url, "missing"), "No candidates were found for missing"),
        (("create", "-n", "x", "-c", url, "words=1.0", "native", "words=1.1"), f"(in {url})"),
        (("create", "-n", "x", "--clone", "none"), "there is no environment 'none'"),
        (("create", "-n", "x", "--file", "some.yml"), "conda env create -f some.yml"),
        (("env", "create", "-f", "none.yml"), "No such file"),
        (("env", "create", "-f", "odd.yml"), "it needs 'dependencies:'"),
        (("config", "--add", "ssl_verify", "false"), "only 'channels' can be set"),
        (("search", "numpy"), "there is no command 'search' here; there are create, install"),
        (("env", "rename"), "there are list, create"),
        (("activate", "x"), "source /opt/conda/etc/profile.d/conda.sh"),
    ):
        told = conda.refuses(*arguments)
        assert words in told, (arguments, told)
    assert [each.name for each in conda.environments.iterdir()] == [], "what can't be made leaves nothing"


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        del format, args


def _with_condarc(conda: Conda, text: str) -> str:
    (conda.home / "easymaker/.condarc").write_text(text)
    return conda.refuses("create", "-n", "y", "native")
