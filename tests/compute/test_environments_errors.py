"""What uv and pip really printed, and the sentence that a person gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard.compute.backends.local.build_errors import explain, last_line, mask_credentials

NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of six==9.9.9 and you require six==9.9.9, we can conclude that your requirements are unsatisfiable.
"""
NO_PACKAGE = """\
error: No solution found when resolving dependencies
  cause: Because no-such-package-x was not found in the package registry and you require no-such-package-x==1, we can conclude that \
your requirements are unsatisfiable.
"""
NO_WHEEL = """\
error: No solution found when resolving dependencies
  cause: Because tensorflow-cpu==2.15.1 has no wheels with a matching Python ABI tag (e.g., `cp313`) and you require \
tensorflow-cpu==2.15.1, we can conclude that your requirements are unsatisfiable.
hint: You require CPython 3.13 (`cp313`), but we only found wheels for `tensorflow-cpu` (v2.15.1) with the following Python ABI tags: \
`cp39`, `cp310`, `cp311`
"""
CONFLICT = """\
error: No solution found when resolving dependencies
  cause: Because requests>=2.34.2 depends on urllib3>=1.26,<3 and you require requests==2.34.2, we can conclude that you require \
urllib3>=1.26,<3.
         And because you require urllib3==1.20, we can conclude that your requirements are unsatisfiable.
"""
PIP_NO_VERSION = """\
WARNING: Location 'file:///srv/simple/six/' is ignored: it is neither a file nor a directory.
ERROR: Could not find a version that satisfies the requirement six==9.9.9 (from versions: 1.15.0, 1.16.0)
ERROR: No matching distribution found for six==9.9.9
"""
NO_NETWORK = """\
error: Request failed after 3 retries in 5.1s
  cause: Failed to fetch: http://127.0.0.1:1/simple/pip/
  cause: error sending request for url (http://127.0.0.1:1/simple/pip/)
  cause: client error (Connect)
  cause: tcp connect error
  cause: Connection refused (os error 111)
"""
NOT_COMPILED = """\
Resolved 2 packages in 185ms
   Building numpy==1.20.0
error: Failed to build `numpy==1.20.0`
  cause: The build backend returned an error
         Traceback (most recent call last):
           File "/home/me/.cache/uv/builds-v0/setuptools/__init__.py", line 9, in <module>
         ModuleNotFoundError: No module named 'distutils'
hint: `distutils` was removed from the standard library in Python 3.12.
"""
FULL = """\
error: Failed to install: numpy-1.26.4-cp311-cp311-manylinux_2_17_x86_64.whl (numpy==1.26.4)
  cause: failed to copy file from /a to /b: No space left on device (os error 28)
"""
REFUSED = """\
error: Failed to fetch: https://me:secret@index.example/simple/six/
  cause: HTTP status client error (401 Unauthorized) for url (https://me:secret@index.example/simple/six/)
"""


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (NO_VERSION, "offers six==9.9.9 for Python 3.11.7 on x86_64"),
        (PIP_NO_VERSION, "offers six==9.9.9 for Python 3.11.7 on x86_64"),
        (NO_PACKAGE, "offers no-such-package-x==1 for Python"),
        (NO_WHEEL, "offers tensorflow-cpu==2.15.1 for Python 3.11.7 on x86_64"),
        (
            CONFLICT,
            "contradict each other: requests>=2.34.2 depends on urllib3>=1.26,<3 and you require requests==2.34.2; you require",
        ),
        (NO_NETWORK, "No package index could be reached (Connection refused (os error 111))"),
        (
            NOT_COMPILED,
            "numpy==1.20.0 has no ready wheel for Python 3.11.7 on x86_64 and compiling it failed: ModuleNotFoundError",
        ),
        (FULL, "No space is left on the disk that holds /srv/environments"),
        (REFUSED, "refused access"),
        ("", "the installer said nothing"),
        ("some new kind of trouble\n\n", "failed: some new kind of trouble"),
    ],
)
def test_output_becomes_one_sentence(output: str, said: str) -> None:
    sentence = explain(output, name="My image", python="3.11.7", machine="x86_64", root=Path("/srv/environments"))
    assert said in sentence
    assert "\n" not in sentence
    assert len(sentence) <= 500


def test_credentials_never_show() -> None:
    sentence = explain(REFUSED, name="i", python="3.11", machine="x86_64", root=Path("/r"))
    assert "secret" not in sentence
    assert (
        mask_credentials("see https://user:pass@host/simple and http://host/x")
        == "see https://***@host/simple and http://host/x"
    )


def test_last_line_is_bare() -> None:
    assert last_line("a\n  cause: failed to look up\nhint: try again\n\n") == "failed to look up"
