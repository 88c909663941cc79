#!/usr/bin/env bash
# Installs what is missing, builds, and runs every check; prints the time of each stage.
#
#   scripts/test.sh                everything that needs no reference stack
#   scripts/test.sh --reference    ... the live comparison with transformers + PEFT + bitsandbytes
#                                  (5.6 GB), the clang build and the suite under sanitizers
#   scripts/test.sh --asan         ... the suite under AddressSanitizer + UBSan
#   scripts/test.sh --clang        ... the clang build
#
# Virtual environments: .venv and .venv-reference, or MEDVQA_VENV and MEDVQA_VENV_REFERENCE.
# Tests that need data sets look for them in MEDVQA_DATA and are skipped, counted, without it.
# The last line is `N passed, N failed, N skipped`.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

reference=no asan=no clang=no
for argument in "$@"; do
  case $argument in
    --reference) reference=yes clang=yes asan=yes ;;
    --asan) asan=yes ;;
    --clang) clang=yes ;;
    *) sed -n '2,12p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//' >&2; exit 2 ;;
  esac
done

venv=${MEDVQA_VENV:-$PWD/.venv}
venv_reference=${MEDVQA_VENV_REFERENCE:-$PWD/.venv-reference}
cores=$(nproc)
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 skipped=0 failures=()
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cores} TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1

# stage NAME COMMAND...: runs it, prints its time and counts its cases: those of the last line
# `N passed, N failed[, N skipped]` of its output, or one case by its exit code.
stage() {
  local name=$1 begin=$SECONDS code counts
  shift
  echo "=== $name"
  "$@" 2>&1 | tee "$logs/output"
  code=${PIPESTATUS[0]}
  counts=$(grep -Eo '[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$logs/output" | tail -1)
  if [ -n "$counts" ]; then
    # shellcheck disable=SC2206
    local numbers=(${counts//[^0-9]/ })
    passed=$((passed + numbers[0])) failed=$((failed + numbers[1]))
    skipped=$((skipped + ${numbers[2]:-0}))
    [ "$code" -eq 0 ] || [ "${numbers[1]}" -gt 0 ] || failed=$((failed + 1))
  elif [ "$code" -eq 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
  fi
  if [ "$code" -ne 0 ]; then
    failures+=("$name")
    mv "$logs/output" "$logs/failed-$name"
  fi
  echo "stage $name: $((SECONDS - begin)) s"
  return "$code"
}

# The tree's C++ and CUDA sources, one a line.
sources() {
  git ls-files -co --exclude-standard -- '*.h' '*.cpp' '*.cu' '*.cuh' |
    while read -r file; do [ ! -f "$file" ] || echo "$file"; done
}

check_format() { sources | xargs -r clang-format --dry-run -Werror; }

# Sources changed since the main branch, or since the last commit where this is the main branch.
changed_sources() {
  local base
  base=$(git merge-base HEAD origin/main 2>/dev/null || true)
  [ "$base" != "$(git rev-parse HEAD)" ] || base=""
  [ -n "$base" ] || base=$(git rev-parse -q --verify HEAD~1 || true)
  { [ -z "$base" ] || git diff --name-only --diff-filter=d "$base"
    git ls-files -o --exclude-standard
  } | sort -u | grep -E '^(src/.*|kernels/(cpu|cuda|emulation)/[^/]*)\.cpp$' || true
}

# At most MEDVQA_TIDY_FILES files (40): a check of everything takes too long for every run.
check_tidy() {
  local files limit=${MEDVQA_TIDY_FILES:-40}
  mapfile -t files < <(changed_sources)
  echo "${#files[@]} changed files, reading at most $limit"
  [ ${#files[@]} -gt 0 ] || return 0
  printf '%s\n' "${files[@]:0:$limit}" |
    xargs -P "$cores" -n 2 timeout 300 clang-tidy -p build/cpu --quiet
}

build() { cmake --preset "$1" && cmake --build --preset "$1" --parallel "$cores"; }

# The CUDA build for one architecture: the kernels, the program and the kernels' tests, linked but
# not run; what ptxas spills; cuDNN's graphs, which need no device. In two minutes where ccache has
# the host's objects.
build_cuda() {
  local nvcc targets=(medvqa test_kernels_cuda) graphs=build/cuda-ci/tests/test_attention_graph
  if ! nvcc=$(PATH=$PATH:$PWD/.cuda/toolkit/bin:/usr/local/cuda/bin command -v nvcc); then
    echo "skipped: no nvcc (scripts/install_cuda.sh brings one)"
    echo "0 passed, 0 failed, 1 skipped"
    return 0
  fi
  cmake --preset cuda -B build/cuda-ci -DCMAKE_CUDA_COMPILER="$nvcc" \
    -DMEDVQA_CUDA_ARCHITECTURES=90-real \
    -DMEDVQA_CUDNN_FRONTEND="$(echo "$venv"/lib/python3*/site-packages/include)" || return
  if cmake --build build/cuda-ci --target help | grep test_attention_graph >/dev/null; then
    targets+=(test_attention_graph)
  else
    graphs=""
  fi
  cmake --build build/cuda-ci --parallel "$cores" --target "${targets[@]}" &&
    python3 scripts/kernel_table.py --check --build build/cuda-ci --jobs "$cores" || return
  if [ -z "$graphs" ]; then
    echo "skipped: no cuDNN here, its graphs are not checked"
    echo "1 passed, 0 failed, 1 skipped"
    return 0
  fi
  "$graphs" && echo "2 passed, 0 failed"
}

suite() {
  rm -f "$PWD/build/$1/tests.xml"
  ctest --preset "$1" -j 2 --no-tests=error --output-junit "$PWD/build/$1/tests.xml" \
    >"$logs/ctest" 2>&1
  tail -n 60 "$logs/ctest"
  python3 scripts/count_tests.py "build/$1/tests.xml"
}

# Out of a bundle, as on another machine: where a mount namespace can be had, without this tree.
gpu_check_cpu() {
  # shellcheck disable=SC2016
  local elsewhere=(unshare --map-root-user --mount
    sh -c 'mount -t tmpfs none "$0" && cd / && exec "$@"' "$PWD")
  scripts/make_bundle.sh --build build/cpu --out "$logs/bundle.tar.gz" &&
    tar -C "$logs" -xf "$logs/bundle.tar.gz" || return
  if ! "${elsewhere[@]}" true; then
    echo "no mount namespace here: the source tree stays within reach"
    elsewhere=()
  fi
  "${elsewhere[@]}" "$logs"/medvqa-*/gpu_check.sh --device cpu \
    --only doctor,tests,bench,configs,plan,agreement --out "$logs/gpu_check"
}

# What failed stages said, once more: of a long log often only the end is kept.
finish() {
  local name
  for name in "${failures[@]}"; do
    echo "--- from failed stage $name:"
    { grep -aE 'FAILED|Failure|[Ee]rror[: ]|seed [0-9]+:' "$logs/failed-$name" | tail -n 40
      echo "..."
      tail -n 10 "$logs/failed-$name"
    } | cut -c1-500
  done
  [ ${#failures[@]} -eq 0 ] || echo "failed stages: ${failures[*]}"
  echo "all stages: $SECONDS s"
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ] && [ ${#failures[@]} -eq 0 ]
  exit
}

stage install scripts/install_dependencies.sh --dev --python "$venv" || finish
if [ $reference = yes ]; then
  stage install-reference scripts/install_dependencies.sh --no-packages \
    --reference "$venv_reference"
fi
stage check-layers-self-test python3 scripts/check_layers.py --self-test
stage check-layers python3 scripts/check_layers.py
stage check-budget-self-test python3 scripts/check_budget.py --self-test
stage check-budget python3 scripts/check_budget.py
stage clang-format check_format
stage check-readme-self-test python3 scripts/check_readme.py --self-test
stage check-readme python3 scripts/check_readme.py

if stage build-cpu build cpu; then
  [ ! -f .clang-tidy ] || stage clang-tidy check_tidy
  stage ctest-cpu suite cpu
  stage fixtures-self-test "$venv/bin/python" scripts/check_fixtures.py --self-test
  stage fixtures "$venv/bin/python" scripts/check_fixtures.py --medvqa build/cpu/medvqa
  stage cli "$venv/bin/python" tests/cli/run.py --medvqa build/cpu/medvqa
  for what in schema_check bad_inputs events_check readme_commands; do
    stage "cli-$what" "$venv/bin/python" "tests/cli/$what.py" --medvqa build/cpu/medvqa
  done
  if [ $reference = yes ]; then
    if [ -f scripts/parity_inputs.py ]; then
      for what in text sentencepiece images; do
        stage "parity-$what" "$venv_reference/bin/python" scripts/parity_inputs.py "$what" \
          --driver build/cpu/tests/drivers/medvqa_inputs_driver
      done
    fi
    stage parity "$venv_reference/bin/python" scripts/parity.py --medvqa build/cpu/medvqa
    stage parity-export "$venv_reference/bin/python" scripts/parity_export.py \
      --medvqa build/cpu/medvqa
    stage parity-loss-scale "$venv_reference/bin/python" scripts/parity_loss_scale.py \
      --driver build/cpu/tests/drivers/medvqa_loss_scale_driver
    stage parity-packed "$venv_reference/bin/python" scripts/parity_packed.py \
      --driver build/cpu/tests/drivers/medvqa_model_driver
  fi
fi
stage kernel-table-self-test python3 scripts/kernel_table.py --self-test
stage gpu-check-self-test python3 scripts/gpu_check_cases.py
stage vs-reference-self-test python3 tests/bench/vs_reference_cases.py
[ $reference = no ] || stage vs-reference-models "$venv_reference/bin/python" \
  tests/bench/vs_reference_cases.py --models
[ ! -x build/cpu/medvqa ] || stage gpu-check-cpu gpu_check_cpu
if stage build-cuda build_cuda && [ -x build/cuda-ci/medvqa ]; then
  stage cli-old-driver "$venv/bin/python" tests/cli/old_driver_check.py \
    --medvqa build/cuda-ci/medvqa
fi
[ $clang = no ] || stage build-clang build cpu-clang
if [ $asan = yes ] && stage build-asan build cpu-asan; then
  export UBSAN_OPTIONS=print_stacktrace=1
  stage ctest-asan suite cpu-asan
fi
finish
