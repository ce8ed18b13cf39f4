"""The dashboard's colours can be told apart by readers with poor sight (WCAG 2.2, level AA)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloud_tier.operators import pages

CSS = (Path(pages.__file__).with_name("static") / "app.css").read_text()
TEXT, GRAPHICS = 4.5, 3.0
_BLOCK = r":root \{(.*?)\}"


def colours(scheme: str) -> dict[str, str]:
    light, dark = re.findall(_BLOCK, CSS, re.DOTALL)[:2]
    found = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", light))
    if scheme == "dark":
        found |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", dark))
    return found


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_is_21_to_1() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "raised"])
@pytest.mark.parametrize("name", ["ink", "quiet", "accent", "good", "warn", "bad"])
def test_text_is_readable(scheme: str, ground: str, name: str) -> None:
    found = colours(scheme)
    assert contrast(found[name], found[ground]) >= TEXT


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), [("on-accent", "accent"), ("ground", "bad")])
def test_text_on_buttons_is_readable(scheme: str, text: str, ground: str) -> None:
    found = colours(scheme)
    assert contrast(found[text], found[ground]) >= TEXT


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["ground", "raised"])
@pytest.mark.parametrize("name", ["edge", "regional", "cloud", "bad", "good", "quiet", "accent"])
def test_what_is_drawn_is_seen(scheme: str, ground: str, name: str) -> None:
    found = colours(scheme)
    assert contrast(found[name], found[ground]) >= GRAPHICS
