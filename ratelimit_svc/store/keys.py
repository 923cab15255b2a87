"""The key of a window. Nothing else knows its layout.

    {acme}shop/tenant=acme/path=%2Fapi:s60000000        a tenant's windows share one Cluster slot
    {shop/tenant=acme/path=%2Fapi}:s60000000            without a tenant, keys spread over the cluster
    {acme}shop/tenant=acme/path=%2Fapi:s60000000:f      what a compared algorithm counts beside it: in the same slot, and no
                                                        window that decides

`{tag}`, domain, path with the request's values, `:`, the algorithm's letter, W in µs; before it all the configured
prefix. Neither the limit nor the slices: changing them keeps the counts.

    shop_tenant_acme_path_/api_60s                      REDIS_KEY_FORMAT=reference: see `reference_key`

Names and values are percent-encoded, so nothing a caller sends can hold a brace or a separator, and two different paths
never make one key. What is long is replaced by its hash, so no key exceeds MAX_KEY bytes after the prefix. The reference
implementation's keys promise none of this but a bound.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from urllib.parse import quote

from ratelimit_svc.model import MICROSECONDS, Algorithm, Entry

MAX_PART = 128
"""Bytes of one tag or path; longer ones are hashed."""

MAX_KEY = 2 * MAX_PART + 34

MAX_REFERENCE_KEY = 1024
"""Bytes of the longest key that is shared with the reference implementation, whose own keys have no bound."""

_is_safe = re.compile(r"[A-Za-z0-9_.~-]*").fullmatch
"""What `quote` would leave as it is: most names and values, and seeing so takes a third of its time."""


def key(
    prefix: str, domain: str, entries: Sequence[Entry], *, tenant: str | None, algorithm: Algorithm, window_us: int
) -> bytes:
    """Return the key of the window that these entries of this domain are counted in.

    Args:
        prefix: put before the key as it is (CACHE_KEY_PREFIX).
        domain: the rule's domain.
        entries: the descriptor's entries, with the request's own values.
        tenant: the tenant's name, or None where the domain has no tenant.
        algorithm: its letter is in the key, so another algorithm is another window.
        window_us: W, so another period is another window.
    """
    path = _bounded(_path(domain, entries))
    tagged = f"{{{path}}}" if tenant is None else f"{{{_bounded(_escaped(tenant))}}}{path}"
    return f"{prefix}{tagged}:{algorithm}{window_us}".encode()


def reference_key(prefix: str, domain: str, entries: Sequence[Entry], *, window_us: int) -> bytes | None:
    """Return the key that the reference implementation counts the same under, with W in seconds where its window's start stands.

        shop_tenant_acme_path_/api_60s      of all the minutes, shop_tenant_acme_path_/api_1795289040 is one

    Nothing is escaped, as it is not there. None: it would be longer than MAX_REFERENCE_KEY.

    Args:
        prefix: put before the key as it is (CACHE_KEY_PREFIX).
        domain: the rule's domain.
        entries: the descriptor's entries, with what the reference implementation writes for their values.
        window_us: W, whole seconds.
    """
    path = "".join([f"{name}_{value}_" for name, value in entries])
    made = f"{prefix}{domain}_{path}{window_us // MICROSECONDS}s".encode()
    return made if len(made) <= MAX_REFERENCE_KEY else None


def beside(enforced: bytes, compared: Algorithm) -> bytes:
    """Return the key of the window that a compared algorithm counts in, beside the one that decides."""
    return b"%b:%b" % (enforced, compared.encode())


def _path(domain: str, entries: Sequence[Entry]) -> str:
    """Return domain and entries, each escaped. Mostly there is nothing to escape, and one look at all of them tells."""
    path = texts = domain
    for name, value in entries:
        path += f"/{name}={value}"
        texts += name + value
    if _is_safe(texts):
        return path
    return "/".join([_escaped(domain), *(f"{_escaped(name)}={_escaped(value)}" for name, value in entries)])


def _escaped(text: str) -> str:
    """Return the text with everything percent-encoded but letters, digits and `_.-~`."""
    return text if _is_safe(text) else quote(text, safe="")


def _bounded(text: str) -> str:
    """Return the (escaped) text, or `#` and its hash if it is long. `#` itself is always escaped, so neither is forged.

    An empty text is `#`: Redis Cluster takes `{}` for no tag at all.
    """
    if len(text) <= MAX_PART:
        return text or "#"
    return "#" + blake2b(text.encode(), digest_size=16).hexdigest()
