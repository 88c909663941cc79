#!/usr/bin/env bash
# Proves a build on this machine's GPU: tests, compute-sanitizer, kernels against measured ceilings,
# a training step of each shipped configuration on random weights, plan against what the device
# gave, ten steps on CPU and GPU, steps beside transformers + PEFT. Prints a table at the end and
# writes it as JSON beside the logs.
#
#   gpu_check.sh                     out of a bundle (scripts/make_bundle.sh), or out of the source
#                                    tree, which it builds: CMake, and nvcc for a GPU
#   ... --build FOLDER               programs of a build folder, as they are
#   ... --device cpu                 everything that needs no GPU; without it and without a GPU: 9
#   ... --only STEP[,STEP]           doctor tests sanitizer bench configs plan agreement reference
#   ... --full                       with --device cpu: the configurations of 2 to 11 B as well
#   ... --out FOLDER                 logs and gpu_check.json; default: gpu_check in this folder
#
# Exits with 0 when nothing failed, 1 when something did, 9 without a device.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

steps=(doctor tests sanitizer bench configs plan agreement reference)
device=cuda build="" out=gpu_check only="" full=no

fail() {
  echo "gpu_check: $*" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --device) device=${2:?--device needs cuda or cpu}; shift ;;
    --build) build=$(realpath "${2:?--build needs a folder}"); shift ;;
    --only) only=${2:?--only needs steps}; shift ;;
    --out) out=${2:?--out needs a folder}; shift ;;
    --full) full=yes ;;
    -h | --help) sed -n '2,15p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done
case $device in cuda | cpu) ;; *) fail "--device is $device, expected cuda or cpu" ;; esac
for step in ${only//,/ }; do
  [[ " ${steps[*]} " == *" $step "* ]] || fail "no step $step; there are: ${steps[*]}"
done

wanted() { [ -z "$only" ] || [[ ",$only," == *",$1,"* ]]; }

if [ "$device" = cuda ] && ! { command -v nvidia-smi && nvidia-smi -L; } >/dev/null 2>&1; then
  echo "gpu_check: no GPU here: nvidia-smi is missing or finds none (--device cpu does the rest)" >&2
  exit 9
fi

# Programs: of a bundle, of --build, or built here.
if [ -n "$build" ]; then
  programs=$build tests=$build/tests
elif [ -x "$here/bin/medvqa" ]; then
  programs=$here/bin tests=$here/bin
  export MEDVQA_FIXTURES=$here/fixtures
else
  source_tree=$(dirname "$here")
  programs=$source_tree/build/$device tests=$source_tree/build/$device/tests
  targets=(medvqa medvqa_bundle)
  ! wanted tests || targets=(all)
  for folder in "$source_tree/.cuda/toolkit/bin" /usr/local/cuda/bin; do PATH=$PATH:$folder; done
  command -v cmake >/dev/null || fail "neither a bundle nor CMake here; unpack one"
  if [ "$device" = cuda ]; then
    command -v nvcc >/dev/null || fail "neither a bundle nor nvcc here; scripts/install_cuda.sh"
  fi
  (cd "$source_tree" && cmake --preset "$device" &&
    cmake --build --preset "$device" --parallel --target "${targets[@]}") || fail "the build failed"
fi
medvqa=$programs/medvqa
[ -x "$medvqa" ] || fail "no program $medvqa"
mkdir -p "$out" && out=$(cd "$out" && pwd) && work=$out/work && mkdir -p "$work"
of_device() { if [ "$device" = cuda ]; then echo "$1_cuda"; else echo "$1"; fi; }

names=() results=() seconds=() notes=() failed=0

record() { # NAME RESULT SECONDS NOTE
  names+=("$1") results+=("$2") seconds+=("$3") notes+=("$4")
  [ "$2" != FAILED ] || failed=$((failed + 1))
  printf '%-34s %-8s %6s s  %s\n' "$1" "$2" "$3" "$4"
}

# case_of NAME COMMAND...: one line of the table. The command's last line is its note; it returns 0,
# or 77 for what cannot be done here, or anything else for a failure.
case_of() {
  local name=$1 log=$out/${1// /_}.log begin=$SECONDS code note
  shift
  "$@" >"$log" 2>&1
  code=$?
  note=$(tail -n 1 "$log" | cut -c1-150)
  case $code in
    0) record "$name" ok $((SECONDS - begin)) "$note" ;;
    77) record "$name" skipped $((SECONDS - begin)) "$note" ;;
    *) record "$name" FAILED $((SECONDS - begin)) "exit $code, $log: $note" ;;
  esac
}

skip() {
  echo "$*"
  return 77
}

run_doctor() {
  "$medvqa" doctor --json --device "$device" >"$out/doctor.json" || return
  cat "$out/doctor.json"
  grep -o '"name": *"[^"]*"' "$out/doctor.json" | head -n 1 | sed 's/.*: *//; s/"//g'
}

step_doctor() {
  case_of version "$medvqa" --version
  case_of doctor run_doctor
}

# How many tests of a test program passed, as the case's log says; a failure where none did.
passed_tests() {
  local count
  count=$(sed -n 's/^\[  PASSED  \] \([0-9]*\) test.*/\1/p' "$log" | tail -n 1)
  echo "${count:-0} tests passed"
  [ "${count:-0}" -gt 0 ]
}

run_tests() {
  local code
  GOMP_SPINCOUNT=1000 MEDVQA_REQUIRE_BACKEND=$device "$1" --gtest_brief=1
  code=$?
  [ $code -eq 0 ] || { echo "$(basename "$1") failed"; return $code; }
  passed_tests
}

# run_suite CTEST-OPTION...: tests of the build tree.
run_suite() {
  local code
  OMP_NUM_THREADS=2 ctest --test-dir "$programs" --no-tests=error --output-on-failure "$@"
  code=$?
  grep -a 'tests passed' "$log" | tail -n 1
  return $code
}

# The whole suite where there is a build tree; the kernels and training steps out of a bundle.
# Without cuDNN: what its attention served before.
step_tests() {
  if [ -f "$programs/CTestTestfile.cmake" ] && command -v ctest >/dev/null; then
    case_of "tests host" run_suite -j "$(nproc)" -E '^cuda\.'
    [ "$device" = cuda ] || return 0
    export MEDVQA_REQUIRE_BACKEND=cuda
    case_of "tests cuda" run_suite -R '^cuda\.'
    export MEDVQA_LIBRARY_ATTENTION=0
    case_of "tests cuda, no cuDNN" run_suite -R '^cuda\.All/Operation'
    unset MEDVQA_REQUIRE_BACKEND MEDVQA_LIBRARY_ATTENTION
    return 0
  fi
  case_of "tests $(of_device test_kernels)" run_tests "$tests/$(of_device test_kernels)"
  [ "$device" = cuda ] || return 0
  export MEDVQA_LIBRARY_ATTENTION=0
  case_of "tests test_kernels_cuda, no cuDNN" run_tests "$tests/test_kernels_cuda"
  unset MEDVQA_LIBRARY_ATTENTION
  case_of "tests test_devices_cuda" run_tests "$tests/test_devices_cuda"
}

sanitizer=""
for file in "$(command -v compute-sanitizer)" "$here/sanitizer/bin/compute-sanitizer" \
  "$here/../.cuda/toolkit/bin/compute-sanitizer" /usr/local/cuda/bin/compute-sanitizer; do
  [ -n "$sanitizer" ] || [ ! -x "$file" ] || sanitizer=$file
done

# Every kernel once; for memcheck, which finds accesses of what is no tensor's, also between guards.
run_sanitizer() {
  local code filter='Backends.*:All/Operation.Reference/*'
  [ "$device" = cuda ] || skip "needs a GPU" || return
  [ -n "$sanitizer" ] || skip "no compute-sanitizer (scripts/install_cuda.sh brings one)" || return
  [ "$1" != memcheck ] || filter+=':All/Operation.GuardsAndScratch/*'
  MEDVQA_REQUIRE_BACKEND=cuda "$sanitizer" --tool "$1" --error-exitcode 3 \
    "$tests/test_kernels_cuda" --gtest_brief=1 --gtest_filter="$filter"
  code=$?
  [ $code -eq 0 ] || { grep -a 'SUMMARY' "$log" | tail -n 1; return $code; }
  passed_tests
}

step_sanitizer() {
  local tool
  for tool in memcheck racecheck initcheck synccheck; do
    case_of "sanitizer $tool" run_sanitizer $tool
  done
}

# On a GPU: NF4 and the linears within 85 % of what was measured for copies and products.
run_bench() {
  local scale=1 low
  [ "$device" = cuda ] || scale=16
  "$tests/$(of_device kernels_bench)" --scale $scale --json "$out/bench.json" || return
  [ "$device" = cuda ] || { echo "sizes / $scale; no bars on a CPU"; return; }
  low=$(awk -F'"' '/"name"/ { name = $4 }
    /"of_ceiling"/ { split($3, part, /[: ,]+/); if (name ~ /^(nf4 dequantise|linear)/ && part[2] < 0.85)
      printf "%s %.0f %%; ", name, 100 * part[2] }' "$out/bench.json")
  [ -z "$low" ] || { echo "below 85 %: $low"; return 1; }
  echo "NF4 and linears at 85 % and more of the measured ceilings"
}

step_bench() { case_of bench run_bench; }

# model PRESET, data KIND: made once, in the work folder.
model() {
  [ -d "$work/models/$1" ] ||
    "$medvqa" init --preset "$1" --quantization nf4 --out "$work/models/$1" --quiet
}
data() {
  local options=(--count 60 --seed 7 --validation 0 --questions closed)
  case $1 in
    small) options+=(--size 84) ;;
    large) options+=(--size 448 --count 24) ;;
    text | classes) options+=(--text-only --per-image 1) ;;
  esac
  [ -d "$work/data/$1" ] || "$medvqa" data synth --out "$work/data/$1" "${options[@]}" --quiet
}

# Shipped configurations, a random model of the size of each, and data that stand for the real ones.
configurations=(
  "smoke smoke-qwen2-vl small" "smoke_mllama tiny-mllama small"
  "smoke_qwen25vl tiny-qwen2-5-vl small" "smoke_llama tiny-llama text"
  "smoke_classification tiny-llama classes" "qwen2vl_tiny_vqarad tiny-qwen2-vl small"
  "qwen2vl2b_vqarad qwen2-vl-2b large" "qwen2vl2b_vqarad_recommended qwen2-vl-2b large"
  "qwen2vl7b_medpix qwen2-vl-7b large" "qwen2vl7b_medpix_recommended qwen2-vl-7b large"
  "llama3_classification llama3-8b classes"
  "llama3_classification_recommended llama3-8b classes"
  "llama32_vqarad llama32-11b-vision large" "llama32_vqarad_recommended llama32-11b-vision large")

# Fills `settings` with what a configuration needs here. Byte tokens are many: longer samples.
settings_of() { # CONFIG PRESET DATA
  settings=(--config "$1.json" --set "model.path=$work/models/$2" --set "device=$device"
    --set "data.train=[{\"format\": \"json\", \"path\": \"$work/data/$3\", \"split\": \"train\"}]"
    --set data.validation=null --set data.max_length=4096 --set train.warmup_steps=0)
  case $3 in
    classes) settings+=(--set data.label=answer --set 'data.prompt={dictation}'
      --set 'classification.classes={"no": "N", "yes": "Y"}') ;;
    *) settings+=(--set 'data.prompt={question}') ;;
  esac
}

device_bytes() {
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | awk 'NR == 1 { print $1 * 2^20 }'
}

# Runs a command; leaves in `peak` the most anonymous memory, or what nvidia-smi saw of the device's
# (all programs', now and then: a note, not a proof), while it ran.
watched() {
  local process before=0 now code
  peak=0
  [ "$device" = cpu ] || before=$(device_bytes)
  "$@" &
  process=$!
  while kill -0 $process 2>/dev/null; do
    if [ "$device" = cpu ]; then
      now=$(awk '/^RssAnon:/ { print $2 * 1024 }' "/proc/$process/status" 2>/dev/null)
    else
      now=$(awk -v a="$(device_bytes)" -v b="$before" 'BEGIN { print a - b }')
    fi
    peak=$(awk -v a="$peak" -v b="${now:-0}" 'BEGIN { print (a > b ? a : b) }')
    sleep 0.05
  done
  wait $process
  code=$?
  return $code
}

run_config() { # CONFIG PRESET DATA
  local settings peak
  case $2 in
    smoke-* | tiny-*) ;;
    *) [ "$device" = cuda ] || [ $full = yes ] || skip "needs a GPU (--full: on the CPU)" || return ;;
  esac
  model "$2" && data "$3" || return
  settings_of "$1" "$2" "$3"
  watched "$medvqa" train "${settings[@]}" --set train.max_steps=1 --set "output=$work/runs/$1" \
    --overwrite || return
  echo "$peak" >"$work/$1.peak"
  awk '/"loss"/ { line = $0 } END { print line }' "$work/runs/$1/metrics.jsonl" |
    awk '{ match($0, /"loss": *[^,]*/); l = substr($0, RSTART, RLENGTH)
           match($0, /"seconds": *[^,}]*/); print l ", " substr($0, RSTART, RLENGTH) }'
}

step_configs() {
  local line
  for line in "${configurations[@]}"; do
    # shellcheck disable=SC2086
    case_of "step ${line%% *}" run_config $line
  done
}

# What a run of one step took, against the plan it began with. Beside the plan a CPU's process has
# its code and its files' buffers. A GPU is asked by the program itself (cudaMemGetInfo), with its
# context made and before the arenas, and after the step: in between, libraries load what the plan
# leaves them (kLoadedLater in src/train/available_memory.cpp).
run_plan() { # CONFIG
  local plan peak taken="" log_of_step=$out/step_$1.log
  [ -f "$work/$1.peak" ] || skip "its step was not run" || return
  plan=$(sed -n 's/.*memory MiB: .* total \([0-9.]*\)[,;].*/\1/p' "$log_of_step" | head -n 1)
  peak=$(cat "$work/$1.peak")
  if [ "$device" = cpu ]; then
    awk -v a="${plan:-0}" -v b="$peak" 'BEGIN { b /= 2^20
      printf "plan %.0f MiB, peak %.0f MiB\n", a, b
      exit !(a > 0 && b > 0 && b <= 1.05 * a + 512) }'
    return
  fi
  taken=$(sed -n "s/.*device memory MiB: \([0-9.]*\) free before.*, \([0-9.]*\) after.*/\1 \2/p" \
    "$log_of_step" | awk 'NR == 1 { print $1 - $2 }')
  [ -n "$taken" ] || { echo "the run does not say what the device had free"; return 1; }
  awk -v a="${plan:-0}" -v b="$taken" -v c="$peak" 'BEGIN {
    printf "plan %.0f MiB, taken %.0f MiB (nvidia-smi with context: %.0f)\n", a, b, c / 2^20
    exit !(a > 0 && b > 0 && b <= 1.05 * a + 256) }'
}

step_plan() {
  local line
  for line in "${configurations[@]}"; do
    case_of "plan ${line%% *}" run_plan "${line%% *}"
  done
}

# losses FILE: one a line.
losses() { awk 'match($0, /"loss": *[^,}]*/) { print substr($0, RSTART + 7, RLENGTH - 7) }' "$1"; }

# Ten steps here and on the CPU. On the CPU itself: with all threads, and with one.
run_agreement() { # CONFIG PRESET DATA
  local settings other=cpu threads=""
  model "$2" && data "$3" || return
  settings_of "$1" "$2" "$3"
  settings+=(--set train.max_steps=10 --set train.log_every=1 --set train.batch_size=4 --overwrite)
  "$medvqa" train "${settings[@]}" --set "output=$work/runs/$1-here" || return
  [ "$device" = cuda ] || threads=1
  OMP_NUM_THREADS=${threads:-$(nproc)} "$medvqa" train "${settings[@]}" --set "device=$other" \
    --set "output=$work/runs/$1-cpu" || return
  paste <(losses "$work/runs/$1-here/metrics.jsonl") <(losses "$work/runs/$1-cpu/metrics.jsonl") |
    awk '$1 ~ /^[-+0-9.eE]+$/ && $2 ~ /^[-+0-9.eE]+$/ && $2 + 0 != 0 { ++steps }
      { print; d = $1 - $2; d = $2 + 0 == 0 ? 0 : (d < 0 ? -d : d) / $2; if (d > most) most = d }
      END { printf "%d steps, largest difference of a loss %.1e of it\n", steps, most
            exit !(NR == 10 && steps == 10 && most <= 1e-3) }'
}

step_agreement() {
  local line
  for line in "${configurations[@]}"; do
    # shellcheck disable=SC2086
    [[ $line != smoke* ]] || case_of "agreement ${line%% *}" run_agreement $line
  done
}

# Optimizer steps beside transformers + PEFT, of models with random 4-bit weights. The script ends
# with 77 and a reason where they or the device are missing.
run_reference() { # SHAPE OPTION...
  local script=$here/tests/bench/vs_reference.py python=${MEDVQA_REFERENCE_PYTHON:-python3} code
  [ -f "$script" ] || script=$here/../tests/bench/vs_reference.py
  [ -f "$script" ] || skip "no $script" || return
  command -v "$python" >/dev/null ||
    skip "no $python (MEDVQA_REFERENCE_PYTHON names one that has transformers + PEFT)" || return
  "$python" "$script" --device "$device" --medvqa "$medvqa" --shape "$1" \
    --json "$out/reference-$1.json" "${@:2}"
  code=$?
  [ $code -eq 0 ] || return $code
  "$python" - "$out/reference-$1.json" <<'END'
import json, sys
found = json.load(open(sys.argv[1]))
def text(name, form="{:.3g}"):
    return "-" if found.get(name) is None else form.format(found[name])
print(f"{text('ratio', '{:.2f}')} x its steps per second; {text('step_s')} s against "
      f"{text('ref_step_s')} s, {text('peak_gb')} GB against {text('ref_peak_gb')} GB, "
      f"{text('of_ceiling', '{:.0%}')} of the ceiling")
END
}

step_reference() {
  local shape
  if [ "$device" = cpu ]; then
    case_of "reference 143m" run_reference 143m --turns 1 --steps 2 --compute f32
    return
  fi
  for shape in qwen2vl-2b qwen2vl-7b llama32-11b; do
    case_of "reference $shape" run_reference $shape
  done
}

for step in "${steps[@]}"; do
  ! wanted "$step" || "step_$step"
done

first_of() { "$@" 2>/dev/null | head -n 1; }
commit() {
  sed -n '1s/^medvqa //p' "$here/VERSION" 2>/dev/null ||
    first_of git -C "$here" describe --always --dirty
}
text_of() { sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/ /g' <<<"$1"; }
{
  gpu="" driver=""
  if [ "$device" = cuda ]; then
    gpu=$(first_of nvidia-smi -L)
    driver=$(first_of nvidia-smi --query-gpu=driver_version --format=csv,noheader)
  fi
  printf '{"device": "%s", "date": "%s", "commit": "%s", "gpu": "%s", "driver": "%s", ' "$device" \
    "$(date -u +%FT%TZ)" "$(text_of "$(commit)")" "$(text_of "$gpu")" "$(text_of "$driver")"
  printf '"machine": "%s", "version": "%s", "cases": [' "$(text_of "$(uname -sr)")" \
    "$(text_of "$(first_of "$medvqa" --version)")"
  for i in "${!names[@]}"; do
    [ "$i" -eq 0 ] || printf ','
    printf '\n  {"name": "%s", "result": "%s", "seconds": %s, "note": "%s"}' "${names[i]}" \
      "${results[i]}" "${seconds[i]}" "$(text_of "${notes[i]}")"
  done
  printf ']}\n'
} >"$out/gpu_check.json"

printf '\n%-34s %-8s %8s  %s\n' case result seconds note
for i in "${!names[@]}"; do
  printf '%-34s %-8s %8s  %s\n' "${names[i]}" "${results[i]}" "${seconds[i]}" "${notes[i]}"
done
echo "$out/gpu_check.json: ${#names[@]} cases, $failed failed"
[ $failed -eq 0 ]
