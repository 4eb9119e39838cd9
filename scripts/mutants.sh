#!/usr/bin/env bash
# Changes one expression of the checks after another and runs the unit tests of its layer: a change that no test notices
# is a check that could be missing. scripts/mutants.toml lists those that make no difference, each with why.
#   scripts/mutants.sh [--checks] [--shard K/N] [--iterate] [--list] [FILE...]
# FILE is under src/, or a folder there; without any it is those below. --checks changes only comparisons, negations and what
# a check as a whole says; --iterate goes on where the last run ended; --list runs nothing. What was caught and missed is in
# target/mutants/LAYER.out/mutants.out.
#
# What makes it fast: layers import only downward, so a file is mutated in a crate of its own layer and those below, and
# that crate alone is built without optimising, which takes seconds; the first test that fails ends a run.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-mutants >/dev/null || cargo install --debug --locked cargo-mutants
command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest

layers=(base crypto format disk store cache content meta vfs)
arguments=() files=()
while [ $# -gt 0 ]; do
    case "$1" in
        --checks) arguments+=(--re 'replace (<|>|==|!=|<=|>=|&&|\|\|) with|delete !|-> bool with|with Ok\(\(\)\)') ;;
        --shard) arguments+=(--shard "$2"); shift ;;
        --list | --iterate) arguments+=("$1") ;;
        -*) sed -n '2,7s/^# //p' "$0" >&2; exit 2 ;;
        *) files+=("${1#src/}") ;;
    esac
    shift
done
if [ ${#files[@]} -eq 0 ]; then
    files=(crypto format content/reader.rs content/reader content/seal.rs meta/log.rs meta/log/check.rs meta/keyring.rs
        meta/keyring meta/checkpoint/load.rs meta/mounting.rs)
fi

# slice LAYER: makes a crate of that layer and those below it.
slice() {
    local crate=$1 layer
    mkdir -p "$crate"
    rsync -a --delete --checksum --exclude /main.rs src/ "$crate/src/"
    for layer in "${layers[@]}"; do
        echo "pub mod $layer;"
        [ "$layer" = "$2" ] && break
    done >"$crate/src/lib.rs"
    # Programs and examples stay out.
    awk '/^\[/ { skip = /^\[\[/ || /^.workspace/ } !skip' Cargo.toml >"$crate/Cargo.toml.new"
    printf '\n[workspace]\n' >>"$crate/Cargo.toml.new"
    cmp -s "$crate/Cargo.toml.new" "$crate/Cargo.toml" || cp "$crate/Cargo.toml.new" "$crate/Cargo.toml"
    cp Cargo.lock "$crate"
}

target=$(scripts/target.sh)
mkdir -p "$target/mutants"
exec 9>"$target/mutants/lock"
flock -n 9 || { echo "mutants.sh: another run is under way" >&2; exit 1; }
status=0
for layer in "${layers[@]}"; do
    chosen=()
    for file in "${files[@]}"; do
        [ "${file%%/*}" = "$layer" ] || continue
        if [ -d "src/$file" ]; then chosen+=(--file "src/$file/**"); else chosen+=(--file "src/$file"); fi
    done
    [ ${#chosen[@]} -gt 0 ] || continue
    # What format's tests hold against crypto counts, too. The tests of the layers below see no mutant.
    highest=$layer tests="test(/^$layer::/)"
    [ "$layer" = crypto ] && highest=format tests="test(/^(crypto|format)::/)"
    crate=$target/mutants/$highest
    slice "$crate" "$highest"
    # A mutant that hangs is caught: no test of these layers takes a minute.
    CARGO_TARGET_DIR="$target/mutants/build" CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1 \
        cargo mutants --dir "$crate" --in-place --config scripts/mutants.toml --output "$target/mutants/$layer.out" \
        --test-tool nextest --cargo-arg=--config=profile.dev.package.hushfs.opt-level=0 \
        --cargo-arg=--config=profile.dev.package.hushfs.codegen-units=256 \
        --cargo-test-arg=--max-fail=1:immediate --minimum-test-timeout 60 --no-shuffle --colors never \
        "${chosen[@]}" "${arguments[@]}" -- --lib -E "$tests" || status=$?
done
exit "$status"
