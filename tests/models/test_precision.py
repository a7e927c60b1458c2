from __future__ import annotations

import pytest
import torch

from rllib_ezm.models import precision as precision_module
from rllib_ezm.models.precision import autocast, has_native_bfloat16, resolve_dtype


def test_autocast_of_a_precision():
    x = torch.ones(2, 2)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with autocast("cpu", precision):
            assert (x @ x).dtype == dtype


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_is_bf16_where_the_device_multiplies_it(native, monkeypatch):
    monkeypatch.setattr(precision_module, "has_native_bfloat16", lambda device_type: native)
    x = torch.ones(2, 2)
    with autocast("cpu", "auto"):
        assert (x @ x).dtype == (torch.bfloat16 if native else torch.float32)


def test_native_bf16_is_found_once_per_device_type():
    assert has_native_bfloat16("cpu") in (True, False)
    assert has_native_bfloat16("meta") is False


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="'fp8' is unknown; use one of"):
        resolve_dtype("cpu", "fp8")
