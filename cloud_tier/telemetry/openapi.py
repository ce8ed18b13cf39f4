"""The service of telemetry as OpenAPI 3.1, from the types that it answers with. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cloud_tier.telemetry.asking import DEFAULT_BY, DEFAULT_LIMIT, DIMENSIONS, MAX_LIMIT
from cloud_tier.telemetry.rows import ROWS, Report

VERSION = "1"
_TEMPLATE = "#/components/schemas/{name}"
_TIME = "90s, 15m, 1h or 7d ago, a date and time with its offset, or seconds since 1970"
_ANSWER = "The answer, of the state at most a second before it was asked for."
_REFUSALS = {
    "400": "The question is not understood; the message names what is near.",
    "503": "Too many questions wait (Retry-After says how long to), or the database does not "
    "answer: ask again later.",
    "504": "It took too long (code too_late): ask about a shorter time, narrow it, or ask again, "
    "because what was read by now is in memory.",
}


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong; the message says what to do next."""

    code: str
    message: str


class Refusal(msgspec.Struct, frozen=True):
    """The body of every response that is no answer."""

    error: ErrorBody


class Metric(msgspec.Struct, frozen=True):
    """A metric, and by what it may be asked."""

    name: str
    by: list[str]
    default_by: list[str]


class MetricList(msgspec.Struct, frozen=True):
    """All metrics."""

    metrics: list[Metric]


def description() -> dict[str, Any]:
    """The document, as plain values."""
    reports: dict[str, Any] = {name: Report[row] for name, row in ROWS.items()}  # type: ignore[valid-type]
    types = [Refusal, MetricList, *reports.values()]
    schemas, components = msgspec.json.schema_components(types, ref_template=_TEMPLATE)
    refusal, metric_list, *shapes = schemas
    paths: dict[str, Any] = {
        "/api/v1/metrics": _get("List the metrics.", "listMetrics", metric_list, refusal, ())
    }
    for name, shape in zip(reports, shapes, strict=True):
        doc = (ROWS[name].__doc__ or "").partition("\n")[0]
        paths[f"/api/v1/metrics/{name}"] = _get(doc, f"get_{name}", shape, refusal, _words(name))
    return {
        "openapi": "3.1.0",
        "info": {"title": "Telemetry of Tierwise", "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _get(
    summary: str,
    operation: str,
    shape: Mapping[str, Any],
    refusal: Mapping[str, Any],
    words: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": _response(_ANSWER if words else "The answer.", shape)}
    if words:
        responses |= {code: _response(text, refusal) for code, text in _REFUSALS.items()}
        responses["304"] = {"description": "The answer is the one of that ETag."}
    return {
        "get": {
            "summary": summary,
            "operationId": operation,
            "parameters": list(words),
            "responses": responses,
        }
    }


def _response(text: str, shape: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": shape}}}


def _words(name: str) -> list[dict[str, Any]]:
    return [
        _word("since", f"{_TIME}. Default: 24h."),
        _word("until", f"{_TIME}. Default: now."),
        _word(
            "by",
            f"Comma-separated: {', '.join(DIMENSIONS[name])}. Default: "
            f"{','.join(DEFAULT_BY[name])}.",
        ),
        _word("where", "Conditions such as region=eu,label=3|4,site!=cam-1."),
        _word("order", "A field of the rows, with - for the largest first; or group."),
        _word("limit", f"Rows of a page, at most {MAX_LIMIT}; default {DEFAULT_LIMIT}.", "integer"),
        _word("cursor", "`next` of the page before."),
        *(
            [_word("retired", "yes: also devices that are out of service. Default: no.")]
            if name == "fleet"
            else []
        ),
    ]


def _word(name: str, text: str, kind: str = "string") -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": text,
        "schema": {"type": kind},
    }
