#!/bin/sh
# Says what is missing before an installation starts. The first line is the remedy.
# PYTHON names the interpreter to use (default: python3).

python=${PYTHON:-python3}

refuse() {
    printf '%s\n' "$1" "($2)" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    refuse "apt-get install python3 python3-venv" "there is no $python on this machine"

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    refuse "install Python 3.11 or newer and name it: make demo PYTHON=python3.12" \
        "$python is $("$python" --version 2>&1)"

"$python" -c 'import venv, ensurepip' >/dev/null 2>&1 ||
    refuse "apt-get install python3-venv" "$python cannot make virtual environments with pip in them"

command -v make >/dev/null 2>&1 ||
    refuse "apt-get install make" "there is no make on this machine"
