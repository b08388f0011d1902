"""The older names and spellings of the official client, turned into the newest ones."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.easymaker import (
    HYPERPARAMETER,
    MODEL,
    as_newest,
    newer_format,
    newest_format,
    object_store_hosts,
    older_format,
    vendor_hosts,
    with_model_list,
)


@pytest.mark.parametrize(
    "item",
    [
        {"hyperparameterKey": "a", "hyperparameterValue": "1"},
        {"parameterKey": "a", "parameterValue": "1"},
        {"parameterName": "a", "parameterValue": "1"},
        {"parameterName": None, "hyperparameterName": "a", "hyperparameterValue": "1"},
    ],
)
def test_hyperparameters_of_all_times(item: dict[str, Any]) -> None:
    newest = as_newest(item, HYPERPARAMETER)
    assert (newest["parameterName"], newest["parameterValue"]) == ("a", "1")


def test_the_newest_name_wins() -> None:
    item = {"modelFormatCode": "PYTORCH", "modelTypeCode": "TENSORFLOW", "frameworkCode": "TENSORFLOW"}
    assert as_newest(item, MODEL)["modelFormatCode"] == "PYTORCH"


@pytest.mark.parametrize("value", [None, 1, "text", [1]])
def test_what_is_no_object_is_left_to_the_check_that_follows(value: Any) -> None:
    assert as_newest(value, MODEL) is value
    assert with_model_list(value) is value


def test_a_flat_body_becomes_a_list() -> None:
    flat = {"modelId": "m", "apigwResourceUri": "/inference", "endpointModelResourceList": None}
    assert with_model_list(flat)["endpointModelResourceList"] == [{"modelId": "m", "apigwResourceUri": "/inference"}]
    listed = {"endpointModelResourceList": [{"modelId": "n"}], "modelId": "m"}
    assert with_model_list(listed)["endpointModelResourceList"] == [{"modelId": "n"}]


@pytest.mark.parametrize(
    ("sent", "kept", "older", "newer"),
    [
        ("TENSORFLOW", "TENSORFLOW", "TENSORFLOW", "TENSORFLOW"),
        ("SCIKIT_LEARN", "SKLEARN", "SCIKIT_LEARN", "SKLEARN"),
        ("SKLEARN", "SKLEARN", "SCIKIT_LEARN", "SKLEARN"),
        ("ONNX_TRITON", "ONNX", "ONNX_TRITON", None),
        ("PYTORCH_TRITON", "PYTORCH", "PYTORCH", "PYTORCH"),
    ],
)
def test_formats_come_back_in_words_that_the_release_knows(sent: str, kept: str, older: str, newer: str | None) -> None:
    assert newest_format(sent) == kept
    assert (older_format(kept), newer_format(kept)) == (older, newer)


def test_a_region_of_ones_own_has_its_hosts() -> None:
    assert "jp1-easymaker.api.nhncloudservice.com" in vendor_hosts("jp1")
    assert "jp1-api-object-storage.gov-nhncloudservice.com" in object_store_hosts("jp1")
    assert set(object_store_hosts()) < set(vendor_hosts())
