"""The regional gateway as a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regional_gateway.settings import GatewaySettings
from runtime.command_line import Program
from runtime.messages import Tier

if TYPE_CHECKING:
    from runtime.command_line import Serve


def _load_serve() -> Serve:
    from regional_gateway.app import serve  # noqa: PLC0415 - models and network: only when it really runs

    return serve


PROGRAM = Program("regional_gateway", Tier.REGIONAL, GatewaySettings, "gateway", _load_serve)
