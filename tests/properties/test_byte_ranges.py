from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.core.byte_ranges import (
    Span,
    content_range,
    is_content_range,
    matches,
    parse_range,
)

sizes = st.integers(min_value=1, max_value=10**12)
TAG = "ab" * 32


@st.composite
def spans(draw: st.DrawFn) -> tuple[Span, int]:
    size = draw(sizes)
    start = draw(st.integers(min_value=0, max_value=size - 1))
    return Span(start, draw(st.integers(min_value=start + 1, max_value=size))), size


@given(spans())
def test_a_range_is_read_as_it_is_written(drawn: tuple[Span, int]) -> None:
    span, size = drawn

    assert parse_range(f"bytes={span.start}-{span.end - 1}", size) == span
    assert parse_range(f"bytes={span.start}-", size) == Span(span.start, size)
    assert parse_range(f"bytes=-{span.length}", size) == Span(size - span.length, size)
    assert is_content_range(content_range(span, size), span, size)


@given(spans())
def test_a_range_past_the_end_ends_there(drawn: tuple[Span, int]) -> None:
    span, size = drawn

    assert parse_range(f"bytes={span.start}-{size + 7}", size) == Span(span.start, size)
    assert parse_range(f"bytes=-{size + 7}", size) == Span(0, size)


@given(sizes, st.integers(min_value=0, max_value=1000))
def test_a_range_that_begins_after_the_end_is_refused(size: int, beyond: int) -> None:
    with pytest.raises(ValueError, match="no such bytes"):
        parse_range(f"bytes={size + beyond}-", size)


@pytest.mark.parametrize("header", ["bytes=-0", "bytes=0-", "bytes=0-0"])
def test_an_empty_file_has_no_bytes_to_give(header: str) -> None:
    with pytest.raises(ValueError, match="no such bytes"):
        parse_range(header, 0)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=0-1,3-4",
        "bytes=a-b",
        "bytes=-1-2",
        "bytes= 0-1",
        "items=0-1",
        "bytes=\u0660-\u0661",
        "bytes=0-" + "9" * 5000,
    ],
)
def test_what_is_not_understood_means_the_whole_file(header: str | None) -> None:
    assert parse_range(header, 10) is None


@given(st.text(max_size=40), st.integers(min_value=0, max_value=10**6))
def test_no_text_gives_bytes_that_are_not_there(header: str, size: int) -> None:
    try:
        span = parse_range(header, size)
    except ValueError:
        return
    assert span is None or 0 <= span.start < span.end <= size


@given(spans(), spans())
def test_a_reply_with_another_part_is_not_believed(
    drawn: tuple[Span, int], other: tuple[Span, int]
) -> None:
    is_same = drawn == other

    assert is_content_range(content_range(*other), *drawn) is is_same


@pytest.mark.parametrize("header", [None, "", "bytes 0-9/*", "bytes */10", "bytes 0-9", "0-9/10"])
def test_a_reply_that_does_not_say_its_part_is_not_believed(header: str | None) -> None:
    assert not is_content_range(header, Span(0, 10), 10)


@pytest.mark.parametrize(
    ("header", "does"),
    [
        (f'"{TAG}"', True),
        ("*", True),
        (f'"other", "{TAG}"', True),
        (f'W/"{TAG}"', False),
        (TAG, False),
        ('"other"', False),
        ("", False),
        (None, False),
    ],
)
def test_a_condition_names_the_digest_in_quotes(header: str | None, *, does: bool) -> None:
    assert matches(header, TAG) is does
