"""`conda …`: reads the command line, does it, says what is wrong in one line."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from modelyard.notebook.conda import shell
from modelyard.notebook.conda.environments import Environment, find, listed, named
from modelyard.notebook.conda.problems import Problem
from modelyard.notebook.conda.tools import tool_for

VERSION = "25.1.0"
"""The release whose command line this one follows, for scripts that look."""


def main(arguments: Sequence[str]) -> int:
    """One command; its exit code."""
    if arguments and arguments[0] == "shell.posix":
        return _shell(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except Problem as problem:
        print(f"conda: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _create(options: argparse.Namespace) -> None:
    environment = _target(options)
    if environment.exists:
        raise Problem(f"there is already an environment at {environment.path}; remove it first, or use 'conda install'")
    specs = _specs(options)
    tool_for(options.channel).create(environment, specs)
    print(f"#\n# To activate this environment, use\n#\n#     $ conda activate {environment.shown}\n#")
    if not environment.stays:
        print(f"# It is on boot storage and goes with the next stop. What is below {named('')} stays.")


def _install(options: argparse.Namespace) -> None:
    environment = _existing(options)
    specs = _specs(options)
    if not specs:
        raise Problem("name at least one package")
    tool_for(options.channel, environment).install(environment, specs)
    if environment.is_base:
        print("# The default environment is fresh after the next stop. Keep packages in an environment of your own.")


def _remove(options: argparse.Namespace) -> None:
    environment = _existing(options)
    if options.all:
        _delete(environment)
    elif not options.packages:
        raise Problem("name at least one package, or --all for the whole environment")
    else:
        tool_for((), environment).remove(environment, options.packages)


def _env_remove(options: argparse.Namespace) -> None:
    _delete(_existing(options))


def _delete(environment: Environment) -> None:
    if environment.is_base:
        raise Problem("the default environment can't be removed")
    shutil.rmtree(environment.path, ignore_errors=True)
    if os.path.exists(environment.path):
        raise Problem(f"{environment.path} could not be removed")


def _list(options: argparse.Namespace) -> int:
    environment = _existing(options)
    print(f"# packages in environment at {environment.path}:\n#")
    return subprocess.call([environment.python, "-m", "pip", "list", "--disable-pip-version-check"])


def _env_list(_options: argparse.Namespace) -> None:
    print("# conda environments:\n#")
    active = os.environ.get("CONDA_PREFIX", "")
    for environment in listed():
        mark = "*" if environment.path == active else " "
        print(f"{environment.name if environment.stays or environment.is_base else '':<24} {mark} {environment.path}")


def _info(options: argparse.Namespace) -> None:
    if options.envs:
        _env_list(options)
        return
    print(f"active environment : {os.environ.get('CONDA_DEFAULT_ENV', 'base')}")
    print(f"active env location : {os.environ.get('CONDA_PREFIX', '')}")
    print(f"envs directories : {named('')}")
    print(f"conda version : {VERSION} (Modelyard's)")


def _run(options: argparse.Namespace) -> int:
    environment = _existing(options)
    if not options.command:
        raise Problem("name the program to run")
    return subprocess.call(options.command, env=os.environ | shell.variables(environment))


def _init(_options: argparse.Namespace) -> None:
    print("no change: every terminal is ready for 'conda activate'")


def _shell(arguments: Sequence[str]) -> int:
    """`conda activate|deactivate`, as text that the shell evaluates."""
    try:
        print(shell.script(arguments))
    except Problem as problem:
        print(f"conda: {problem}", file=sys.stderr)
        return 1
    return 0


def _target(options: argparse.Namespace) -> Environment:
    if options.prefix:
        return Environment(os.path.abspath(options.prefix))
    if options.name:
        return find(options.name) or Environment(named(options.name))
    raise Problem("say which environment: --prefix PATH or --name NAME")


def _existing(options: argparse.Namespace) -> Environment:
    if not options.prefix and not options.name:
        return Environment(os.environ.get("CONDA_PREFIX") or sys.prefix)
    environment = _target(options)
    if not environment.exists:
        raise Problem(f"there is no environment at {environment.path}; 'conda env list' shows those that there are")
    return environment


def _specs(options: argparse.Namespace) -> list[str]:
    specs = list(options.packages)
    for path in options.file or ():
        try:
            with open(path, encoding="utf-8") as file:
                specs += [line.strip() for line in file if line.strip() and not line.startswith("#")]
        except OSError as error:
            raise Problem(f"{path} can't be read: {error.strerror}") from None
    return specs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="conda", description="Environments that stay when the notebook stops.")
    parser.add_argument("-V", "--version", action="version", version=f"conda {VERSION}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("-p", "--prefix", help="the environment's directory")
    where.add_argument("-n", "--name", help="the environment's name")
    where.add_argument("-y", "--yes", action="store_true", help="nothing is asked anyway")
    where.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("-c", "--channel", action="append", default=[], help="look here first; may be repeated")
    source.add_argument("--override-channels", action="store_true", help=argparse.SUPPRESS)
    source.add_argument("--file", action="append", help="packages, one a line")
    source.add_argument("packages", nargs="*", help="for example python=3.11 numpy")

    create = commands.add_parser("create", parents=[where, source], help="make an environment")
    create.set_defaults(run=_create)
    install = commands.add_parser("install", parents=[where, source], help="install packages")
    install.set_defaults(run=_install)
    for word in ("remove", "uninstall"):
        remove = commands.add_parser(word, parents=[where], help="remove packages, or all")
        remove.add_argument("--all", action="store_true", help="the whole environment")
        remove.add_argument("packages", nargs="*")
        remove.set_defaults(run=_remove)
    commands.add_parser("list", parents=[where], help="list packages").set_defaults(run=_list)
    info = commands.add_parser("info", help="where things are")
    info.add_argument("-e", "--envs", action="store_true", help="list environments")
    info.set_defaults(run=_info)
    run = commands.add_parser("run", parents=[where], help="run a program in an environment")
    run.add_argument("--no-capture-output", "--live-stream", action="store_true", help=argparse.SUPPRESS)
    run.add_argument("command", nargs=argparse.REMAINDER)
    run.set_defaults(run=_run)
    env = commands.add_parser("env", help="list or remove environments").add_subparsers(
        required=True, metavar="COMMAND"
    )
    env.add_parser("list").set_defaults(run=_env_list)
    env.add_parser("remove", parents=[where]).set_defaults(run=_env_remove)
    init = commands.add_parser("init", help="nothing is needed: every terminal is ready")
    init.add_argument("shells", nargs="*")
    init.set_defaults(run=_init)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
