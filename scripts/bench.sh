#!/usr/bin/env bash
# Measures hushfs on a local store against an in-memory FUSE filesystem (the ceiling) and ext4 or whatever the
# temporary folder is on, in turn, and prints medians and ratios; and first what sealing, hashing and verifying cost of
# that. Figures of one run compare; those of two do not.
#   scripts/bench.sh [--rounds 3] [--only costs,write,read,fetch,create,stat,fsync,untar]
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh try
cargo build --release --bin hushfs --example memfs --example costs
target=$(scripts/target.sh)
exec python3 scripts/bench.py --hushfs "$target/release/hushfs" --memfs "$target/release/examples/memfs" \
    --costs "$target/release/examples/costs" "$@"
