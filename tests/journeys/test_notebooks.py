"""A notebook through the front door, as its user sees it: Jupyter, kernels, terminals, environments, stop and start."""

from __future__ import annotations

import hashlib

import pytest
from journey_jupyter import Jupyter
from journey_notebooks import START_SECONDS, created, opened
from journey_platform import RunningPlatform, eventually

from modelyard.resources.notebooks.schemas import NotebookUsage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("notebook_image")]


def test_a_notebook_from_creation_to_deletion(platform: RunningPlatform) -> None:
    client = platform.client
    volume = client.nas_volumes.create("pictures").id
    notebook = created(platform, "whole", nas={"pictures": f"nas://{volume}:/deep"}, flavor="m2.c2m4")
    stranger = Jupyter(("127.0.0.1", platform.http_port), f"{notebook.id}.nb.localhost:{platform.http_port}")
    assert stranger.call("GET", "/lab")[0] == 401
    assert b" 401 " in stranger.handshake(stranger.connect(), "/api/kernels/x/channels")
    jupyter = opened(platform, notebook.id)
    assert b"JupyterLab" in jupyter.call("GET", "/lab")[1]
    assert jupyter.run("print(sum(range(10)))") == "45\n"
    assert "uid=0(root)" in jupyter.shell("id")

    assert jupyter.run("import easymaker; print(type(easymaker.Experiment.get_list()))") == "<class 'list'>\n"
    zero = (
        "from modelyard.sdk.client import Client\nwith Client.from_environment() as c: print(len(c.flavors.list()) > 0)"
    )
    assert jupyter.run(zero) == "True\n"
    # A script as it was: the vendor's names lead here.
    client.storage.create_container("from-a-notebook")
    client.storage.grant("from-a-notebook", read=["system"], write=["system"])
    vendors = (
        "import os, easymaker\n"
        "open('/tmp/page', 'w').write('kept')\n"
        "place = f'obs://kr1-api-object-storage.nhncloudservice.com/v1/AUTH_{os.environ[\"EM_GROUP_ID\"]}/from-a-notebook/pages'\n"
        "easymaker.upload(place, '/tmp/page')\n"
        "easymaker.logger(logncrash_appkey='key').send('said in a notebook')\n"
        "print(easymaker.ObjectStorage().find_object_list(place))"
    )
    assert "['pages/page']" in jupyter.run(vendors)
    eventually(lambda: client.logs.search('body:"said in a notebook"').log_list, "the line is found")
    jupyter.shell("echo shared > /root/nas/pictures/note")
    assert (platform.home / "nas" / volume / "deep" / "note").read_text() == "shared\n"

    # What takes too much memory goes alone: the notebook, its terminals and other kernels stay.
    other = jupyter.kernel()
    other.run("kept = 7")
    full = jupyter.shell("dd if=/dev/zero of=/dev/shm/full bs=1M count=9999 2>&1; rm /dev/shm/full")
    assert "No space left on device" in full
    assert "ended with 137" in jupyter.shell("python -c 'bytearray(9 * 2**30)'; echo ended with $?")
    assert other.run("print(kept)") == "7\n"
    other.end()

    # An environment of the user's is a kernel, by conda and by uv, and what is installed into the default one is told before it goes.
    made = "cd ~/easymaker/custom-conda-envs; conda create -y --prefix ./guide python=3.11; uv venv -q plain; conda env list"
    assert "guide                      /root/easymaker/custom-conda-envs/guide" in jupyter.shell(made, 300)
    wheel = "/tmp/kept_package-1.0-py3-none-any.whl"
    make_wheel = (
        "import zipfile, base64, hashlib\n"
        f"z = zipfile.ZipFile({wheel!r}, 'w')\n"
        "z.writestr('kept_package.py', 'here = 1')\n"
        "z.writestr('kept_package-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: kept-package\\nVersion: 1.0\\n')\n"
        "z.writestr('kept_package-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "z.writestr('kept_package-1.0.dist-info/RECORD', '')\n"
        "z.close()"
    )
    assert jupyter.run(make_wheel) == ""
    jupyter.shell(
        f"conda activate guide; pip install -q --no-index {wheel}; conda deactivate; pip install -q --no-index {wheel}"
    )
    script = "printf '#!/bin/sh\\necho ran with $EM_REGION; exit 3\\n'"
    jupyter.shell(
        f"cd ~/easymaker/cont-init.d; {script} > 10-first; chmod +x 10-first; echo no > 20-second; touch /gone ~/gone"
    )
    digest = hashlib.sha256(b"x" * 5_000_000).hexdigest()
    jupyter.run("open('/root/easymaker/data.bin', 'wb').write(b'x' * 5_000_000)")
    kernels = eventually(lambda: k if "env-guide" in (k := names(jupyter)) else None, "the environment is a kernel")
    assert {"env-guide", "env-plain", "python3"} <= kernels
    shown = eventually(
        lambda: n if (n := client.notebooks.get(notebook.id)).reset_package_list else None,
        "what a stop takes is known",
        120,
    )
    assert shown.reset_package_list == ["kept_package==1.0"]
    assert shown.kept_environment_list == ["guide", "plain"]

    def measured() -> NotebookUsage | None:
        usage = client.notebooks.usage(notebook.id)
        return usage if usage.data_storage is not None and usage.data_storage.used_bytes else None

    usage = eventually(measured, "the use of the storage is measured", 60)
    assert usage.memory_bytes > 0
    assert usage.data_storage is not None
    assert 0 < usage.data_storage.used_bytes < usage.data_storage.total_bytes <= 10 * 2**30

    client.notebooks.stop(notebook.id)
    eventually(lambda: client.notebooks.get(notebook.id).notebook_status_code == "STOPPED", "it is stopped", 60)
    assert jupyter.call("GET", "/api")[0] >= 400
    assert client.notebooks.resize(notebook.id, "m2.c1m2").flavor is not None
    client.notebooks.start(notebook.id)
    client.notebooks.wait(notebook.id, timeout_seconds=START_SECONDS)
    jupyter = opened(platform, notebook.id)
    assert {"env-guide", "env-plain", "python3"} <= names(jupyter)
    assert (
        jupyter.run("import sys, kept_package; print(sys.prefix)", "env-guide")
        == "/root/easymaker/custom-conda-envs/guide\n"
    )
    assert jupyter.run("import sys; print(sys.prefix)", "env-plain") == "/root/easymaker/custom-conda-envs/plain\n"
    assert "ModuleNotFoundError" in jupyter.run("import kept_package")
    assert "kept_package==1.0" in jupyter.call("GET", "/modelyard/notices")[1].decode()
    assert jupyter.run("import os; print(os.path.exists('/gone'), os.path.exists('/root/gone'))") == "False False\n"
    digested = "import hashlib; print(hashlib.sha256(open('/root/easymaker/data.bin', 'rb').read()).hexdigest())"
    assert jupyter.run(digested) == f"{digest}\n"
    first_lines = "*(f.read_text().split('\\n')[0] for f in sorted(d.glob('*.*')))"
    results = "import pathlib; d = pathlib.Path('/root/easymaker/cont-init.d'); "
    results += f"print({first_lines}, sep='|')"
    assert jupyter.run(results).startswith("3|ran with kr1|126|/root/easymaker/cont-init.d/20-second is not executable")

    client.notebooks.delete(notebook.id, wait=True, timeout_seconds=60)
    assert not (platform.home / "compute/volumes" / notebook.id).exists()
    assert (platform.home / "nas" / volume / "deep" / "note").exists()


def names(jupyter: Jupyter) -> set[str]:
    return set(jupyter.json("GET", "/api/kernelspecs")["kernelspecs"])
