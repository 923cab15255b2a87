"""A real Envoy asks over TLS with a certificate of its own, configured as docs/tls.md says."""

import re
from pathlib import Path

import aiohttp
import pytest
import trustme
import yaml

from ratelimit_svc.demo import envoy, istio, shipped
from ratelimit_svc.demo.child import free_port, until
from ratelimit_svc.demo.parts import Envoy, Replica
from ratelimit_svc.demo.traffic import LIMITED, PASSED, Upstream, call
from tests.certificates import CLIENT, Files, chain

PAGE = (Path(__file__).parents[2] / "docs/tls.md").read_text()
RULES = "domain: shop\ndescriptors: [{key: tenant, rate_limit: {unit: hour, requests_per_unit: 3}}]\n"


def transport_socket(folder: Path) -> dict[str, object]:
    """What the page says, with the names of here."""
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    text = block.replace("/tls/", f"{folder}/").replace("ratelimit.example", "localhost")
    socket: dict[str, object] = yaml.safe_load(text)["transport_socket"]
    return socket


def proxy_in_front_of(folder: Path, replica: Replica, upstream: Upstream) -> Envoy:
    """An ingress gateway whose cluster of the service has TLS."""
    port, admin_port = free_port(), free_port()
    config = envoy.build(
        envoy.GATEWAY, port=port, admin_port=admin_port, replicas=[replica.grpc_port], upstream=upstream.port
    )
    config = istio.apply(config, istio.read(shipped("istio/envoyfilter-gateway.yaml").read_text()), envoy.GATEWAY)
    (cluster,) = [each for each in config["static_resources"]["clusters"] if each["name"] == envoy.RATE_LIMIT_CLUSTER]
    cluster["transport_socket"] = transport_socket(folder)
    return Envoy(folder, envoy.write(config, folder / "envoy.json"), port=port, admin_port=admin_port)


@pytest.mark.slow
async def test_envoy_asks_by_certificate(tmp_path, engine):
    """Its requests are limited; after the server's certificate was renewed, too; and no call of it has failed."""
    root, files, folder = trustme.CA(), Files(tmp_path), tmp_path / "envoy"
    files.put(root)
    folder.mkdir()
    own = root.issue_cert(CLIENT)
    (folder / "tls.crt").write_bytes(chain(own))
    (folder / "tls.key").write_bytes(own.private_key_pem.bytes())
    (folder / "ca.crt").write_bytes(root.cert_pem.bytes())
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    env = {
        "ENGINE": engine,
        "GRPC_SERVER_USE_TLS": "true",
        "GRPC_SERVER_TLS_CERT": str(files.cert),
        "GRPC_SERVER_TLS_KEY": str(files.key),
        "GRPC_CLIENT_TLS_CACERT": str(files.ca),
        "GRPC_CLIENT_TLS_SAN": CLIENT,
        "GRPC_MAX_CONNECTION_AGE": "500ms",
    }
    async with (
        Replica(tmp_path / "replica", rules=rules, env=env) as replica,
        Upstream() as upstream,
        proxy_in_front_of(folder, replica, upstream) as proxy,
        aiohttp.ClientSession() as session,
    ):

        async def statuses(tenant: str, count: int) -> list[int]:
            return [(await call(session, proxy.url, {"x-tenant": tenant})).status for _ in range(count)]

        assert await statuses("a", 5) == [PASSED] * 3 + [LIMITED] * 2
        files.put(root)

        async def renewed() -> bool:
            await statuses("nobody", 1)  # connections age, and the next one meets the new files
            return "TLS files are renewed" in replica.log.read_text()

        await until(renewed, "the new certificate is in use")
        assert await statuses("b", 5) == [PASSED] * 3 + [LIMITED] * 2
        stats = await proxy.rate_limit_stats()
        assert (stats.get("error", 0), stats.get("failure_mode_allowed", 0)) == (0, 0)
