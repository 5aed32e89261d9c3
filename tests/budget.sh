#!/usr/bin/env bash
# Counts the instructions of pieces of the engine's work (tests/examples/budget.rs) under callgrind and compares them
# with tests/budget.txt. More than the tolerance is a failure; less is said, so that the figure can be lowered.
#
#   tests/budget.sh            compares
#   tests/budget.sh --write    writes the figures of this tree
#
# The count of one program varies by less than one in a hundred from run to run, but another compiler, or a processor
# without AVX2, runs other instructions: there the figures are printed and compared with nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

tolerance=8 # in a hundred
figures=tests/budget.txt

if ! command -v valgrind >/dev/null; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] && apt-get update -qq \
        && apt-get install -y -qq --no-install-recommends valgrind libc6-dbg >/dev/null; then
        :
    else
        echo "There is no valgrind: nothing is counted. Install it and run this again."
        exit 0
    fi
fi

cargo build --quiet --release --locked -p clearskies-tests --example budget
program="$(cargo metadata --format-version 1 --no-deps --locked \
    | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/examples/budget"
compiler="$(rustc --version | cut -d ' ' -f 2)"

count() {
    local out
    out="$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --collect-atstart=no \
        --toggle-collect='*budget::measured*' "$program" "$1" 2>&1)" || {
        echo "$out" >&2
        return 1
    }
    sed -n 's/.*Collected : \([0-9]*\).*/\1/p' <<<"$out"
}

cases="$("$program" || true)"
if [ "${1:-}" = --write ]; then
    {
        echo "# Instructions for each case of tests/examples/budget.rs; written by tests/budget.sh --write."
        echo "compiler $compiler"
        for case in $cases; do
            echo "$case $(count "$case")"
        done
    } >"$figures.new"
    mv "$figures.new" "$figures"
    cat "$figures"
    exit 0
fi

known="$(sed -n 's/^compiler //p' "$figures")"
comparable=true
if [ "$known" != "$compiler" ]; then
    echo "The figures are of rustc $known, and this is $compiler: nothing is compared."
    comparable=false
elif ! grep -qw avx2 /proc/cpuinfo; then
    echo "This processor has no AVX2: nothing is compared."
    comparable=false
fi

failed=false
for case in $cases; do
    budget="$(sed -n "s/^$case //p" "$figures")"
    now="$(count "$case")"
    if [ -z "$now" ] || [ "$now" = 0 ]; then
        echo "$case: nothing was counted" >&2
        failed=true
    elif [ -z "$budget" ]; then
        echo "$case: $now, and $figures has no figure for it" >&2
        failed=true
    else
        change=$(((now - budget) * 1000 / budget))
        echo "$case: $now instructions, budget $budget ($change in a thousand)"
        if $comparable && [ "$change" -gt $((tolerance * 10)) ]; then
            echo "$case: over the budget by more than $tolerance in a hundred" >&2
            failed=true
        elif $comparable && [ "$change" -lt $((-tolerance * 10)) ]; then
            echo "$case: well below the budget; lower it with tests/budget.sh --write"
        fi
    fi
done
! $failed
