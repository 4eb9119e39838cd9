#!/usr/bin/env bash
# What strict suites say of a mounted drive, at full length: our own checks, all of pjdfstest, and fsx with mmap,
# holes, copy_file_range and the drive mounted again on the way. Installs what it needs; run it as root, since
# most of pjdfstest changes users. `scripts/test.sh` runs the same with few fsx operations.
#   scripts/posix.sh [--operations 200000] [--seeds "1 2 3"] [--entries 1000000] [--pjdfstest DIR]
# DIR is a checkout of the original pjdfstest (github.com/pjd/pjdfstest), which then runs as well.
set -euo pipefail

pjdfstest=
operations=200000 seeds="1 2 3" entries=1000000
while [ $# -gt 0 ]; do
    case "$1" in
        --operations) operations=$2 ;;
        --seeds) seeds=$2 ;;
        --entries) entries=$2 ;;
        --pjdfstest) pjdfstest=$(realpath "$2") ;;
        *) sed -n '2,6p' "$0" | sed 's/^# //' >&2; exit 2 ;;
    esac
    shift 2
done
cd "$(dirname "$0")/.."
[ "$(id -u)" = 0 ] || { echo "posix.sh: run it as root" >&2; exit 2; }

scripts/install.sh test
ignored=()
if [ -n "$pjdfstest" ]; then
    scripts/install.sh pjdfstest
    # Built in a copy: the checkout stays as it is.
    suite=$(mktemp -d "${TMPDIR:-/tmp}/hushfs-pjdfstest.XXXXXX")
    trap 'rm -rf "$suite"' EXIT
    cp -r "$pjdfstest/." "$suite"
    chmod 755 "$suite"
    (cd "$suite" && autoreconf -ifs && ./configure -q && make -s)
    export HUSHFS_PJDFSTEST=$suite
    ignored=(--include-ignored)
fi
export HUSHFS_FSX_OPERATIONS=$operations HUSHFS_FSX_SEEDS=$seeds HUSHFS_ENTRIES=$entries
# Not through nextest, which ends tests that run long.
cargo test --test posix -- --test-threads=1 --show-output "${ignored[@]}"
