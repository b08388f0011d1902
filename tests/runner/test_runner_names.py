"""Names that must never become paths."""

import pytest

from modelyard.runner.names import UnsafeName, check_name


@pytest.mark.parametrize(
    "name", ["a", "a/b/c.txt", ".hidden", "..a", "a..", "한글/데이터.csv", "a b/c d", "%2e%2e/x", "x" * 255]
)
def test_ordinary_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            ".",
            "./a",
            "a//b",
            "a/",
            "a\0b",
            "a\\b",
            "..\\x",
            "a\nb",
        ),
        *("a\x7f", "\udc80", "y" * 256, "한" * 86),
    ],
)
def test_tricks_are_refused(name: str) -> None:
    with pytest.raises(UnsafeName):
        check_name(name)
