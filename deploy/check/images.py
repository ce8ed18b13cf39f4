"""Runs the steps of the Dockerfile in a Debian root, without a container engine.

    python deploy/check/images.py --role agent [--role gateway ...] [--build-arg KEY=VALUE] [--json]

Needs root and debootstrap. Each stage is a folder; RUN is a chroot, COPY a copy, ``FROM scratch``
an empty folder. What comes out is measured, and its ENTRYPOINT is run as USER in a root that
cannot be written: it has to become ready, as its HEALTHCHECK says, and to end by SIGTERM. What only
an engine does is not checked: layers, image metadata, networks, limits.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile_parse import DockerfileParser

SOURCE = Path(__file__).resolve().parents[2]
DOCKERFILE = SOURCE / "deploy" / "docker" / "Dockerfile"
DEBIAN = "debian:bookworm-slim"
# Nothing that a folder could show.
IGNORED = ("VOLUME", "EXPOSE", "STOPSIGNAL", "LABEL", "COMMENT")
READY_S = 90.0
END_S = 30.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# What the engine takes from its host, so that steps reach the same package servers.
FROM_HOST = (
    *("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs"),
    *("/etc/apt/sources.list", "/etc/apt/sources.list.d", "/etc/apt/apt.conf.d"),
    *("/etc/apt/keyrings", "/etc/apt/trusted.gpg.d"),
)
ENVIRONMENT = (
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PIP_",
    "SSL_CERT",
)


@dataclass
class Stage:
    """A stage of the build: its root folder and what images remember."""

    root: Path
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)

    def remember(self, name: str, value: str) -> None:
        """Takes an instruction that changes nothing but what the image says of itself."""
        match name:
            case "ENV":
                self.environment |= dict(one.split("=", 1) for one in shlex.split(value))
            case "ARG":
                key, _, default = value.partition("=")
                self.environment.setdefault(key, self.given.get(key, default.strip('"')))
            case "SHELL":
                self.shell = json.loads(value)
            case "USER":
                self.user = value
            case "ENTRYPOINT":
                self.entrypoint = json.loads(value)
            case "HEALTHCHECK":
                self.health = json.loads(value[value.index("[") :])
            case _:
                raise SystemExit(f"images.py does not know {name}: teach it")


class Build:
    """Runs the instructions up to a target.

    Args:
        folder: where stages are built.
        note: told each step.
        given: values of build arguments.
    """

    def __init__(
        self, folder: Path, note: Callable[[str], None], given: dict[str, str] | None = None
    ) -> None:
        self._folder, self._note, self._given = folder, note, given or {}
        self._stages: dict[str, Stage] = {}
        self._debian = folder / "debian"

    def run(self, target: str) -> Stage:
        """The stage with that name, built with all it needs."""
        wanted = _needed(target)
        current: Stage | None = None
        for step in _steps():
            name, value = step["instruction"], step["value"]
            if name == "FROM":
                base, stage = _from(value)
                current = None
                if stage in wanted and stage not in self._stages:
                    self._note(f"FROM {value}")
                    current = self._stages[stage] = self._begun(base, stage)
            elif current is not None:
                self._note(f"{name} {' '.join(value.split())[:100]}")
                self._step(current, name, value)
        return self._stages[target]

    def _begun(self, base: str, stage: str) -> Stage:
        root = self._folder / stage
        if base == "scratch":
            root.mkdir()
            return Stage(root, given=self._given)
        if base in self._stages:
            of = self._stages[base]
            _copy_tree(of.root, root)
            environment = dict(of.environment)
            return Stage(root, list(of.shell), environment, of.workdir, of.user, given=self._given)
        if base != DEBIAN:
            raise SystemExit(f"images.py: only {DEBIAN} can be made here, not {base}")
        self._note("  debootstrap --variant=minbase bookworm (stands in for the image)")
        debian_root(self._debian)
        _copy_tree(self._debian, root)
        return Stage(root, given=self._given)

    def _step(self, stage: Stage, name: str, value: str) -> None:
        if name == "RUN":
            self._run(stage, value)
        elif name == "COPY":
            self._copy(stage, shlex.split(value))
        elif name == "WORKDIR":
            (stage.root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)
            stage.workdir = value
        elif name not in IGNORED:
            stage.remember(name, value)

    def _run(self, stage: Stage, value: str) -> None:
        words = json.loads(value) if value.startswith("[") else [*stage.shell, value]
        environment = {"PATH": _PATH, "DEBIAN_FRONTEND": "noninteractive"}
        change = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', stage.workdir]
        with kernel_files(stage.root), host_files(stage.root):
            subprocess.run(
                ["chroot", str(stage.root), *change, *words],
                check=True,
                cwd="/",
                env=environment | environment_of_host() | stage.environment,
                stdout=subprocess.DEVNULL,
            )

    def _copy(self, stage: Stage, words: list[str]) -> None:
        source = SOURCE
        if words[0].startswith("--from="):
            source = self._stages[words.pop(0).removeprefix("--from=")].root
        *patterns, to = words
        place = stage.root / to.lstrip("/")
        for pattern in patterns:
            relative = pattern.lstrip("/")
            found = sorted(source.glob(relative)) if relative else [source]
            if not found:
                raise SystemExit(f"images.py: COPY {pattern}: there is none in {source}")
            for one in found:
                if one.is_dir():
                    _copy_tree(one, place)
                elif to.endswith("/"):
                    place.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(one, place / one.name)
                else:
                    shutil.copy2(one, place)


def try_out(stage: Stage, role: str, broker_port: int) -> dict[str, object]:
    """Runs what the image would run, with a root that cannot be written; what it came to."""
    port = free_port()
    environment = stage.environment | {
        f"TIERWISE_{role.upper()}": f"{role}-1",
        "TIERWISE_REGION": "cloud" if role == "cloud" else "plant",
        "TIERWISE_HTTP__PORT": str(port),
        "TIERWISE_HTTP__HOST": "127.0.0.1",
        "TIERWISE_BROKER__PORT": str(broker_port),
        "TIERWISE_UPSTREAM__BROKER__PORT": str(broker_port),
    }
    if role != "gateway":
        del environment["TIERWISE_UPSTREAM__BROKER__PORT"]
    own_port = stage.environment["TIERWISE_HTTP__PORT"]
    probe = [word.replace(f":{own_port}", f":{port}") for word in stage.health]
    # By its path: that of the environment is for inside.
    chroot = shutil.which("chroot") or "/usr/sbin/chroot"
    with _read_only(stage) as root:
        enter = [chroot, f"--userspec={stage.user}", "--groups=", str(root)]
        started_s = time.monotonic()
        process = subprocess.Popen(
            [*enter, *stage.entrypoint], env=environment, cwd="/", stderr=subprocess.PIPE, text=True
        )
        try:
            while subprocess.run(
                [*enter, *probe], env=environment, cwd="/", capture_output=True, check=False
            ).returncode:
                if process.poll() is not None or time.monotonic() - started_s > READY_S:
                    process.kill()
                    raise SystemExit(f"{role} is not ready: {process.communicate()[1][-2000:]}")
                time.sleep(0.2)
            ready_s = time.monotonic() - started_s
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=END_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        raise SystemExit(f"{role} ended with exit code {process.returncode}")
    return {"ready_after_s": round(ready_s, 1), "exit_code": process.returncode}


def measured(root: Path) -> dict[str, float]:
    """Size in MB as ``du`` has it, and of its largest parts."""
    parts = ("opt/tierwise", "usr", "opt/tierwise/lib/python3.11/site-packages/onnxruntime")
    return {"/": _du(root)} | {f"/{part}": _du(root / part) for part in parts}


def main() -> None:
    """Builds, tries out and measures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--role", action="append", choices=["agent", "gateway", "cloud"])
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="KEY=VALUE", help="such as EXTRAS=cloud"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument("--keep", type=Path, help="build here, and leave it there")
    arguments = parser.parse_args()
    check_machine()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="tierwise-images-"))
    folder.mkdir(parents=True, exist_ok=True)
    given = dict(one.split("=", 1) for one in arguments.build_arg)
    build = Build(folder, lambda text: print(text, file=sys.stderr, flush=True), given)
    result = {}
    try:
        with _broker(folder) as broker_port:
            for role in arguments.role or ["agent", "gateway", "cloud"]:
                stage = build.run(role)
                tried = try_out(stage, role, broker_port)
                result[role] = {"megabytes": measured(stage.root), **tried}
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(result, indent=2))
        return
    for role, found in result.items():
        size = found["megabytes"]["/"]
        print(f"{role}: {size:.0f} MB, ready after {found['ready_after_s']} s, ended by SIGTERM")


def check_machine() -> None:
    """Ends with what to do where roots cannot be made here."""
    if os.geteuid():
        raise SystemExit("images.py mounts and changes roots: run it as root")
    if shutil.which("debootstrap") is None:
        raise SystemExit("images.py needs debootstrap: apt-get install debootstrap")
    if not list((SOURCE / "dist").glob("tierwise-*.whl")):
        raise SystemExit("there is no wheel: pip wheel --no-deps --wheel-dir dist .")


def debian_root(folder: Path) -> Path:
    """A minimal Debian in this folder, made where there is none yet."""
    if not folder.exists():
        words = ["debootstrap", "--variant=minbase", "bookworm", str(folder), *debian_server()]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder / "var/cache/apt/archives", ignore_errors=True)
    return folder


def _steps() -> list[dict[str, str]]:
    with tempfile.TemporaryDirectory() as scratch:
        # The parser wants a file that it may write.
        copy = Path(scratch) / "Dockerfile"
        shutil.copy(DOCKERFILE, copy)
        steps: list[dict[str, str]] = DockerfileParser(str(copy)).structure
    return steps


def _from(value: str) -> tuple[str, str]:
    base, _, stage = value.partition(" AS ")
    return base.strip(), stage.strip()


def _needed(target: str) -> set[str]:
    """The target and every stage that it takes something from."""
    takes: dict[str, set[str]] = {}
    stage = ""
    for step in _steps():
        if step["instruction"] == "FROM":
            base, stage = _from(step["value"])
            takes[stage] = {base}
        elif step["instruction"] == "COPY" and step["value"].startswith("--from="):
            takes[stage].add(step["value"].split()[0].removeprefix("--from="))
    if target not in takes:
        raise SystemExit(f"{DOCKERFILE} has no target {target}")
    wanted, new = set[str](), {target}
    while new:
        wanted |= new
        new = {one for stage in new for one in takes.get(stage, ()) if one in takes} - wanted
    return wanted


def _copy_tree(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def debian_server() -> list[str]:
    """The package server of this machine, as an argument; empty: the usual one."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    found = subprocess.run(words, check=True, capture_output=True, text=True)
    return found.stdout.split()[:1]


def environment_of_host() -> dict[str, str]:
    """Variables by which package servers are reached."""
    return {name: text for name, text in os.environ.items() if name.startswith(ENVIRONMENT)}


@contextmanager
def kernel_files(root: Path) -> Iterator[None]:
    """With the one file system of the kernel that steps look at; devices are in the root."""
    place = root / "proc"
    place.mkdir(exist_ok=True)
    _mount("-t", "proc", "proc", str(place))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def host_files(root: Path) -> Iterator[None]:
    """With what an engine would bring along to reach package servers; taken out again."""
    kept: list[tuple[Path, Path | None]] = []
    for name in FROM_HOST:
        source, place = Path(name), root / name.lstrip("/")
        if not source.exists():
            continue
        before = None
        if place.exists():
            before = place.with_name(f"{place.name}.of-image")
            place.rename(before)
        kept.append((place, before))
        if source.is_dir():
            shutil.copytree(source, place)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)
    try:
        yield
    finally:
        for place, before in kept:
            _remove(place)
            if before is not None and before.exists():
                before.rename(place)


@contextmanager
def _read_only(stage: Stage) -> Iterator[Path]:
    """The root as a container with ``read_only: true`` has it: only its volume can be written."""
    with tempfile.TemporaryDirectory() as scratch:
        root, state = Path(scratch) / "root", Path(scratch) / "state"
        root.mkdir()
        state.mkdir()
        uid, _, gid = stage.user.partition(":")
        os.chown(state, int(uid), int(gid))
        (stage.root / "proc").mkdir(exist_ok=True)
        _mount("--bind", str(stage.root), str(root))
        try:
            _mount("-o", "remount,bind,ro", str(root))
            _mount("--bind", str(state), str(root / stage.workdir.lstrip("/")))
            _mount("-t", "proc", "proc", str(root / "proc"))
            yield root
        finally:
            subprocess.run(["umount", "-R", "-l", str(root)], check=True)


@contextmanager
def _broker(folder: Path) -> Iterator[int]:
    """A broker that lets everyone of this machine in."""
    port, settings = free_port(), folder / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    process = subprocess.Popen([path, "-c", str(settings)], stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _du(place: Path) -> float:
    words = ["du", "-sxm", "--apparent-size", str(place)]
    return float(
        subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0]
    )


if __name__ == "__main__":
    main()
