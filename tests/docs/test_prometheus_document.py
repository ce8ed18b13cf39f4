"""docs/prometheus.md lists the metrics that there are, and nothing else."""

from __future__ import annotations

import re

from golden.metrics_document import DOCUMENT, MARK, described, document


def test_the_document_has_every_metric_as_the_registries_have_it() -> None:
    text = DOCUMENT.read_text()

    # Written anew by: python tests/golden/metrics_document.py
    assert document(text) == text
    assert text.count(MARK) == 1


def test_every_expression_of_the_document_names_metrics_that_exist() -> None:
    known = {
        f"tierwise_{tier}_{one.name}{suffix}"
        for one in described()
        for tier in one.tiers
        for suffix in (("_bucket", "_sum", "_count") if one.kind == "histogram" else ("",))
    }
    head = DOCUMENT.read_text().partition(MARK)[0]
    named = set(re.findall(r"tierwise_(?:edge|regional|cloud)_\w+", head))

    assert len(named) >= 5
    assert named <= known


def test_names_of_metrics_say_their_unit() -> None:
    for one in described():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", one.name), one.name
        assert one.name.endswith("_total") == (one.kind == "counter"), one.name
        if one.kind == "histogram":
            assert one.name.endswith("_seconds"), one.name
