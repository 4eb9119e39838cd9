#!/usr/bin/env bash
# All tests: formatting, lints, dependencies, and everything that runs, with real FUSE mounts, a real S3 server
# and Azurite. Installs what it needs.
#   scripts/test.sh            all of it
#   scripts/test.sh FILTER...  only the tests that nextest's filter names
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install.sh test

work=$(mktemp -d)
# Suites act as other users, too.
chmod 755 "$work"
cleanup() {
    set +e
    # One that is still starting cannot be ended yet.
    wait
    # A test that failed may leave its mount; none of ours outlives this script.
    grep -F "$work" /proc/self/mounts | cut -d' ' -f2 | while read -r mount; do umount -l "$mount"; done
    scripts/rgw.sh down "$work/rgw"
    scripts/azurite.sh down "$work/azurite"
    rm -rf "$work"
}
trap cleanup EXIT

free_port() {
    local port=$1
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}
port=$(free_port "${HUSHFS_TEST_S3_PORT:-9104}")
scripts/rgw.sh up "$work/rgw" "$port" >"$work/rgw.log" 2>&1 &
rgw=$!
export HUSHFS_TEST_S3="http://127.0.0.1:$port"
port=$(free_port "${HUSHFS_TEST_AZURE_PORT:-10104}")
scripts/azurite.sh up "$work/azurite" "$port" >"$work/azurite.log" 2>&1 &
azurite=$!
export HUSHFS_TEST_AZURE="http://127.0.0.1:$port"
export HUSHFS_TEST_TMP="$work"

# Clippy's driver compiles as rustc does. Called as `cargo clippy` calls it, but for a build, lints and tests need
# one build instead of two.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS="-Dwarnings__CLIPPY_HACKERY__"
if [ -n "${CI:-}" ]; then
    # Nothing is built a second time, and fewer units are less work.
    export CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_CODEGEN_UNITS=2
    # The same cases each time: what is found must be due to the change. Who runs this by hand draws others.
    export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20260101}
fi

if [ $# -eq 0 ]; then
    cargo fmt --check
    cargo deny --log-level error --config scripts/deny.toml check bans licenses sources
    if ! cargo deny --offline --log-level error --config scripts/deny.toml check advisories 2>/dev/null; then
        echo "note: no advisory database within reach; advisories were not checked" >&2
    fi
fi

cargo nextest run --no-run "$@"
wait "$rgw" || { cat "$work/rgw.log" >&2; exit 1; }
wait "$azurite" || { cat "$work/azurite.log" >&2; exit 1; }
cargo nextest run --no-fail-fast "$@"
