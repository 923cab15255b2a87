"""Which rule a descriptor meets, where that differs: the reference implementation joins key and value by `_`, and so mistakes one
for another. Where it does not, see tests/test_reference_yaml.py.
"""

import pytest

from tests.reference.asking import as_written, limiter_of

RULES = """
domain: shop
descriptors:
  - {key: a_b, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: c, value: d_e, rate_limit: {unit: day, requests_per_unit: 3}}
  - {key: wild, value: x*, rate_limit: {unit: day, requests_per_unit: 4}}
"""

NOT_MISTAKEN = {
    "a key for a key and a value": "a=b → OK: OK",
    "part of a value for part of a key": "c_d=e → OK: OK",
    "part of a key for part of a pattern": "wild_xy=z → OK: OK",
    "what is meant": """
        a_b=x                       → OK: OK 1/2 day
        c=d_e                       → OK: OK 2/3 day
        wild=xyz                    → OK: OK 3/4 day
    """,
}
"""The reference finds a limit for each of the first three."""


@pytest.mark.parametrize("table", NOT_MISTAKEN.values(), ids=NOT_MISTAKEN)
async def test_keys_and_values_are_not_mistaken_for_each_other(table):
    """An underscore belongs to the key or the value that it stands in."""
    await as_written(limiter_of(rules=RULES), table)


async def test_descriptors_that_differ_in_an_underscore_only_are_two():
    """The reference refuses such a file for a duplicate."""
    rules = """
domain: shop
descriptors:
  - {key: a, value: b_c, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: a_b, value: c, rate_limit: {unit: day, requests_per_unit: 3}}
"""
    await as_written(limiter_of(rules=rules), "a=b_c; a_b=c → OK: OK 1/2 day; OK 2/3 day")
