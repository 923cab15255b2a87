"""What users copy to run it for real: it parses, fits together, and is as locked down as it says."""

import re
from pathlib import Path

import pytest
import yaml

from ratelimit_svc.demo import envoy, shipped

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
MANIFESTS = list(yaml.safe_load_all(shipped("istio/ratelimit.yaml").read_text()))


def manifest(kind, name="ratelimit"):
    """The one manifest of this kind and name."""
    (found,) = [one for one in MANIFESTS if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def container(name):
    """The one container of a Deployment."""
    (found,) = manifest("Deployment", name)["spec"]["template"]["spec"]["containers"]
    return found


# ── docker compose ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SERVICES)
def test_compose_services_are_locked_down(name):
    """Every container has a replaceable image, a health check, no root, no capability and a file system it cannot write."""
    service = SERVICES[name]
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[^}]+}", service["image"])
    assert service["read_only"]
    assert service["user"] == "65534:65534"
    assert service["cap_drop"] == ["ALL"]
    assert "healthcheck" in service or "HEALTHCHECK" in (ROOT / service["build"]["dockerfile"]).read_text()


def test_compose_names_files_that_exist():
    """What is mounted and what is built from is there."""
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]
    builds = [service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service]
    rules = SERVICES["ratelimit"]["environment"]["RULES"].replace("/etc/ratelimit", "config")
    assert mounts
    assert builds
    assert [path for path in [*mounts, *builds, rules] if not (ROOT / path).exists()] == []


def test_compose_replicas_know_their_number():
    """REPLICAS, by which a limit is shared in an outage, is the number of replicas that are started."""
    assert SERVICES["ratelimit"]["environment"]["REPLICAS"] == str(SERVICES["ratelimit"]["deploy"]["replicas"])


def test_compose_publishes_on_loopback_only():
    """Nothing is reachable from outside the machine."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


async def test_plain_envoy_configuration_is_valid(tmp_path):
    """The Envoy of the compose file runs a configuration that the API types and Envoy itself accept, with names that exist."""
    config = yaml.safe_load((ROOT / "deploy/envoy/envoy.yaml").read_text())
    envoy.check(config)
    await envoy.validate(envoy.write(config, tmp_path / "envoy.json"))
    hosts = re.findall(r"address: (\w+), port_value", (ROOT / "deploy/envoy/envoy.yaml").read_text())
    assert set(hosts) <= SERVICES.keys()
    assert len(hosts) == 2


# ── Dockerfile ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dockerfile_copies_what_exists_and_runs_as_nobody():
    """Its sources exist and are not ignored, its base can be replaced, and it runs as 65534 with the usual ports."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    sources = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert len(sources) == 7
    assert [name for name in sources if not (ROOT / name).exists() or f"!{name}" not in ignored] == []
    for line in (
        "FROM ${BASE_IMAGE}",
        "USER 65534:65534",
        "EXPOSE 8080 8081",
        'ENTRYPOINT ["ratelimit-svc"]',
        'CMD ["serve"]',
    ):
        assert line in text.splitlines()


# ── Kubernetes and Istio ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["ratelimit", "valkey"])
def test_pods_are_locked_down(name):
    """Each pod runs as nobody, without capabilities, privileges, a token or a file system it can write."""
    pod = manifest("Deployment", name)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 65534
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_service_is_what_the_filters_name():
    """Port, protocol and full name of the Service are those of the cluster that the EnvoyFilters ask."""
    service = manifest("Service")
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
    assert ports == {"grpc": 8081, "http": 8080}
    assert f"outbound|{ports['grpc']}||{host}" == envoy.RATE_LIMIT_CLUSTER
    for kind in ("gateway", "sidecar"):
        text = shipped(f"istio/envoyfilter-{kind}.yaml").read_text()
        assert f"cluster_name: {envoy.RATE_LIMIT_CLUSTER}\n" in text
        assert f"authority: {host}\n" in text


def test_the_deployment_fits_together():
    """Probes, ports, rules and Valkey are found by the names they are given elsewhere."""
    deployment, service = manifest("Deployment"), container("ratelimit")
    environment = {one["name"]: one["value"] for one in service["env"]}
    assert environment["REPLICAS"] == str(deployment["spec"]["replicas"])
    assert {one["name"]: one["containerPort"] for one in service["ports"]} == {"grpc": 8081, "http": 8080}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert service[probe]["httpGet"] == {"path": "/healthcheck", "port": "http"}
    (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
    assert volume["configMap"]["name"] == manifest("ConfigMap", "ratelimit-rules")["metadata"]["name"]
    assert service["volumeMounts"][0]["mountPath"] == environment["RULES"]
    (port,) = manifest("Service", "valkey")["spec"]["ports"]
    assert environment["REDIS_URL"] == f"redis://valkey.default.svc.cluster.local:{port['port']}"


def test_settings_that_are_named_exist():
    """Every variable that the manifests and the compose file set is one that the service reads."""
    from ratelimit_svc.settings import TABLE

    known = {setting.variable for setting in TABLE}
    kubernetes = {one["name"] for one in container("ratelimit")["env"]}
    assert kubernetes | SERVICES["ratelimit"]["environment"].keys() <= known


@pytest.mark.parametrize(
    ("entries", "limit"),
    [
        ({"tenant": "gold"}, 50),
        ({"tenant": "anyone"}, 5),
        ({"route": "checkout"}, 20),
        ({"route": "checkout", "tenant": "gold"}, 5),
    ],
)
def test_the_rules_of_the_manifest_answer_the_filters(tmp_path, entries, limit):
    """The service loads the ConfigMap's rules as they are, and they have a limit for every descriptor that the filters send."""
    from ratelimit_svc.model import Entry
    from ratelimit_svc.rules.files import read
    from ratelimit_svc.rules.load import load
    from ratelimit_svc.rules.match import find

    for name, text in manifest("ConfigMap", "ratelimit-rules")["data"].items():
        (tmp_path / name).write_text(text)
    (rule,) = find(load(read(tmp_path)).domains["shop"], [Entry(*entry) for entry in entries.items()])
    assert rule.limit
    assert rule.limit.requests_per_unit == limit
