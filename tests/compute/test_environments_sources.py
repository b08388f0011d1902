"""pip's configuration, said to uv."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.compute.backends.local.build_errors import BuildFailed
from modelyard.compute.backends.local.package_sources import (
    PackageSources,
    as_uv_variables,
    parse_pip_configuration,
    read_package_sources,
    tool_environment,
)


@pytest.fixture
def pip_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file of pip that is in force, with no PIP_ variable beside it."""
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(path))
    return path


def test_places_of_the_configuration_file_reach_uv(pip_conf: Path) -> None:
    pip_conf.write_text(
        "[global]\nindex-url = http://127.0.0.1:9/simple\nextra-index-url =\n  http://127.0.0.1:8/a\n  http://127.0.0.1:8/b\n"
        "[install]\nfind-links = /srv/wheels /srv/more\n"
    )
    variables = read_package_sources().uv_environment()
    assert variables["UV_DEFAULT_INDEX"] == "http://127.0.0.1:9/simple"
    assert variables["UV_INDEX"] == "http://127.0.0.1:8/a http://127.0.0.1:8/b"
    assert variables["UV_FIND_LINKS"] == "/srv/wheels,/srv/more"
    assert variables["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_a_variable_of_pip_wins_over_its_file(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_conf.write_text("[global]\nfind-links = /srv/wheels\n")
    monkeypatch.setenv("PIP_FIND_LINKS", "/elsewhere")
    assert read_package_sources().uv_environment()["UV_FIND_LINKS"] == "/elsewhere"


def test_what_the_user_told_uv_wins(pip_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip_conf.write_text("[global]\nindex-url = http://127.0.0.1:9/simple\n")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:7/simple")
    assert read_package_sources().uv_environment()["UV_DEFAULT_INDEX"] == "http://127.0.0.1:7/simple"


def test_a_broken_configuration_stops_the_build(pip_conf: Path) -> None:
    pip_conf.write_text("index-url = without a section\n")
    with pytest.raises(BuildFailed, match="pip's configuration can't be read"):
        read_package_sources()


def test_sections_in_pips_order() -> None:
    listing = ":env:.find-links='/c'\nglobal.find-links='/a'\ninstall.find-links='/b'\nglobal.no-index='true'\ndownload.find-links='/d'\n"
    assert parse_pip_configuration(listing) == {"find-links": "/c", "no-index": "true"}


def test_no_configuration_means_no_variables() -> None:
    assert as_uv_variables({}) == {}
    assert as_uv_variables({"no-index": "false", "quiet": "1"}) == {}


def test_no_index_means_no_index(pip_conf: Path) -> None:
    pip_conf.write_text("[install]\nno-index = on\n")
    assert read_package_sources().uv_options() == ("--no-index",)
    assert PackageSources({"no-index": "false"}).uv_options() == ()
    assert PackageSources({}).uv_options() == ()


def test_the_callers_own_python_work_does_not_bend_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV", "PIP_TARGET", "UV_PROJECT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:3128")
    environment = tool_environment()
    assert not {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV", "PIP_TARGET", "UV_PROJECT"} & environment.keys()
    assert environment["HTTPS_PROXY"] == "http://127.0.0.1:3128"
