#!/usr/bin/env bash
# From a bare machine to a trained adapter: installs what is missing, builds, draws chest radiograph
# phantoms, trains configs/smoke.json on them and shows that the answers come from the images.
#
#   scripts/quickstart.sh                    all of it
#   scripts/quickstart.sh --preset cpu       another build preset; default: release
#   scripts/quickstart.sh --program FILE     a program that is already built; installs nothing
#
# A second run keeps packages, build, pictures and model, and trains again. Research and education
# only.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

least_trained=0.90 most_shuffled=0.65
preset=release medvqa=""
data=$root/data/phantoms model=$root/models/smoke-qwen2-vl run=$root/runs/smoke

fail() {
  echo "quickstart: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --preset) preset=${2:?--preset needs a name}; shift ;;
    --program) medvqa=$(realpath "${2:?--program needs a file}"); shift ;;
    -h | --help) sed -n '2,10p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done

step() { printf '\n== %s\n' "$*"; }

# The number of a key of a one-line JSON object on stdin.
number_of() { sed -n 's/.*"'"$1"'":\([-+0-9.eE]*\).*/\1/p'; }
at_least() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a >= b) }'; }
percent() { awk -v a="$1" 'BEGIN { printf "%5.1f %%", 100 * a }'; }

# Scores of the held-out questions; arguments go to the program.
scores() {
  "$medvqa" train --config configs/smoke.json --quiet --evaluate "$@"
}

if [ -z "$medvqa" ]; then
  step "installing what is missing"
  scripts/install_dependencies.sh
  step "building (preset $preset)"
  # For this machine's devices alone.
  cuda=-DMEDVQA_CUDA=OFF
  ! nvidia-smi -L >/dev/null 2>&1 || cuda=-DMEDVQA_CUDA_ARCHITECTURES=native
  cmake --preset "$preset" -DMEDVQA_BUILD_TESTS=OFF "$cuda" >/dev/null
  cmake --build --preset "$preset" --target medvqa
  medvqa=$root/build/$preset/medvqa
fi
unset MEDVQA_DATA # configs/smoke.json then reads the pictures made here

step "drawing phantoms"
if [ -f "$data/dataset.json" ]; then
  echo "$data: kept"
else
  mkdir -p "$(dirname "$data")"
  "$medvqa" data synth --out "$data" --count 2000 --seed 7 --size 84 --validation 0.05 \
    --questions closed --findings cardiomegaly,effusion,pneumothorax
fi

step "making a tiny random 4-bit model"
if [ -f "$model/config.json" ]; then
  echo "$model: kept"
else
  mkdir -p "$(dirname "$model")"
  "$medvqa" init --preset smoke-qwen2-vl --quantization nf4 --out "$model"
fi

step "scores before training"
before=$(scores)
echo "$before"

step "training"
begin=$(date +%s)
"$medvqa" train --config configs/smoke.json --overwrite
seconds=$(($(date +%s) - begin))

step "scores after training, and with every question about another image"
after=$(scores --set lora.init_from="$run/adapter")
echo "$after"
shuffled=$(scores --set lora.init_from="$run/adapter" --shuffle-images)
echo "$shuffled"

before_accuracy=$(number_of yes_no_accuracy <<<"$before")
after_accuracy=$(number_of yes_no_accuracy <<<"$after")
shuffled_accuracy=$(number_of yes_no_accuracy <<<"$shuffled")
questions=$(number_of yes_no_samples <<<"$after")

step "held-out yes/no accuracy, $questions questions"
printf '%-28s%s\n' "before" "$(percent "$before_accuracy")" \
  "after" "$(percent "$after_accuracy")" \
  "after, shuffled images" "$(percent "$shuffled_accuracy")"
printf '\n%-28s%s s\n' "training took" "$seconds"
printf '%-28s%s\n' "adapter" "$run/adapter" "measurements" "$run/metrics.jsonl"
[ ! -f "$run/loss.svg" ] || printf '%-28s%s\n' "loss curve" "$run/loss.svg"

at_least "$after_accuracy" "$least_trained" ||
  fail "accuracy after training is $after_accuracy, expected at least $least_trained"
at_least "$most_shuffled" "$shuffled_accuracy" ||
  fail "accuracy with shuffled images is $shuffled_accuracy, expected at most $most_shuffled: the" \
    "answers do not come from the images"

cat <<NEXT

Next, with data of your own: a folder with dataset.json, an array of
  {"image": "images/a.png", "question": "...", "answer": "..."}
and a model from the Hugging Face Hub, say Qwen/Qwen2-VL-2B-Instruct:
  $medvqa train --config configs/smoke.json \\
    --set model.path=/path/to/Qwen2-VL-2B-Instruct --set model.quantization=nf4 \\
    --set 'data.train=[{"format": "json", "path": "/path/to/data"}]' \\
    --set 'data.validation={"fraction": 0.1}' --set data.system=null --set data.max_length=2048 \\
    --set data.image.max_pixels=262144 --set train.batch_size=1 --set train.learning_rate=2e-4 \\
    --set train.recompute=auto --set output=runs/mine
NEXT
