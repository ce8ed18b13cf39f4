"""The front door: ``tierwise COMMAND``.

Each command is a file with ``add_parser(subparsers)``; whatever is heavy it imports when it runs.

Exit codes: 0 done; 1 a check found a problem, or an unexpected error; 2 the command line or the
settings are not usable; 3 something could not start (a file, a port or a broker is missing); 130
stopped by Ctrl-C. Errors are a line each on standard error, and JSON there with ``--json``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from runtime.errors import ArtifactError, SettingsError, StartError, TierwiseError
from tierwise.cli.output import tell_error
from tierwise.cli.parser import UsageError, build_parser

EXIT_FOUND = 1
EXIT_USAGE = 2
EXIT_START = 3
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    shows_traceback = "--traceback" in words
    try:
        code = _run(words)
        sys.stdout.flush()
    except UsageError as error:
        tell_error(str(error), code="usage", as_json=as_json)
        return EXIT_USAGE
    except TierwiseError as error:
        tell_error(str(error), code=error.code, as_json=as_json)
        return _exit_code(error)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:
        if shows_traceback:
            raise
        text = f"unexpected {type(error).__name__}: {error} (--traceback shows where)"
        tell_error(text, code="internal", as_json=as_json)
        return EXIT_FOUND
    return code


def _run(words: Sequence[str]) -> int:
    parser = build_parser()
    arguments = parser.parse_args(words)
    code: int = arguments.run(arguments)
    return code


def _exit_code(error: TierwiseError) -> int:
    if isinstance(error, SettingsError):
        return EXIT_USAGE
    return EXIT_START if isinstance(error, StartError | ArtifactError) else EXIT_FOUND
