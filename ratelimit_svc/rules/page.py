"""Page: the tables of keys → docs/rules.md, the reference of the rule language.

What no table can say stands here as text: the introduction, matching, examples, what is a warning and what an error.
"""

from collections.abc import Iterator, Mapping

from ratelimit_svc.rules.tables import DESCRIPTOR, ITEM, RATE_LIMIT, REPLACED, ROOT, Row

_BEGIN = """\
<!-- made by `make docs` from ratelimit_svc/rules/tables.py and page.py: edit those -->

# Rules

Envoy sends a *domain* and *descriptors*; a descriptor is a list of entries, each a key and a value. Rule files say what each
may do. They are written as for [envoyproxy/ratelimit](https://github.com/envoyproxy/ratelimit): its files work as they are. The
keys marked **ours** are not in it.

```yaml
# yaml-language-server: $schema=rules.schema.json
domain: shop
tenant: tenant

descriptors:
  # (tenant, gold): 50 in any second, and 100000 a day
  - key: tenant
    value: gold
    rate_limits:
      - { requests_per_unit: 50, unit: second }
      - { requests_per_unit: 100000, unit: day, name: daily }

  # any other tenant: 5 a second, at once up to 20
  - key: tenant
    rate_limit: { requests_per_unit: 5, unit: second, algorithm: token_bucket, burst: 20 }
```

The first line gives editors completion and a check while one types: `ratelimit-svc schema` prints the schema, which is also in
`docs/rules.schema.json`. Ask what a file does before a mesh does:

```sh
ratelimit-svc check config/
ratelimit-svc explain config/example.yaml api tenant=acme path=/v1/orders
ratelimit-svc explain config/example.yaml api tenant=acme + campaign=spring
```

## Which rule meets a request

Each descriptor of a request is looked up by itself. At each level one entry is looked up: exactly (key and value); else among
the descriptors with a `*`, the first in the file that fits; else by its key alone. The walk goes down from what was found, and
never back. A limit counts only if the **last** entry reaches it: a request that goes deeper than the rules meets none, and one
that ends above a limit does not meet it.

A descriptor without a value is met by any value, and each value has a window of its own; so has each value that a `*` stands
for, unless `share_threshold` is true.

A request is counted on all its limits or on none, and passes if all fit. `quota_mode`, `shadow_mode` and `replaces` make
exceptions.

## Every key
"""

_REST = """\
## Values

Numbers, booleans and text are what YAML 1.1 makes of them, as for the reference implementation: `0x10` is 16, `yes`, `on` and
`y` are true. What stands for text is taken as written, `value: 123` meets "123"; only a fraction must be quoted. Null and
empty text are as if not written. Anchors, aliases and `<<` work. JSON is YAML.

## What is an error, and what a warning

A file with an error changes nothing: the rules in force stay, and each error is reported with its line. A file that the
reference implementation would load is loaded. What does not do there what it seems to do is a warning:

- a key where it means nothing (`shadow_mode` inside `rate_limit`), a flag on a descriptor without a limit,
- a key of `metadata` that is no text (`1:`, `true:`), which is taken as written,
- a key written twice in one mapping (the last counts), a second YAML document (the first counts),
- `requests_per_unit` missing (0, which denies everything), or beside `unlimited: true`,
- a file that is no rule file (`README.txt`), or a name in `replaces` that no limit has.

The same is an error in `ratelimit-svc check`, with `STRICT=true`, and in each file that uses one of our own keys.
`ratelimit-svc check --lenient` shows what the service would load, and its warnings.

## Files

All files below a folder are read, but for names that begin with a dot or end in `~`: `*.yaml`, `*.yml` and `*.json` are rule
files, and so is any other file with a `domain:`. They are watched, edits in place as well as Kubernetes ConfigMaps. A domain
lives in one file, unless `MERGE_DOMAIN_CONFIG=true`: then the first levels of all its files are put together, in the order of
their names. The same descriptor in two of them stays an error, for below the first level nothing is merged.

## Differences from the reference implementation

- Key and value are matched as a pair. It joins them by `_`, so that `key: a_b` meets (a, b) there.
- Windows slide. `algorithm: fixed_window`, or `DEFAULT_ALGORITHM=fixed_window` for all, counts as it does.
- Files are merged in the order of their names; there the order is random.
"""


def text() -> str:
    """Return the page."""
    return "\n".join([_BEGIN, *_tables(), _REST])


def _tables() -> Iterator[str]:
    own = {name: row for name, row in ITEM.rows.items() if name not in RATE_LIMIT.rows}
    yield _table("At the root of the file", ROOT.rows)
    yield _table("In a descriptor", DESCRIPTOR.rows)
    yield _table("In `rate_limit`", RATE_LIMIT.rows)
    yield _table("In an item of `rate_limits`: all keys of `rate_limit` but `unlimited`, and", own)
    yield _table("In an item of `replaces`", REPLACED.rows)


def _table(title: str, rows: Mapping[str, Row]) -> str:
    lines = [f"### {title}", "", "| key | type | default | whose | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{name}` | {row.kind.words} | {_default(row)} | {_whose(row)} | {row.doc} |" for name, row in rows.items()
    ]
    return "\n".join([*lines, ""])


def _default(row: Row) -> str:
    if row.required:
        return "required"
    return "" if row.default is None else f"`{str(row.default).lower()}`"


def _whose(row: Row) -> str:
    return "**ours**" if row.own else "the reference's"
