"""The variables that point the official client at a platform, in the words of each shell."""

from __future__ import annotations

import json
import subprocess

import pytest

from modelyard.cli.exports import Form, Way, WayClosed, printed, variables

KNOWN = {
    "apiUrl": "http://127.0.0.1:10090",
    "appKey": "key",
    "accessToken": "it's a $token",
    "secretKey": "secret",
    "region": "kr1",
    "tenantId": "tenant",
    "caBundle": "/home/me/my certificates/bundle.pem",
}


def test_a_shell_reads_back_what_was_meant() -> None:
    wanted = variables(KNOWN, Way.UNCHANGED)
    script = printed(wanted, Form.SH) + '\nprintf "%s|%s" "$EM_ACCESS_TOKEN" "$REQUESTS_CA_BUNDLE"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={})
    assert done.stdout == "it's a $token|/home/me/my certificates/bundle.pem"


def test_powershell_quotes_by_doubling_and_knows_no_case() -> None:
    lines = printed(variables(KNOWN, Way.UNCHANGED), Form.POWERSHELL).splitlines()
    assert "$env:EM_ACCESS_TOKEN = 'it''s a $token'" in lines
    assert len({line.lower() for line in lines}) == len(lines)


@pytest.mark.parametrize("way", list(Way))
def test_json_is_one_object_of_texts(way: Way) -> None:
    assert json.loads(printed(variables(KNOWN, way), Form.JSON)) == variables(KNOWN, way)


@pytest.mark.parametrize(
    ("way", "names"),
    [
        (Way.URL, {"EM_APPKEY", "EM_REGION", "EM_ACCESS_TOKEN", "EM_API_URL"}),
        (Way.TOKEN, {"EM_APPKEY", "EM_REGION", "EM_API_URL", "EM_TOKEN", "EM_GROUP_ID", "REQUESTS_CA_BUNDLE"}),
        (Way.LOCAL, {"EM_APPKEY", "EM_REGION", "EM_ACCESS_TOKEN", "EM_SECRET_KEY", "EM_PROFILE"}),
    ],
)
def test_each_way_has_its_variables(way: Way, names: set[str]) -> None:
    assert variables(KNOWN, way).keys() == names


def test_what_can_not_work_is_said() -> None:
    with pytest.raises(WayClosed, match="--http-port 10090"):
        variables({**KNOWN, "apiUrl": "http://127.0.0.1:8080"}, Way.LOCAL)
    with pytest.raises(WayClosed, match="--way token"):
        variables({**KNOWN, "caBundle": None}, Way.UNCHANGED)
    assert "REQUESTS_CA_BUNDLE" not in variables({**KNOWN, "caBundle": None}, Way.TOKEN)
