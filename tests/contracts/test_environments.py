"""Every variable that others' manifests set is one that the service knows: none is passed over, or taken for a misspelt one."""

import pytest

from ratelimit_svc.settings import TABLE, Settings
from tests.contracts.manifests import ENVOY_GATEWAY, ENVOY_GATEWAY_REDIS_TLS, ENVOY_GATEWAY_TRACING, ISTIO


@pytest.mark.parametrize(
    "manifest",
    [ISTIO, ENVOY_GATEWAY | ENVOY_GATEWAY_REDIS_TLS, ENVOY_GATEWAY_TRACING],
    ids=["istio", "gateway", "tracing"],
)
def test_every_variable_is_known(manifest):
    """But OpenTelemetry's own, which its library reads."""
    assert {name for name in manifest if not name.startswith("OTEL_")} <= {setting.variable for setting in TABLE}


def test_istios_environment_warns_of_nothing():
    """Each of its variables has its effect."""
    assert Settings.from_environment(ISTIO).warnings == ()
