"""`conda …`: reads the command line, does it, says what is wrong in one line."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from modelyard.notebook.conda import commands, shell
from modelyard.notebook.conda.problems import Problem

_WRONG_COMMAND_LINE = 2


def main(arguments: Sequence[str]) -> int:
    """One command; its exit code."""
    try:
        if arguments and arguments[0] in ("shell.posix", "shell.bash", "shell.zsh"):
            print(shell.script(arguments[1:]))
            return 0
        options = _parser().parse_args(arguments)
        return int(options.run(options) or 0)
    except Problem as problem:
        print(f"conda: {problem}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, for one
        print(
            f"conda: {error.filename or 'the environment'} can't be read or written: {error.strerror}", file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """Says what there is where a word is unknown."""

    def error(self, message: str) -> NoReturn:
        self.exit(_WRONG_COMMAND_LINE, f"{self.prog}: {message}\n{self.format_help()}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            there_is = ", ".join(name for name in action.choices if name not in ("activate", "deactivate"))
            self.exit(
                _WRONG_COMMAND_LINE,
                f"conda: there is no command '{value}' here; there are {there_is}. See 'conda --help'.\n",
            )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="conda", description="Environments that stay when the notebook stops.")
    parser.add_argument("-V", "--version", action="version", version=f"conda {commands.VERSION}")
    there = parser.add_subparsers(required=True, metavar="COMMAND")

    where = _Parser(add_help=False)
    where.add_argument("-p", "--prefix", help="the environment's directory")
    where.add_argument("-n", "--name", help="the environment's name")
    where.add_argument("-y", "--yes", action="store_true", help="nothing is asked anyway")
    where.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    source = _Parser(add_help=False)
    source.add_argument("-c", "--channel", action="append", default=[], help="look here first; may be repeated")
    source.add_argument("--override-channels", action="store_true", help="look only in those that are named here")
    packages = _Parser(add_help=False)
    packages.add_argument("--file", action="append", help="packages, one a line")
    packages.add_argument("packages", nargs="*", help="for example python=3.11 numpy")

    create = there.add_parser("create", parents=[where, source, packages], help="make an environment")
    create.add_argument("--clone", metavar="NAME or PATH", help="make it like this one")
    create.set_defaults(run=commands.create)
    install = there.add_parser("install", parents=[where, source, packages], help="install packages")
    install.set_defaults(run=commands.install)
    for word in ("update", "upgrade"):
        update = there.add_parser(word, parents=[where, source], help="install newer packages")
        update.add_argument("--all", action="store_true", help="all that were asked for")
        update.add_argument("packages", nargs="*")
        update.set_defaults(run=commands.update)
    for word in ("remove", "uninstall"):
        remove = there.add_parser(word, parents=[where, source], help="remove packages, or all")
        remove.add_argument("--all", action="store_true", help="the whole environment")
        remove.add_argument("packages", nargs="*")
        remove.set_defaults(run=commands.remove)
    there.add_parser("list", parents=[where], help="list packages").set_defaults(run=commands.list_packages)
    run = there.add_parser("run", parents=[where], help="run a program in an environment")
    run.add_argument("--no-capture-output", "--live-stream", action="store_true", help=argparse.SUPPRESS)
    run.add_argument("command", nargs=argparse.REMAINDER)
    run.set_defaults(run=commands.run)
    info = there.add_parser("info", help="where things are")
    info.add_argument("-e", "--envs", action="store_true", help="list environments")
    info.set_defaults(run=commands.info)
    config = there.add_parser("config", help="show or set the channels")
    for words in (("--add", "--prepend"), ("--append",), ("--remove",)):
        config.add_argument(*words, nargs=2, action="append", default=[], metavar=("channels", "CHANNEL"))
    config.add_argument("--show", "--show-sources", "--get", nargs="*", help=argparse.SUPPRESS)
    config.set_defaults(run=commands.config)
    clean = there.add_parser("clean", help="remove what was fetched")
    for words in (
        ("-a", "--all"),
        ("-y", "--yes"),
        ("-p", "--packages"),
        ("-t", "--tarballs"),
        ("-i", "--index-cache"),
    ):
        clean.add_argument(*words, action="store_true", help=argparse.SUPPRESS)
    clean.set_defaults(run=commands.clean)
    _add_env(there.add_parser("env", help="make, list, describe or remove environments"), where)
    init = there.add_parser("init", help="nothing is needed: every terminal is ready")
    init.add_argument("shells", nargs="*")
    init.set_defaults(run=commands.init)
    for word in ("activate", "deactivate"):
        activate = there.add_parser(word)
        activate.add_argument("rest", nargs=argparse.REMAINDER)
        activate.set_defaults(run=commands.activate, word=word)
    return parser


def _add_env(env: argparse.ArgumentParser, where: argparse.ArgumentParser) -> None:
    there = env.add_subparsers(required=True, metavar="COMMAND")
    there.add_parser("list", help="all of them").set_defaults(run=commands.env_list)
    for word, does, meaning in (
        ("create", commands.env_create, "make one as a file describes it"),
        ("update", commands.env_update, "install what a file describes"),
    ):
        described = there.add_parser(word, parents=[where], help=meaning)
        described.add_argument("-f", "--file", default="environment.yml", help="environment.yml if not given")
        described.set_defaults(run=does)
    export = there.add_parser("export", parents=[where], help="print the file that describes one")
    export.add_argument("-f", "--file", help="write it there")
    export.add_argument("--from-history", action="store_true", help="only what was asked for")
    export.set_defaults(run=commands.env_export)
    there.add_parser("remove", parents=[where], help="remove one").set_defaults(run=commands.env_remove)


def _leave(code: int) -> NoReturn:
    """End at once: the solver's threads go on for a moment, and the interpreter's own way out has been seen to crash on them."""
    with contextlib.suppress(OSError):  # who read the output has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main(sys.argv[1:]))
