#!/usr/bin/env bash
# Installs what building, trying or testing hushfs needs on Debian or Ubuntu:
#   scripts/install.sh build|try|test|programs|pjdfstest
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(gcc make pkg-config libssl-dev)
case "${1:-build}" in
    build) ;;
    try) packages+=(fuse3) ;;
    test) packages+=(fuse3 gdb python3-venv acl attr rsync sqlite3 strace xz-utils linux-source-6.1 ceph-mon ceph-osd ceph-common radosgw curl chromium) ;;
    programs) packages+=(fuse3 acl attr rsync sqlite3 git tar xz-utils linux-source-6.1 procps postgresql python3-lmdb) ;;
    pjdfstest) packages+=(autoconf automake perl openssl) ;;
    *) echo "usage: scripts/install.sh build|try|test|programs|pjdfstest" >&2; exit 2 ;;
esac

# Whoever has another Node.js than Debian's keeps it.
if [ "${1:-build}" = test ] && ! command -v npm >/dev/null; then packages+=(nodejs npm); fi

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing ${missing[*]}" >&2
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
fi
if ! command -v cargo >/dev/null; then
    echo "a Rust toolchain is needed: https://rustup.rs" >&2
    exit 1
fi
if [ "${1:-build}" = test ]; then
    command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest
    command -v cargo-deny >/dev/null || cargo install --debug --locked --no-default-features cargo-deny
    # Suites for filesystems, in the profile that builds in the shortest time.
    suites=()
    for suite in pjdfstest fsx; do
        command -v "$suite" >/dev/null || suites+=("$suite")
    done
    if [ ${#suites[@]} -gt 0 ]; then
        CARGO_PROFILE_DEV_DEBUG=0 cargo install --debug --locked "${suites[@]}"
    fi
    # What drives the browser, pinned.
    browser=$(scripts/target.sh)/browser
    if ! cmp -s tests/browser/package-lock.json "$browser/installed.json"; then
        mkdir -p "$browser"
        cp tests/browser/package.json tests/browser/package-lock.json "$browser/"
        npm ci --silent --no-fund --no-audit --prefix "$browser"
        cp tests/browser/package-lock.json "$browser/installed.json"
    fi
    # The modules that scripts/decode.py needs, of the versions it was tried with.
    venv=$(scripts/target.sh)/decode-venv
    if ! cmp -s scripts/decode-requirements.txt "$venv/installed.txt"; then
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install -q --disable-pip-version-check -r scripts/decode-requirements.txt
        cp scripts/decode-requirements.txt "$venv/installed.txt"
    fi
    # Those that the vectors' reader in JavaScript needs.
    modules=$(scripts/target.sh)/webcrypto
    if ! cmp -s tests/golden/webcrypto/package-lock.json "$modules/installed.json"; then
        mkdir -p "$modules"
        cp tests/golden/webcrypto/package.json tests/golden/webcrypto/package-lock.json "$modules"
        npm ci --silent --no-fund --no-audit --prefix "$modules"
        cp tests/golden/webcrypto/package-lock.json "$modules/installed.json"
    fi
fi
