"""Pickled estimators of scikit-learn. A pickle is a program, so it is not read as one: only words that stand in its bytes are looked for."""

from __future__ import annotations

import re

from modelyard.resources.models.inspection.files import Files
from modelyard.resources.models.inspection.findings import Findings, InspectionFailed

_LOOKED_AT_BYTES = 1024 * 1024
_PROTOCOL = 0x80
_COMPRESSED = (b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00", b"\x04\x22\x4d\x18")
_VERSION = re.compile(rb"_sklearn_version(?:\x94)?\x8c.(\d+\.\d+[0-9a-z.]*)")
_CLASS = re.compile(rb"\x8c.(sklearn\.[A-Za-z0-9_.]+)\x94\x8c.([A-Za-z0-9_]+)\x94\x93", re.DOTALL)


def look(files: Files, name: str) -> Findings:
    """What can be told of a file. Raises `InspectionFailed`."""
    head = files.head(name, _LOOKED_AT_BYTES)
    if not head:
        raise InspectionFailed(f"{name} is empty")
    findings = Findings("SKLEARN", name)
    if head.startswith(_COMPRESSED):
        findings.notes.append("the file is compressed, which is not looked into")
        return findings
    if (
        head[0] != _PROTOCOL and files.tail(name, 1) != b"."
    ):  # the oldest pickles begin with any letter, and end with this
        raise InspectionFailed(f"{name} is neither a pickle nor a file of joblib; save the estimator with joblib.dump")
    text = head if files.sizes[name] <= len(head) else head + files.tail(name, _LOOKED_AT_BYTES)
    estimator = _CLASS.search(text)
    if estimator is not None:
        findings.facts["estimator"] = f"{estimator[1].decode()}.{estimator[2].decode()}"
    version = _VERSION.search(text)
    if version is not None:
        findings.facts["scikit-learn"] = version[1].decode()
        findings.framework_version = version[1].decode()
    return findings
