"""An EnvoyFilter applied as Istio would; whatever is not understood, or does not fit, is an error that says what."""

import copy

import pytest
import yaml

from ratelimit_svc.demo import envoy, shipped
from ratelimit_svc.demo.istio import EnvoyFilterError, apply, merge, read

PROXIES = {"gateway": envoy.GATEWAY, "sidecar": envoy.SIDECAR}


@pytest.fixture(params=PROXIES)
def proxy(request):
    """Each of Istio's proxies in turn."""
    return PROXIES[request.param]


def bootstrap(of=envoy.GATEWAY):
    """A proxy's configuration before any EnvoyFilter."""
    return envoy.build(of, port=10_000, admin_port=10_001, replicas=[10_002, 10_003], upstream=10_004)


def envoy_filter(*patches, priority=0, name="mine"):
    """The text of an EnvoyFilter."""
    spec = {"priority": priority, "workloadSelector": {"labels": {"any": "pod"}}, "configPatches": list(patches)}
    document = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": name},
        "spec": spec,
    }
    return yaml.safe_dump(document)


def insert(
    filter_name, /, operation="INSERT_BEFORE", *, beside="envoy.filters.http.router", context="GATEWAY", **listener
):
    """A patch that inserts an HTTP filter of this name."""
    chain = {"filter": {"name": "envoy.filters.network.http_connection_manager", "subFilter": {"name": beside}}}
    if not beside:
        del chain["filter"]["subFilter"]
    return {
        "applyTo": "HTTP_FILTER",
        "match": {"context": context, "listener": {"filterChain": chain, **listener}},
        "patch": {"operation": operation, "value": {"name": filter_name}},
    }


def merge_into(apply_to, value, *, vhost=None, context="GATEWAY", **routes):
    """A patch that merges into virtual hosts or routes."""
    return {
        "applyTo": apply_to,
        "match": {"context": context, "routeConfiguration": {"vhost": vhost or {}, **routes}},
        "patch": {"operation": "MERGE", "value": value},
    }


def manager(config):
    """The one HTTP connection manager of a configuration."""
    return config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def filters(config):
    """The names of its HTTP filters, in order."""
    return [one["name"].removeprefix("envoy.filters.http.") for one in manager(config)["http_filters"]]


def virtual_host(config):
    """Its one virtual host."""
    return manager(config)["route_config"]["virtual_hosts"][0]


# ── where a filter goes ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("patches", "names"),
    [
        ([insert("a")], ["a", "router"]),
        ([insert("a"), insert("b")], ["a", "b", "router"]),
        ([insert("a"), insert("b", beside="a")], ["b", "a", "router"]),
        ([insert("a"), insert("b", "INSERT_AFTER", beside="a")], ["a", "b", "router"]),
        ([insert("a"), insert("b", "INSERT_FIRST")], ["b", "a", "router"]),
        ([insert("a", beside="")], ["a", "router"]),  # before nothing: first
        ([insert("a", "INSERT_AFTER", beside="")], ["router", "a"]),  # after nothing: last
        ([insert("a", portNumber=8080, name="0.0.0.0_8080")], ["a", "router"]),
        ([insert("a", context="ANY")], ["a", "router"]),
        ([insert("a"), insert("b", context="SIDECAR_INBOUND")], ["a", "router"]),  # for another kind of proxy
    ],
)
def test_filters_are_inserted(patches, names):
    """A filter goes before, after or first, as the operation says, in the order of the patches."""
    assert filters(apply(bootstrap(), read(envoy_filter(*patches)), envoy.GATEWAY)) == names


def test_documents_apply_by_priority():
    """Of several documents the one with the lower priority applies first, else the order is theirs."""
    text = "---\n".join(
        [envoy_filter(insert("late"), priority=10), envoy_filter(insert("a")), envoy_filter(insert("b"), priority=-1)]
    )
    assert filters(apply(bootstrap(), read(text), envoy.GATEWAY)) == ["b", "a", "late", "router"]


def test_the_given_bootstrap_stays_as_it_is():
    """Applying returns a new configuration; the old one and the patch share nothing with it."""
    before, patches = bootstrap(), read(envoy_filter(merge_into("VIRTUAL_HOST", {"rate_limits": [{"stage": 1}]})))
    old, value = copy.deepcopy(before), copy.deepcopy(patches[0].value)
    virtual_host(apply(before, patches, envoy.GATEWAY))["rate_limits"][0]["stage"] = 2
    assert (before, patches[0].value) == (old, value)


# ── what is merged ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"vhost": {"name": ""}},
        {"vhost": {"name": "", "route": {"action": "ANY"}}},
        {"vhost": {"name": "*:8080"}},
        {"name": "http.8080"},
        {"portNumber": 8080},
    ],
)
def test_virtual_hosts_are_merged(match):
    """A virtual host that fits the match gets the patch's fields beside its own."""
    patches = read(envoy_filter(merge_into("VIRTUAL_HOST", {"rate_limits": [{"stage": 1}]}, **match)))
    host = virtual_host(apply(bootstrap(), patches, envoy.GATEWAY))
    assert (host["rate_limits"], host["name"], len(host["routes"])) == ([{"stage": 1}], "*:8080", 1)


@pytest.mark.parametrize("vhost", [{"route": {"name": "shop"}}, {"route": {"action": "ANY"}}, {"name": "*:8080"}])
def test_routes_are_merged(vhost):
    """A route that fits the match gets the patch's fields within its own action."""
    patches = read(envoy_filter(merge_into("HTTP_ROUTE", {"route": {"rate_limits": [{"stage": 1}]}}, vhost=vhost)))
    (route,) = virtual_host(apply(bootstrap(), patches, envoy.GATEWAY))["routes"]
    assert route["route"] == {"cluster": envoy.GATEWAY.upstream, "rate_limits": [{"stage": 1}]}


@pytest.mark.parametrize(
    ("into", "patch", "merged"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": 1}, {"b": 0}, {"a": 1, "b": 0}),
        ({"a": [1]}, {"a": [2, 1]}, {"a": [1, 2, 1]}),
        ({"a": {"b": 1, "c": [1]}}, {"a": {"c": [2], "d": 3}}, {"a": {"b": 1, "c": [1, 2], "d": 3}}),
        ({"a": {"@type": "x", "b": 1}}, {"a": {"@type": "x", "c": 2}}, {"a": {"@type": "x", "c": 2}}),
        (
            {"typed_per_filter_config": {"f": {"a": 1}, "g": {}}},
            {"typed_per_filter_config": {"f": {"b": 2}}},
            {"typed_per_filter_config": {"f": {"b": 2}, "g": {}}},
        ),
    ],
)
def test_merge_is_protobufs(into, patch, merged):
    """Lists grow, messages merge, scalars, packed messages and map entries are replaced."""
    merge(into, patch, "here")
    assert into == merged


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("into", "patch", "why"),
    [
        ({"a": True}, {"a": False}, "here: a: whether False replaces True depends on the field's type"),
        ({"a": "x"}, {"a": ""}, "depends on the field's type"),
        ({"a": [1]}, {"a": {"b": 1}}, "cannot be merged into [1]"),
        ({"a": {"b": 1}}, {"a": [1]}, "cannot be merged into {'b': 1}"),
        ({"a": {"b": 1}}, {"a": 1}, "cannot be merged"),
        ({}, {"rateLimits": []}, "here: rateLimits: write Envoy's fields in snake_case"),
    ],
)
def test_what_cannot_be_merged(into, patch, why):
    """Where merging needs to know the type of a field, it is refused and not guessed."""
    with pytest.raises(EnvoyFilterError) as error:
        merge(into, patch, "here")
    assert why in str(error.value)


def changed(original, /, **changes):
    """A patch with some of its keys, dotted from the top, set to other values."""
    patch = copy.deepcopy(original)
    for path, value in changes.items():
        *inside, last = path.split("__")
        place = patch
        for key in inside:
            place = place[key]
        place[last] = value
    return patch


A_FILTER, A_HOST = insert("a"), merge_into("VIRTUAL_HOST", {"rate_limits": []})


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (
            changed(A_FILTER, applyTo="CLUSTER"),
            "mine: configPatches[0].applyTo: 'CLUSTER' is not supported here; known: HTTP_F",
        ),
        (changed(A_FILTER, patch__operation="REMOVE"), "configPatches[0].patch.operation: 'REMOVE' is not supported"),
        (
            changed(A_HOST, patch__operation="ADD"),
            "configPatches[0].patch.operation: 'ADD' is not supported here; known: MERGE",
        ),
        (changed(A_FILTER, patch__filterClass="AUTHZ"), "configPatches[0].patch: 'filterClass' is not supported"),
        (
            changed(A_FILTER, match__proxy={"proxyVersion": "1"}),
            "configPatches[0].match: 'proxy.proxyVersion' is not supported",
        ),
        (
            changed(A_FILTER, match__listener__filterChain__sni="a"),
            "configPatches[0].match: 'listener.filterChain.sni' is not",
        ),
        (
            changed(A_HOST, match__routeConfiguration__gateway="g"),
            "configPatches[0].match: 'routeConfiguration.gateway' is not",
        ),
        (
            changed(A_HOST, match__routeConfiguration__vhost={"domainName": "d"}),
            "'routeConfiguration.vhost.domainName' is not",
        ),
        (
            changed(A_HOST, match__routeConfiguration__vhost={"route": {"action": "ROUTE"}}),
            "only ANY is supported here",
        ),
        (
            changed(A_HOST, match__routeConfiguration__vhost={"route": {"name": "r"}}),
            "'routeConfiguration.vhost.route.name' is not",
        ),
        (changed(A_FILTER, surprise=1), "configPatches[0]: 'surprise' is not supported"),
        (changed(A_FILTER, patch=None), "configPatches[0].patch: None is not a mapping"),
    ],
)
def test_what_is_not_supported(patch, why):
    """A patch that this reader does not understand is an error that names the place, never passed over."""
    with pytest.raises(EnvoyFilterError) as error:
        read(envoy_filter(patch))
    assert why in str(error.value)


@pytest.mark.parametrize("text", ["kind: Service\n", "- a list\n", "just words\n"])
def test_only_envoy_filters_are_read(text):
    """Another kind of document is refused."""
    with pytest.raises(EnvoyFilterError, match="not an EnvoyFilter"):
        read(text)


@pytest.mark.parametrize(
    "patch",
    [
        insert("a", beside="envoy.filters.http.cors"),
        insert("a", portNumber=80),
        insert("a", name="virtualInbound"),
        merge_into("VIRTUAL_HOST", {}, vhost={"name": "shop.example.com:80"}),
        merge_into("VIRTUAL_HOST", {}, name="http.80"),
        merge_into("HTTP_ROUTE", {}, vhost={"route": {"name": "api"}}),
    ],
)
def test_a_patch_without_a_place_is_an_error(patch):
    """Where Istio would silently do nothing, applying fails and says what was looked for."""
    with pytest.raises(
        EnvoyFilterError, match=r"mine: configPatches\[0\]: nothing in a proxy of context GATEWAY matches"
    ):
        apply(bootstrap(), read(envoy_filter(patch)), envoy.GATEWAY)


def test_a_document_for_another_proxy_is_an_error():
    """An EnvoyFilter of which nothing is for this kind of proxy is not applied in silence."""
    with pytest.raises(EnvoyFilterError, match="no patch is for a proxy of context SIDECAR_INBOUND"):
        apply(bootstrap(envoy.SIDECAR), read(envoy_filter(A_FILTER)), envoy.SIDECAR)


# ── what we ship, and what Envoy's API types say ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", PROXIES)
async def test_shipped_filters_apply_and_are_valid(kind, tmp_path):
    """Each EnvoyFilter that users copy applies to its proxy, and the result is valid to the API types and to Envoy itself."""
    patches = read(shipped(f"istio/envoyfilter-{kind}.yaml").read_text())
    config = apply(bootstrap(PROXIES[kind]), patches, PROXIES[kind])
    assert filters(config) == ["ratelimit", "router"]
    assert virtual_host(config)["rate_limits"] == patches[1].value["rate_limits"]
    envoy.check(config)
    await envoy.validate(envoy.write(config, tmp_path / "envoy.json"))


def test_every_proxy_is_valid_before_any_filter(proxy):
    """What `build` makes is a configuration of Envoy."""
    envoy.check(bootstrap(proxy))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"enable_x_ratelimit_header": "DRAFT_VERSION_03"}, "Unknown field 'enable_x_ratelimit_header'"),
        ({"enable_x_ratelimit_headers": "DRAFT_VERSION_3"}, "DRAFT_VERSION_3"),
        ({"enable_retry_after_header": "yes"}, "enable_retry_after_header: 'yes' is not a bool"),
        ({"timeout": "20 ms"}, "20 ms"),
        ({"rate_limit_service": {"grpc_service": {"envoy_grpc": {"cluster": "x"}}}}, "Unknown field 'cluster'"),
        ({"rate_limit_service": ["x"]}, "not a configuration of Envoy"),
        ({"@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v4.RateLimit"}, "ratelimit.v4"),
    ],
)
def test_a_mistake_in_the_filter_is_found_without_envoy(change, why):
    """A wrong name, value or type in a filter's own configuration is an error that shows it."""
    patches = read(shipped("istio/envoyfilter-gateway.yaml").read_text())
    patches[0].value["typed_config"].update(change)
    with pytest.raises(envoy.BootstrapError) as error:
        envoy.check(apply(bootstrap(), patches, envoy.GATEWAY))
    assert why in str(error.value)


async def test_envoy_says_what_only_it_can_know(tmp_path):
    """What the types allow and Envoy does not, it refuses in its own words."""
    config = bootstrap()
    virtual_host(config)["domains"] = ["*", "*"]
    envoy.check(config)
    with pytest.raises(envoy.BootstrapError, match="domain"):
        await envoy.validate(envoy.write(config, tmp_path / "envoy.json"))
