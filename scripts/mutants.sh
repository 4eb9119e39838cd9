#!/usr/bin/env bash
# Changes one expression of the checks after another and runs the unit tests of its layer, or those of whole drives
# (tests/threats.rs, tests/faults.rs) for what mounts them: a change that no test notices is a check that could be missing.
# scripts/mutants.toml lists those that make no difference, each with why.
#   scripts/mutants.sh [--checks] [--only REGEX] [--shard K/N] [--iterate] [--list] [FILE...]
# FILE is under src/, or a folder there; without any it is those below. --checks changes only comparisons, negations and
# what a check as a whole says, --only those whose name fits; --iterate goes on where the last run ended; --list runs
# nothing. What was caught and missed is in target/mutants/LAYER.out/mutants.out.
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
        --only) arguments+=(--re "$2"); shift ;;
        --shard) arguments+=(--shard "$2"); shift ;;
        --list | --iterate) arguments+=("$1") ;;
        -*) sed -n '2,8s/^# //p' "$0" >&2; exit 2 ;;
        *) files+=("${1#src/}") ;;
    esac
    shift
done
if [ ${#files[@]} -eq 0 ]; then
    files=(crypto format content/reader.rs content/reader content/seal.rs meta/log.rs meta/log/check.rs meta/keyring.rs
        meta/keyring meta/checkpoint/load.rs meta/mounting.rs)
fi

# Mostly tried by whole drives: who opens a volume needs all of it.
by_drives=(meta/keyring.rs meta/keyring meta/mounting.rs)

# slice CRATE LAYER: makes a crate of that layer and those below it.
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

# mutate NAME HIGHEST-LAYER FILE... -- TESTS...
mutate() {
    local name=$1 crate=$target/mutants/$2 highest=$2 chosen=()
    shift 2
    while [ "$1" != -- ]; do
        if [ -d "src/$1" ]; then chosen+=(--file "src/$1/**"); else chosen+=(--file "src/$1"); fi
        shift
    done
    slice "$crate" "$highest"
    if [ "$highest" = vfs ]; then
        rsync -a --delete --include /threats.rs --include '/threats/***' --include /faults.rs --include '/faults/***' \
            --include '/support/***' --exclude '*' tests/ "$crate/tests/"
    fi
    # A mutant that hangs is caught: no test takes a minute.
    CARGO_TARGET_DIR="$target/mutants/build" CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=1 NEXTEST_TEST_THREADS=4 \
        cargo mutants --dir "$crate" --in-place --config scripts/mutants.toml --output "$target/mutants/$name.out" \
        --test-tool nextest --cargo-arg=--config=profile.dev.package.hushfs.opt-level=0 \
        --cargo-arg=--config=profile.dev.package.hushfs.codegen-units=256 \
        --cargo-test-arg=--max-fail=1:immediate --minimum-test-timeout 60 --no-shuffle --colors never \
        "${chosen[@]}" "${arguments[@]}" "$@" || status=$?
}

target=$(scripts/target.sh)
mkdir -p "$target/mutants"
exec 9>"$target/mutants/lock"
flock -n 9 || { echo "mutants.sh: another run is under way" >&2; exit 1; }
status=0
for layer in "${layers[@]}"; do
    own=() mounts=()
    for file in "${files[@]}"; do
        [ "${file%%/*}" = "$layer" ] || continue
        if [[ " ${by_drives[*]} " = *" $file "* ]]; then mounts+=("$file"); else own+=("$file"); fi
    done
    # What format's tests hold against crypto counts, too. The tests of the layers below see no mutant.
    highest=$layer tests="test(/^$layer::/)"
    [ "$layer" = crypto ] && highest=format tests="test(/^(crypto|format)::/)"
    [ ${#own[@]} -eq 0 ] || mutate "$layer" "$highest" "${own[@]}" -- --lib -E "$tests"
    # What packs and chunks are tried with takes longest, and asks nothing of who opens.
    tests="(binary(threats) - test(/^data::/)) | test(/^meta::(keyring|log|mounting)::/)"
    tests+=" | (binary(faults) & test(/^(damage|devices|late|replay)::|^disk::a_.*journal/))"
    [ ${#mounts[@]} -eq 0 ] || mutate "$layer-mounts" vfs "${mounts[@]}" -- --lib --test threats --test faults -E "$tests"
done
exit "$status"
