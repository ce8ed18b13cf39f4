#!/bin/sh
# Makes what compose.yaml needs and nobody should share: passwords, and the wheel that images install.
#   sh deploy/compose/prepare.sh
# Passwords that are there stay. Needs mosquitto_passwd (package mosquitto) and Python 3.11.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
secrets=$here/secrets
umask 077
mkdir -p "$secrets"
for tool in mosquitto_passwd python3; do
    command -v "$tool" >/dev/null || {
        echo "prepare: $tool is missing: apt-get install mosquitto python3" >&2
        exit 1
    }
done
new_password() { python3 -c 'import secrets; print(secrets.token_urlsafe(24))'; }

# One password for the tiers of this machine; each speaks under its own name.
if [ ! -e "$secrets/tiers.env" ]; then
    password=$(new_password)
    printf 'TIERWISE_BROKER__PASSWORD=%s\n' "$password" >"$secrets/tiers.env"
    printf 'TIERWISE_UPSTREAM__BROKER__PASSWORD=%s\n' "$password" >"$secrets/gateways.env"
    : >"$secrets/tierwise.passwords"
    for user in cloud-1 gateway-1 gateway-2 camera-1 operator; do
        mosquitto_passwd -b "$secrets/tierwise.passwords" "$user" "$password"
    done
    # The broker of the image runs as this user.
    chown 1883:1883 "$secrets/tierwise.passwords" 2>/dev/null || chmod 0644 "$secrets/tierwise.passwords"
fi
[ -e "$secrets/grafana.password" ] || new_password >"$secrets/grafana.password"
if [ ! -e "$secrets/database.env" ]; then
    password=$(new_password)
    printf '%s\n' "$password" >"$secrets/database.password"
    printf 'PGPASSWORD=%s\n' "$password" >"$secrets/database.env"
fi
# Mounted as they are, for users of other images; nobody else on this machine gets into the folder.
chmod 0644 "$secrets/grafana.password" "$secrets/database.password"
# One wheel, of what is here now: images are built from whatever lies there.
dist=$here/../../dist
rm -f "$dist"/tierwise-*.whl
python3 -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir "$dist" "$here/../.."
echo "prepare: passwords are in $secrets; agents elsewhere need one of their own:"
echo "  mosquitto_passwd $secrets/tierwise.passwords camera-2"
