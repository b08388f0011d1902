"""What each command does. Each takes the options of its command line; what is wrong is a `Problem`."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
from collections.abc import Generator, Sequence

from modelyard.notebook.conda import cloning, configuration, description, environments, history, linked, shell
from modelyard.notebook.conda.description import Description
from modelyard.notebook.conda.environments import Environment, find, listed, named
from modelyard.notebook.conda.problems import Problem
from modelyard.notebook.conda.tools import Sources, tool_for_new, tool_of

VERSION = "25.1.0"
"""The release whose command line this one follows, for scripts that look."""


def create(options: argparse.Namespace) -> None:
    """A new environment, of packages or like another."""
    environment = _new(options)
    if options.clone:
        if options.packages:
            raise Problem("--clone takes no packages; install them afterwards")
        source = find(options.clone)
        if source is None:
            raise Problem(f"there is no environment '{options.clone}'; 'conda env list' shows those that there are")
        with _making(environment):
            cloning.clone(source, environment)
    else:
        specs = _specs(options)
        with _making(environment):
            tool_for_new(_sources(options)).create(environment, specs)
    _tell_made(environment)


def install(options: argparse.Namespace) -> None:
    """More packages."""
    environment = _existing(options)
    specs = _specs(options)
    if not specs:
        raise Problem("name at least one package")
    tool_of(environment, _sources(options)).install(environment, specs)
    if environment.is_base:
        print("# The default environment is fresh after the next stop. Keep packages in an environment of your own.")


def update(options: argparse.Namespace) -> None:
    """Newer packages."""
    environment = _existing(options)
    if not options.packages and not options.all:
        raise Problem("name at least one package, or --all")
    tool_of(environment, _sources(options)).update(environment, options.packages)


def remove(options: argparse.Namespace) -> None:
    """Fewer packages, or no environment."""
    environment = _existing(options)
    if options.all:
        _delete(environment)
    elif not options.packages:
        raise Problem("name at least one package, or --all for the whole environment")
    else:
        tool_of(environment, _sources(options)).remove(environment, options.packages)


def list_packages(options: argparse.Namespace) -> int:
    """Name, version, and where it came from."""
    environment = _existing(options)
    print(f"# packages in environment at {environment.path}:\n#")
    if environment.is_of_channels:
        for package in linked.installed(environment):
            channel = package.channel.rstrip("/").rpartition("/")[2]
            print(f"{package.name:<25} {package.version:<15} {package.build:<20} {channel}".rstrip())
        for spec in _of_pip(environment):
            name, _, version = spec.partition("==")
            print(f"{name:<25} {version:<15} {'pypi_0':<20} pypi")
        return 0
    return subprocess.call([environment.python, "-m", "pip", "list", "--disable-pip-version-check"])


def run(options: argparse.Namespace) -> int:
    """A program in an environment."""
    environment = _existing(options)
    if not options.command:
        raise Problem("name the program to run")
    variables = os.environ | shell.variables(environment)
    try:
        return subprocess.call(shell.command(environment, options.command), env=variables)
    except OSError as error:
        raise Problem(f"{options.command[0]} can't be run: {error.strerror}") from None


def info(options: argparse.Namespace) -> None:
    """Where things are."""
    if options.envs:
        env_list(options)
        return
    print(f"active environment : {os.environ.get('CONDA_DEFAULT_ENV', 'base')}")
    print(f"active env location : {environments.active().path}")
    print(f"envs directories : {named('')}")
    print(f"channels : {', '.join(configuration.channels()) or configuration.DEFAULT}")
    print(f"conda version : {VERSION} (Modelyard's)")


def config(options: argparse.Namespace) -> None:
    """Channels to look in, kept in `~/easymaker/.condarc`, or in the home's where that has some."""
    changes = [(key, value) for pairs in (options.add, options.append, options.remove) for key, value in pairs]
    for key, _ in changes:
        if key != "channels":
            raise Problem(f"'{key}' has no effect here; only 'channels' can be set")
    configuration.add([value for _, value in reversed(options.add)])
    configuration.add([value for _, value in options.append], is_last=True)
    configuration.remove([value for _, value in options.remove])
    if not changes:
        present = configuration.channels() or [configuration.DEFAULT]
        print("".join(["channels:\n", *(f"  - {channel}\n" for channel in present)]))


def env_list(_options: argparse.Namespace) -> None:
    """All environments; the active one has a star."""
    print("# conda environments:\n#")
    active = environments.active().path
    for environment in listed():
        mark = "*" if environment.path == active else " "
        print(f"{environment.name if environment.stays or environment.is_base else '':<24} {mark} {environment.path}")


def env_create(options: argparse.Namespace) -> None:
    """A new environment as a file describes it."""
    wanted = description.read(options.file)
    environment = _new(options, wanted.name)
    with _making(environment):
        tool_for_new(Sources(described=wanted.channels)).create(environment, wanted.packages)
        _install_of_pip(environment, wanted)
    _tell_made(environment)


def env_update(options: argparse.Namespace) -> None:
    """What a file describes, in an environment that is there."""
    wanted = description.read(options.file)
    environment = _existing(options, wanted.name)
    if wanted.packages:
        tool_of(environment, Sources(described=wanted.channels)).install(environment, wanted.packages)
    _install_of_pip(environment, wanted)


def env_export(options: argparse.Namespace) -> None:
    """The file that describes an environment."""
    environment = _existing(options)
    channels: tuple[str, ...] = ()
    packages: tuple[str, ...] = (f"python={environment.version}",) if environment.version else ()
    if environment.is_of_channels:
        found = linked.installed(environment)
        channels = tuple(dict.fromkeys(package.channel.rstrip("/") for package in found if package.channel))
        packages = tuple(f"{package.name}={package.version}={package.build}" for package in found)
        if options.from_history:
            packages = tuple(history.requested(environment.path))
    of_pip = () if options.from_history else tuple(_of_pip(environment))
    text = description.text(Description(environment.name, channels, packages, of_pip))
    if not options.file:
        print(text, end="")
        return
    try:
        with open(options.file, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Problem(f"{options.file} can't be written: {error.strerror}") from None


def env_remove(options: argparse.Namespace) -> None:
    """A whole environment."""
    _delete(_existing(options))


def clean(_options: argparse.Namespace) -> None:
    """What was fetched and is not needed any more. It lies on boot storage."""
    home = os.path.expanduser("~")
    for place in (f"{home}/.cache/rattler", f"{home}/.cache/uv", f"{home}/.cache/pip"):
        shutil.rmtree(place, ignore_errors=True)
    print("What was fetched for environments is removed; the environments are as they were.")


def init(_options: argparse.Namespace) -> None:
    """Nothing is needed."""
    print("no change: every terminal is ready for 'conda activate'")


def activate(options: argparse.Namespace) -> None:
    """Only a shell can do this to itself."""
    raise Problem(
        f"'conda {options.word}' changes the shell that it is typed in, and this one is not ready for it. In a script, begin with "
        "'source /opt/conda/etc/profile.d/conda.sh', or use 'conda run -n NAME PROGRAM'"
    )


@contextlib.contextmanager
def _making(environment: Environment) -> Generator[None]:
    """What could not be made leaves nothing behind."""
    was_there = os.path.lexists(environment.path)
    try:
        yield
    except (Problem, OSError, KeyboardInterrupt):
        if not was_there:
            shutil.rmtree(environment.path, ignore_errors=True)
        raise


def _tell_made(environment: Environment) -> None:
    print(f"#\n# To activate this environment, use\n#\n#     $ conda activate {environment.shown}\n#")
    if not environment.stays:
        print(f"# It is on boot storage and goes with the next stop. What is below {named('')} stays.")


def _delete(environment: Environment) -> None:
    if environment.is_base:
        raise Problem("the default environment can't be removed")
    shutil.rmtree(environment.path, ignore_errors=True)
    if os.path.exists(environment.path):
        raise Problem(f"{environment.path} could not be removed")


def _of_pip(environment: Environment) -> Sequence[str]:
    """What pip has installed, as `name==version`; nothing where the environment has no pip."""
    argv = [environment.python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except OSError:
        return []
    names = {package.name for package in linked.installed(environment)} if environment.is_of_channels else set[str]()
    lines = [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []
    return [line for line in lines if line and line.partition("==")[0].lower().replace("_", "-") not in names]


def _install_of_pip(environment: Environment, wanted: Description) -> None:
    if wanted.of_pip and subprocess.call([environment.python, "-m", "pip", "install", *wanted.of_pip]) != 0:
        raise Problem("pip could not install what the file lists under 'pip:'; see above")


def _sources(options: argparse.Namespace) -> Sources:
    return Sources(given=options.channel, only=options.override_channels)


def _new(options: argparse.Namespace, name: str = "") -> Environment:
    environment = _target(options, name)
    if environment.exists:
        raise Problem(f"there is already an environment at {environment.path}; remove it first, or use 'conda install'")
    return environment


def _target(options: argparse.Namespace, name: str = "") -> Environment:
    if options.prefix:
        return Environment(os.path.abspath(options.prefix))
    if options.name or name:
        return find(options.name or name) or Environment(named(options.name or name))
    raise Problem("say which environment: --prefix PATH or --name NAME")


def _existing(options: argparse.Namespace, name: str = "") -> Environment:
    if not options.prefix and not options.name and not name:
        return environments.active()
    environment = _target(options, name)
    if not environment.exists:
        raise Problem(f"there is no environment at {environment.path}; 'conda env list' shows those that there are")
    return environment


def _specs(options: argparse.Namespace) -> list[str]:
    specs = list(options.packages)
    for path in options.file or ():
        if path.endswith((".yml", ".yaml")):
            raise Problem(f"{path} describes an environment: use 'conda env create -f {path}'")
        try:
            with open(path, encoding="utf-8") as file:
                specs += [line.strip() for line in file if line.strip() and not line.startswith("#")]
        except (OSError, UnicodeDecodeError) as error:
            raise Problem(f"{path} can't be read: {getattr(error, 'strerror', error)}") from None
    return specs
