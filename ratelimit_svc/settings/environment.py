"""The environment, before it is read: what Kubernetes put there is taken out, and what seems to be a misspelt setting is found.

Kubernetes tells each pod of every Service beside it by variables: of a Service `statsd`, STATSD_SERVICE_HOST, STATSD_PORT=tcp://…,
STATSD_PORT_8125_TCP_ADDR and more. None of them is meant for us, whatever it is named like.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches

_LINK = re.compile(
    r"(?P<service>.+?)_(SERVICE_HOST|SERVICE_PORT(_.+)?|(?P<address>PORT)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")

_OURS = ("CONFIG_GRPC_XDS_", "MEMCACHE_", "REDIS_", "XDS_CLIENT_")
"""Whatever else begins so is a setting that somebody meant, though there is none. Other beginnings are other programs' too, as
GRPC_ is the gRPC library's: there only what is nearly a setting is one."""

_NEAR = 0.8
"""How near, from 0 to 1: one wrong letter in five, or two that changed places in a short name."""


def without_service_links(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out what Kubernetes says of Services. A port that somebody has set himself is a number, and stays."""

    def is_link(name: str, text: str) -> bool:
        match = _LINK.fullmatch(name)
        if not match or not {f"{match['service']}_SERVICE_HOST", f"{match['service']}_SERVICE_PORT"} <= environ.keys():
            return False
        return not match["address"] or _ADDRESS.fullmatch(text) is not None

    return {name: text for name, text in environ.items() if not is_link(name, text)}


def misspelt(environ: Collection[str], known: Collection[str]) -> Iterator[str]:
    """Say of each variable that seems to be meant for us that it is no setting, and which one may be meant.

    Args:
        environ: the names of the variables that are set.
        known: the names of the settings; one that ends in `_` stands for all that begin so.
    """
    beginnings = tuple(name for name in known if name.endswith("_"))
    words = {name.partition("_")[0] for name in known if "_" in name}
    for name in sorted(environ):
        if name in known or name.startswith(beginnings) or name.partition("_")[0] not in words:
            continue
        nearest = get_close_matches(name, known, n=1, cutoff=_NEAR)
        if nearest:
            yield f"{name} is no setting: is {nearest[0]} meant?"
        elif name.startswith(_OURS):
            yield f"{name} is no setting"
