"""What the load test is started with: its Job is locked down and has the files of deploy/loadtest; ghz is built, or missed in words."""

import re
from pathlib import Path

import yaml

from ratelimit_svc.demo import shipped
from ratelimit_svc.loadtest.__main__ import _parser

ROOT = Path(__file__).parents[1]
LOADTEST = ROOT / "deploy/loadtest"
SERVICE, JOB = yaml.safe_load_all((LOADTEST / "job.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]


def test_the_job_is_locked_down():
    """It runs as nobody, without capabilities, privileges, a token or a file system it can write, and once."""
    (container,) = POD["containers"]
    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"]
    assert POD["securityContext"]["runAsUser"] == 65534
    assert POD["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (JOB["spec"]["backoffLimit"], POD["restartPolicy"]) == (0, "Never")


def test_the_job_has_the_files_that_are_here():
    """Its ConfigMap has every profile, its arguments parse and name files in it, and it asks the replicas of the manifest."""
    (generated,) = yaml.safe_load((LOADTEST / "kustomization.yaml").read_text())["configMapGenerator"]
    assert {LOADTEST / name for name in generated["files"]} == {
        LOADTEST / "thresholds.json",
        LOADTEST / "profiles/rls.protoset",
        *(LOADTEST / "profiles").glob("*.json"),
    }
    names = {Path(name).name for name in generated["files"]}
    (container,) = POD["containers"]
    arguments = _parser().parse_args(container["args"])
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container["volumeMounts"]}
    for path in (arguments.profile, arguments.thresholds):
        assert path.parent == mounts["profiles"]
        assert path.name in names
    assert {"name": "profiles", "configMap": {"name": generated["name"]}} in POD["volumes"]
    host = SERVICE["metadata"]["name"]
    ports = {port["name"]: port["port"] for port in SERVICE["spec"]["ports"]}
    assert arguments.target == f"dns:///{host}:{ports['grpc']}"
    assert arguments.metrics == f"http://{host}:{ports['http']}/metrics"


def test_the_jobs_service_has_an_address_for_each_replica():
    """It selects the pods of deploy/istio/ratelimit.yaml, by their ports."""
    manifests = yaml.safe_load_all(shipped("istio/ratelimit.yaml").read_text())
    (deployment,) = (x for x in manifests if (x["kind"], x["metadata"]["name"]) == ("Deployment", "ratelimit"))
    assert SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    ports = {
        one["name"]: one["containerPort"] for one in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    }
    assert {port["name"]: port["port"] for port in SERVICE["spec"]["ports"]} == ports


def test_the_jobs_image_is_of_images_that_are_built_here():
    """The service's and ghz's, by the names that they have elsewhere."""
    text = (LOADTEST / "job.Dockerfile").read_text()
    compose = (ROOT / "docker-compose.yml").read_text()
    for variable, in_compose in (("GHZ_IMAGE", "GHZ_IMAGE"), ("SERVICE_IMAGE", "RATELIMIT_IMAGE")):
        (name,) = re.findall(rf"^ARG {variable}=(.+)$", text, re.MULTILINE)
        assert f"${{{in_compose}:-{name}}}" in compose
    assert f"-t {POD['containers'][0]['image']} " in text
