"""What kernels, terminals and scripts find around them: variables, certificates, the shell's start."""

from __future__ import annotations

import contextlib
import os

from modelyard.notebook.plan import Plan
from modelyard.notebook.telling import write_whole

_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
_LOOPBACK = "localhost,127.0.0.1,::1"
_BASHRC = """\
# Made anew at each start of the notebook: this file is on boot storage. What should stay goes to ~/easymaker.
export PS1='($CONDA_DEFAULT_ENV) \\u:\\w\\$ '
. "%(base)s/etc/profile.d/conda.sh"
alias ls='ls --color=auto'
[ -f "%(data)s/.bashrc" ] && . "%(data)s/.bashrc"
"""


def user_variables(plan: Plan, proxy_url: str) -> dict[str, str]:
    """The environment of everything that the user runs; `proxy_url` is empty where the network is the machine's."""
    system = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    bundle = _certificate_bundle(plan)
    variables = {
        **system,
        **plan.variables,
        "HOME": plan.home,
        "SHELL": "/bin/bash",
        "PATH": f"{plan.base}/bin:{plan.image}/bin:{_system_path()}",
        "CONDA_PREFIX": plan.base,
        "CONDA_DEFAULT_ENV": "base",
        "CONDA_SHLVL": "1",
        "CONDA_EXE": f"{plan.base}/bin/conda",
        "CONDA_ENVS_PATH": plan.environments,
        "JUPYTER_PATH": f"{plan.base}/share/jupyter",
        "JUPYTER_CONFIG_PATH": f"{plan.base}/etc/jupyter",
        # What somebody has set in JupyterLab stays.
        "JUPYTERLAB_SETTINGS_DIR": f"{plan.state}/lab/user-settings",
        "JUPYTERLAB_WORKSPACES_DIR": f"{plan.state}/lab/workspaces",
        "MODELYARD_NOTEBOOK_RUN": plan.run,
        "MODELYARD_NOTEBOOK_IMAGE": plan.image,
    }
    if bundle:
        variables |= dict.fromkeys(_BUNDLE_VARIABLES, bundle)
        variables["MODELYARD_CA_FILE"] = bundle
    if proxy_url:
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            variables[name] = variables[name.lower()] = proxy_url
        variables["NO_PROXY"] = variables["no_proxy"] = _LOOPBACK
    return variables


def write_shell_start(plan: Plan) -> None:
    """The file that every interactive shell reads."""
    write_whole(f"{plan.home}/.bashrc", _BASHRC % {"data": plan.data, "base": plan.base})
    write_whole(f"{plan.home}/.profile", '[ -n "$BASH_VERSION" ] && . ~/.bashrc\n')


def _certificate_bundle(plan: Plan) -> str:
    """The system's authorities and the platform's own in one file, since clients take only one."""
    if not plan.authority:
        return ""
    given = [os.environ.get(name, "") for name in _BUNDLE_VARIABLES]
    parts: list[str] = []
    for path in (*given, *_BUNDLES):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            parts.append(file.read().rstrip())
            break
    target = f"{plan.run}/authorities.pem"
    write_whole(target, "\n".join([*parts, plan.authority.strip(), ""]))
    return target


def _system_path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
