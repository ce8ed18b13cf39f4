"""The edge agent as a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.settings import EdgeSettings
from runtime.command_line import Program
from runtime.messages import Tier

if TYPE_CHECKING:
    from runtime.command_line import Serve


def _load_serve() -> Serve:
    from edge_agent.app import serve  # noqa: PLC0415 - models and network: only when it really runs

    return serve


PROGRAM = Program("edge_agent", Tier.EDGE, EdgeSettings, "agent", _load_serve)
