"""The page about budgets of tokens quotes what is shipped, and what is shipped is valid. Its tables: tests/e2e/test_tokens.py."""

import re
from pathlib import Path

import pytest

from ratelimit_svc.demo import envoy, shipped
from ratelimit_svc.demo.istio import apply, read

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs/llm-tokens.md").read_text()
QUOTED = re.findall(r"^<!-- (\S+/\S+) -->\n+```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
BODY = "---\n" + shipped("istio/envoyfilter-tokens-body.yaml").read_text()


@pytest.mark.parametrize(("file", "text"), QUOTED)
def test_what_the_page_quotes_is_in_the_file(file, text):
    """Line by line, comments and indentation included."""
    assert text in (PROJECT / file).read_text()


def test_every_block_of_the_page_is_a_quotation_or_the_wrong_refund():
    """No YAML on the page is only there."""
    assert len(QUOTED) == PAGE.count("```yaml") - 1
    assert PAGE.count("<!-- wrong -->\n```yaml") == 1


@pytest.mark.parametrize("kind", ["tokens", "tokens-reserved"])
async def test_shipped_filters_apply_and_are_valid(kind, tmp_path):
    """Each applies to a gateway with the one for costs in the body, and the result is valid to the API types and to Envoy."""
    config = envoy.build(envoy.GATEWAY, port=10_000, admin_port=10_001, replicas=[10_002, 10_003], upstream=10_004)
    patches = read(shipped(f"istio/envoyfilter-{kind}.yaml").read_text() + BODY)
    config = apply(config, patches, envoy.GATEWAY)
    envoy.check(config)
    await envoy.validate(envoy.write(config, tmp_path / "envoy.json"))
