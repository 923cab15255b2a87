"""What users copy to run it for real: it parses, fits together, and is as locked down as it says."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from ratelimit_svc import __version__
from ratelimit_svc.demo import compose, envoy, shipped

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


PASSING = {"load", "peer-load", "chaos"}
"""Services that end by themselves."""
NOT_OURS = {"peer"}
"""The reference implementation's image holds its program alone: nothing in it could check its health."""


@pytest.mark.parametrize("name", SERVICES)
def test_compose_services_are_locked_down(name):
    """Every container has a replaceable image, no root, no capability, no new privileges and a file system it cannot write."""
    service = SERVICES[name]
    assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[^}]+}", service["image"])
    assert service["read_only"]
    assert service["user"] == "65534:65534"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", SERVICES.keys() - PASSING - NOT_OURS)
def test_compose_services_that_stay_have_a_health_check(name):
    """In the compose file, or in the Dockerfile of the image."""
    service = SERVICES[name]
    assert "healthcheck" in service or "HEALTHCHECK" in dockerfile(service["build"]).read_text()


def test_compose_services_that_pass_are_of_a_profile():
    """What ends by itself is not started again, and `docker compose up` alone starts neither it nor the peer."""
    assert {name for name, service in SERVICES.items() if service["restart"] == "no"} == PASSING
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    peers = {name: ["peer"] for name in ("peer", "peer-valkey", "peer-load")}
    assert profiles == {"load": ["load"], "chaos": ["chaos"], **peers}


def dockerfile(build):
    """The Dockerfile of a service's `build`."""
    return ROOT / build["context"] / build.get("dockerfile", "Dockerfile")


def test_compose_build_bases_are_variables():
    """Whoever has a registry of their own can build from it: every base is an argument that the compose file has a variable for."""
    builds = [service["build"] for service in SERVICES.values() if "build" in service]
    for build in builds:
        bases = set(re.findall(r"^FROM (\S+)", dockerfile(build).read_text(), re.MULTILINE)) - {"scratch"}
        (argument,) = {base.removeprefix("${").removesuffix("}") for base in bases}
        assert build["args"][argument].startswith(f"${{{argument}:-")
    assert builds


def test_compose_names_files_that_exist():
    """What is mounted and what is built from is there."""
    mounts = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]
    builds = [dockerfile(service["build"]) for service in SERVICES.values() if "build" in service]
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


def test_compose_envoy_configuration_is_what_the_envoy_filter_makes():
    """The committed file is, to the letter, what `make envoy-config` writes from the gateway's EnvoyFilter."""
    assert (ROOT / "deploy/envoy/envoy.yaml").read_text() == compose.text()


async def test_compose_envoy_configuration_is_valid(tmp_path):
    """The API types and Envoy itself accept it, and each host in it is a service of the compose file."""
    config = yaml.safe_load((ROOT / "deploy/envoy/envoy.yaml").read_text())
    envoy.check(config)
    await envoy.validate(envoy.write(config, tmp_path / "envoy.json"))
    clusters = config["static_resources"]["clusters"]
    hosts = {name: hosts for name, (hosts,) in ((one["name"], _hosts(one)) for one in clusters)}
    assert hosts == {envoy.RATE_LIMIT_CLUSTER: "ratelimit", envoy.GATEWAY.upstream: "upstream"}
    assert set(hosts.values()) <= SERVICES.keys()


def _hosts(cluster):
    """The host of each endpoint of a cluster."""
    endpoints = [one["endpoint"] for place in cluster["load_assignment"]["endpoints"] for one in place["lb_endpoints"]]
    return [endpoint["address"]["socket_address"]["address"] for endpoint in endpoints]


def test_the_load_is_of_tenants_with_rules():
    """ghz sends what the contracts in proto/ know, for three tenants with rules of their own and one without."""
    from google.protobuf.json_format import ParseDict

    from ratelimit_svc.pb.envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest

    settings = json.loads((ROOT / "deploy/loadtest/ghz.json").read_text())
    requests = json.loads((ROOT / "deploy/loadtest" / settings["data-file"].removeprefix("/load/")).read_text())
    parsed = [ParseDict(request, RateLimitRequest()) for request in requests]
    assert [one.descriptors[0].entries[0].value for one in parsed] == ["bronze", "silver", "gold", "guest"]
    assert (ROOT / settings["proto"].removeprefix("/")).exists()
    # ghz logs a hundred answers in a second; after a stall of STORE_TIMEOUT there are more of them than in others
    assert SERVICES["ratelimit"]["environment"]["STORE_TIMEOUT"] == "200ms"
    assert settings["rps"] * 2 <= 100
    rate = f"{settings['rps'] * SERVICES['load']['deploy']['replicas']} times a second"
    for page in ("README.md", "docker-compose.yml"):
        assert rate in " ".join((ROOT / page).read_text().split()), page


def test_the_peer_has_the_same_limits():
    """Its rules are config/demo.yaml without the keys that it does not know."""
    ours = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    assert yaml.safe_load((ROOT / "deploy/loadtest/peer/shop.yaml").read_text()) == without(ours, OURS)


OURS = ("tenant", "on_store_failure", "slices")


def without(tree, names):
    """A tree of YAML without the keys of these names."""
    if isinstance(tree, list):
        return [without(one, names) for one in tree]
    if isinstance(tree, dict):
        return {key: without(value, names) for key, value in tree.items() if key not in names}
    return tree


def test_without_an_engine_the_docker_tests_fail(tmp_path):
    """`make test-docker` says what is missing, and fails: to skip would look like having passed."""
    docker_tests = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/docker"]
    done = subprocess.run(
        docker_tests, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "there is no `docker` on PATH" in done.stdout + done.stderr


# ── Dockerfile ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dockerfile_copies_what_exists_and_runs_as_nobody():
    """Its sources exist and are not ignored, its base can be replaced, and it runs as 65534 with the usual ports."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert len(sources) == 7
    assert [name for name in sources if not (ROOT / name).exists() or f"!{name}" not in ignored] == []
    for line in (
        "FROM ${BASE_IMAGE}",
        "USER 65534:65534",
        "EXPOSE 8080 8081 6070 19001",
        'ENTRYPOINT ["ratelimit-svc"]',
        'CMD ["serve"]',
    ):
        assert line in text.splitlines()


def test_the_image_has_the_reference_implementations_programs():
    """By the absolute paths that manifests call: each is a program of the wheel."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    (names,) = re.findall(
        r"^RUN for name in (.*); do ln -s /opt/ratelimit-svc/bin/\$name /bin/\$name; done$", text, re.MULTILINE
    )
    assert names.split() == ["ratelimit", "ratelimit_client", "ratelimit_config_check"]
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {*names.split(), "ratelimit-svc"} == programs.keys()


def test_the_page_on_going_there_changes_the_image_and_nothing_else():
    """Its two manifests are YAML, and name this version."""
    page = (ROOT / "docs/migration.md").read_text()
    kustomization, gateway = map(yaml.safe_load, re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    (image,) = kustomization["images"]
    assert image == {"name": "docker.io/envoyproxy/ratelimit", "newName": IMAGE, "newTag": __version__}
    container = gateway["provider"]["kubernetes"]["rateLimitDeployment"]["container"]
    assert container == {"image": f"{IMAGE}:{__version__}"}


IMAGE = "registry.example/ratelimit-svc"

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
    """Probes, ports, rules and Valkey are found by the names they are given elsewhere. Unready is no reason to restart."""
    deployment, service = manifest("Deployment"), container("ratelimit")
    environment = {one["name"]: one["value"] for one in service["env"]}
    assert environment["REPLICAS"] == str(deployment["spec"]["replicas"])
    assert {one["name"]: one["containerPort"] for one in service["ports"]} == {"grpc": 8081, "http": 8080}
    for probe in ("startupProbe", "readinessProbe"):
        assert service[probe]["httpGet"] == {"path": "/healthcheck", "port": "http"}
    assert service["livenessProbe"]["httpGet"] == {"path": "/metrics", "port": "http"}
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
