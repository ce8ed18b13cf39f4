"""The cloud tier as a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloud_tier.settings import CloudSettings
from runtime.command_line import Program
from runtime.messages import Tier

if TYPE_CHECKING:
    from runtime.command_line import Serve


def _load_serve() -> Serve:
    from cloud_tier.app import serve  # noqa: PLC0415 - models and network: only when it really runs

    return serve


PROGRAM = Program("cloud_tier", Tier.CLOUD, CloudSettings, "cloud", _load_serve)
