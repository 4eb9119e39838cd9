#!/usr/bin/env bash
# Azurite, Microsoft's Azure Blob server for tests, on loopback.
#
#   scripts/azurite.sh up DIR PORT    install it (npm) if it is missing, start it, make the container `hushfs`
#   scripts/azurite.sh down DIR       stop it by the pid in DIR
#
# Its account and key are the ones that all Azure clients know as the emulator's.
set -euo pipefail
cd "$(dirname "$0")/.."

version=3.37.0
program=$(scripts/target.sh)/azurite

install_missing() {
    [ "$(cat "$program/version" 2>/dev/null)" = "$version" ] && return
    if ! command -v npm >/dev/null; then
        echo "azurite.sh: npm is missing: scripts/install.sh test" >&2
        return 1
    fi
    echo "azurite.sh: installing azurite $version" >&2
    mkdir -p "$program"
    npm install --silent --no-fund --no-audit --prefix "$program" "azurite@$version"
    echo "$version" > "$program/version"
}

make_container() {
    python3 - "$1" <<'PYTHON'
import base64, email.utils, hashlib, hmac, sys, urllib.request

account, container = "devstoreaccount1", "hushfs"
key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
date, version = email.utils.formatdate(usegmt=True), "2021-08-06"
text = "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{account}/{account}/{container}\nrestype:container"
signature = base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), hashlib.sha256)).decode()
headers = {"x-ms-date": date, "x-ms-version": version, "Authorization": f"SharedKey {account}:{signature}", "Content-Type": ""}
url = f"{sys.argv[1]}/{account}/{container}?restype=container"
urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b"", headers=headers))
PYTHON
}

up() {
    local dir=$1 port=$2
    install_missing
    mkdir -p "$dir"
    "$program/node_modules/.bin/azurite-blob" --silent --skipApiVersionCheck --disableTelemetry --inMemoryPersistence \
        --blobHost 127.0.0.1 --blobPort "$port" >"$dir/log" 2>&1 &
    echo $! > "$dir/pid"
    for _ in $(seq 100); do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && { make_container "http://127.0.0.1:$port"; return; }
        sleep 0.2
    done
    cat "$dir/log" >&2
    echo "azurite.sh: it did not start" >&2
    return 1
}

down() {
    [ -s "$1/pid" ] || return 0
    local pid
    pid=$(cat "$1/pid")
    # The number may have gone to another process meanwhile.
    if grep -qa azurite "/proc/$pid/cmdline" 2>/dev/null; then kill "$pid"; fi
    rm -f "$1/pid"
}

case "${1:-}" in
    up) up "${2:?a folder}" "${3:?a port}" ;;
    down) down "${2:?a folder}" ;;
    *) sed -n '2,7p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2 ;;
esac
