#!/usr/bin/env bash
# Runs each fuzz target for a short time (20 s, or the seconds in FUZZ_SECONDS), with libFuzzer's
# coverage instrumentation and the stable toolchain. Inputs that were found useful stay in
# fuzz/corpus/, one that breaks a target goes to fuzz/artifacts/.
#
# usage: scripts/fuzz-smoke.sh [target...]
set -euo pipefail
cd "$(dirname "$0")/../fuzz"

seconds=${FUZZ_SECONDS:-20}
host=$(rustc -vV | sed -n 's/^host: //p')

# What `cargo fuzz` passes, without the sanitizer, which our code without `unsafe` does not need.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1"

# With a target named, the flags are for the targets and not for build scripts.
CARGO_TARGET_DIR=target cargo build --release --target "$host"

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
    for file in targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
for target in "${targets[@]}"; do
    echo "fuzz: $target for $seconds s"
    mkdir -p "corpus/$target" artifacts
    "target/$host/release/$target" "corpus/$target" -max_total_time="$seconds" -max_len=65536 \
        -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="artifacts/$target-" 2>"artifacts/$target.log" || {
        tail -n 40 "artifacts/$target.log" >&2
        echo "fuzz: $target broke; the input is in fuzz/artifacts/" >&2
        exit 1
    }
    grep -E "number_of_executed_units|new_units_added" "artifacts/$target.log"
done
