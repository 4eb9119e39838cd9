#!/usr/bin/env bash
# Fuzzes every decoder of bytes from the store, the local disk and the command line (tests/fuzz), each for some time.
#   scripts/fuzz.sh [SECONDS] [TARGET...]     60 seconds and all targets unless said otherwise
# What was learned stays in target/fuzz/corpus and is gone on with. An input that fails goes to target/fuzz/failed; mend the
# decoder, and put the input into tests/fuzz/found/TARGET, where every run of the tests tries it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=60
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then seconds=$1; shift; fi
folder=$(scripts/target.sh)/fuzz
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=($(cd tests/fuzz/fuzz_targets && ls | sed 's/\.rs$//'))

# Only the program's own crates are instrumented, so that nothing else is built again; a stable compiler can do it.
mkdir -p "$folder"
cat >"$folder/rustc" <<'WRAPPER'
#!/bin/sh
exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks
WRAPPER
chmod +x "$folder/rustc"
bins=(); for target in "${targets[@]}"; do bins+=(--bin "$target"); done
RUSTC_WORKSPACE_WRAPPER="$folder/rustc" cargo build -p hushfs-fuzz "${bins[@]}"
export HUSHFS_FUZZ_CORPUS="$folder/corpus"

status=0
for target in "${targets[@]}"; do
    mkdir -p "$folder/failed" "$folder/corpus/$target"
    echo "== $target"
    # The targets hold themselves to a limit of memory for each input; these are against what they do not count.
    "$folder/../debug/$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -max_len=65536 \
        -artifact_prefix="$folder/failed/$target-" -print_final_stats=1 "$folder/corpus/$target" 2>&1 |
        grep -E "^(stat::|SUMMARY|thread|artifact|==)|panicked|assertion|ERROR" || true
    ! compgen -G "$folder/failed/$target-*" >/dev/null || status=1
done
[ "$status" = 0 ] || echo "fuzz.sh: see $folder/failed" >&2
exit "$status"
