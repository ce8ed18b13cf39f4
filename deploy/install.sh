#!/bin/sh
# Installs one tier as a systemd service: Debian 12, Raspberry Pi OS 12, Ubuntu 22.04 (JetPack 6) and later.
#   sudo sh deploy/install.sh --role agent --id camera-1 --region plant-north --broker gateway.example
# Run again, it upgrades: the new version is installed beside the old one, checked, and taken into use by
# the exchange of one link; `--back` takes the one before into use again. Settings, once written, are never touched.
set -eu
# The service is another user: a strict mask of root's shell would keep it out.
umask 022

usage() {
    cat <<'TEXT'
usage: install.sh --role agent|gateway|cloud --id NAME --region REGION [options]
  --broker HOST[:PORT]  MQTT broker (127.0.0.1:1883)
  --package WHAT        what pip installs: a wheel, a folder, or a requirement (tierwise)
  --extras LIST         optional parts, with commas between them: tflite, s3, plots
  --python PATH         the Python to use: 3.11 or newer (the newest that is found)
  --no-start            enable the service, and do not start it
  --dry-run             say what would be done
  --back                take the version before into use again
  --uninstall           remove program and service; settings and state stay
TEXT
}

say() { printf 'install: %s\n' "$*"; }
fail() {
    printf 'install: %s\n' "$*" >&2
    exit 1
}
run() {
    if [ "$is_dry" = 1 ]; then printf 'would run: %s\n' "$*"; else "$@"; fi
}

role='' id='' region='' broker=127.0.0.1:1883 package=tierwise extras='' python=''
is_dry=0 starts=1 wanted=install
while [ $# -gt 0 ]; do
    case $1 in
        --role | --id | --region | --broker | --package | --extras | --python)
            [ $# -ge 2 ] || fail "$1 needs a value; --help lists the options"
            name=${1#--}
            # Only names from the line above come here.
            eval "$name=\$2"
            shift
            ;;
        --no-start) starts=0 ;;
        --dry-run) is_dry=1 ;;
        --back) wanted=back ;;
        --uninstall) wanted=uninstall ;;
        -h | --help) usage && exit 0 ;;
        *) fail "unknown option $1; --help lists them" ;;
    esac
    shift
done

case $role in
    agent | gateway | cloud) ;;
    '') fail "say --role agent, gateway or cloud; --help lists the options" ;;
    *) fail "there is no role $role: agent, gateway or cloud" ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
unit=tierwise-$role.service
programs=/opt/tierwise
settings=/etc/tierwise/$role.toml
units=/etc/systemd/system

[ "$is_dry" = 1 ] || [ "$(id -u)" = 0 ] || fail "this writes to /opt and /etc: run it with sudo"

# There is none where an image is made.
has_systemd() { [ -d /run/systemd/system ]; }
systemd() { if has_systemd; then run systemctl "$@"; fi; }

if [ "$wanted" = uninstall ]; then
    systemd disable --now "$unit"
    run rm -f "$units/$unit" "$units/multi-user.target.wants/$unit"
    systemd daemon-reload
    # Other roles may use the same program.
    if [ "$is_dry" = 1 ] || ! ls "$units"/tierwise-*.service >/dev/null 2>&1; then run rm -rf "$programs"; fi
    say "removed; settings are in /etc/tierwise, state is in /var/lib/tierwise-$role"
    exit 0
fi

if [ "$wanted" = back ]; then
    [ -L "$programs/previous" ] || fail "there is no version before this one"
    now=$(readlink "$programs/current")
    run ln -sfn "$(readlink "$programs/previous")" "$programs/current.new"
    run mv -T "$programs/current.new" "$programs/current"
    run ln -sfn "$now" "$programs/previous"
    systemd restart "$unit"
    say "the version before is in use"
    exit 0
fi

[ -n "$id" ] || fail "say --id: the name of this $role, unique in its region"
[ -n "$region" ] || fail "say --region"
for text in "$id" "$region"; do
    case $text in
        *[!A-Za-z0-9._-]* | [!A-Za-z0-9]*) fail "$text: names have letters, digits, '.', '_' and '-'" ;;
    esac
done
host=${broker%:*}
port=${broker##*:}
[ "$port" != "$broker" ] || port=1883
case $port in *[!0-9]* | '') fail "--broker is HOST or HOST:PORT, not $broker" ;; esac
case $host in *[!A-Za-z0-9._:-]* | '') fail "--broker is HOST or HOST:PORT, not $broker" ;; esac

case $(uname -m) in
    x86_64 | aarch64) ;;
    *) fail "there are no wheels of ONNX Runtime for $(uname -m): a 64-bit system is needed" ;;
esac

is_new_enough() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
if [ -z "$python" ]; then
    for one in python3.14 python3.13 python3.12 python3.11 python3; do
        if command -v "$one" >/dev/null && is_new_enough "$(command -v "$one")"; then
            python=$(command -v "$one")
            break
        fi
    done
fi
[ -n "$python" ] || fail "no Python 3.11 with venv here: apt-get install python3-venv (Debian 12 and Raspberry Pi OS 12 \
and later), or python3.11-venv (Ubuntu 22.04, JetPack 6); older systems: use the container"
is_new_enough "$python" || fail "$python is older than 3.11, or has no venv"

place=$programs/$(date -u +%Y%m%dT%H%M%SZ)
what=$package
[ -z "$extras" ] || what="${package}[$extras]"
say "installing $what for $python into $place"
run mkdir -p "$programs" /etc/tierwise "$units"
if [ "$is_dry" = 0 ]; then
    # Half an installation is never taken into use.
    trap 'rm -rf "$place"' EXIT
    "$python" -m venv "$place"
    "$place/bin/python" -m pip --disable-pip-version-check install --quiet --no-cache-dir "$what"
    "$place/bin/tierwise" --version >/dev/null || fail "what was installed does not run"
fi

if [ -e "$settings" ]; then
    say "$settings stays as it is"
elif [ "$is_dry" = 1 ]; then
    say "would write $settings"
else
    {
        printf '# Everything that can be set: tierwise config schema --tier %s --toml\n' "$role"
        printf '%s = "%s"\nregion = "%s"\n\n' "$role" "$id" "$region"
        printf '[broker]\nhost = "%s"\nport = %s\n' "$host" "$port"
    } >"$settings"
    chmod 0644 "$settings"
fi
if [ "$is_dry" = 0 ]; then
    tier=$role
    [ "$role" != agent ] || tier=edge
    "$place/bin/tierwise" config check --tier "$tier" --config "$settings" ||
        fail "the settings are not usable (above): nothing was changed, what ran goes on"
    trap - EXIT
fi

run cp "$here/systemd/$unit" "$units/$unit"
if [ -L "$programs/current" ]; then run ln -sfn "$(readlink "$programs/current")" "$programs/previous"; fi
run ln -sfn "$(basename "$place")" "$programs/current.new"
run mv -T "$programs/current.new" "$programs/current"
# The latest two stay, and what another role still runs from.
if [ "$is_dry" = 0 ]; then
    for old in "$programs"/2*Z; do
        name=$(basename "$old")
        [ "$name" = "$(readlink "$programs/current")" ] || [ "$name" = "$(readlink "$programs/previous" || :)" ] ||
            grep -qsF "$old/" /proc/[0-9]*/cmdline || rm -rf "$old"
    done
fi

if has_systemd; then
    systemd daemon-reload
    systemd enable "$unit"
    if [ "$starts" = 1 ]; then
        # Waits until it says that it is ready.
        run systemctl restart "$unit" || fail "it does not start: journalctl -u $unit; the version before: $0 --role $role --back"
        say "$unit runs: systemctl status $unit"
    fi
else
    run mkdir -p "$units/multi-user.target.wants"
    run ln -sfn "../$unit" "$units/multi-user.target.wants/$unit"
    say "$unit is installed and starts at the next boot"
fi
