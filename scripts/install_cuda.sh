#!/usr/bin/env bash
# Brings NVIDIA's compiler and libraries (CUDA 13.0, cuDNN, NCCL, compute-sanitizer) from PyPI:
# no root, no driver, no GPU; 1.8 GB. Prints the line that configures a build with them.
#
#   scripts/install_cuda.sh [FOLDER]      FOLDER: .cuda in the source tree, found there by CMake
#
# FOLDER/toolkit is then what other systems have as /usr/local/cuda. Installs nothing twice.
set -euo pipefail
source_tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Without the pins of nvvm and crt, versions disagree within the toolkit.
requirements=('cuda-toolkit[nvcc,cudart,cublas,cccl,nvrtc,sanitizer]==13.0.2'
  nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
  nvidia-cudnn-cu13==9.19.0.56 nvidia-nccl-cu13==2.28.9
  nvidia-cudnn-frontend==1.18.0)

fail() {
  echo "install_cuda: $*" >&2
  exit 1
}

# The wheels have libraries under the names programs load; linkers look for lib*.so.
link_names() {
  local library name
  for library in "$1"/lib*.so.*; do
    name=$(basename "$library")
    [ -e "$1/${name%%.so.*}.so" ] || ln -s "$name" "$1/${name%%.so.*}.so"
  done
}

# cuDNN and NCCL lie beside the toolkit; here they are part of it, as in NVIDIA's own packages.
join() {
  local from=$1 to=$2 file
  for file in "$from"/include/*.h; do ln -sfr "$file" "$to/include/"; done
  for file in "$from"/lib/lib*.so*; do ln -sfr "$file" "$to/lib/"; done
}

case ${1:-} in
  -h | --help) sed -n '2,7p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 0 ;;
  -*) fail "unknown option $1; see --help" ;;
esac
[ $# -le 1 ] || fail "one folder at most; see --help"
[ "$(uname -sm)" = "Linux x86_64" ] || [ "$(uname -sm)" = "Linux aarch64" ] ||
  fail "NVIDIA's wheels are for Linux on x86_64 and aarch64, not $(uname -sm)"
mkdir -p "${1:-$source_tree/.cuda}"
folder=$(cd "${1:-$source_tree/.cuda}" && pwd)
stamp=$folder/requirements.sha256
hash=$(printf '%s\n' "${requirements[@]}" | sha256sum | cut -d' ' -f1)

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$hash" ]; then
  python3 -m venv "$folder/venv" || fail "python3 -m venv failed; is python3-venv installed?"
  "$folder/venv/bin/python" -m pip install -q --disable-pip-version-check --no-compile \
    "${requirements[@]}" || fail "pip could not install into $folder; run again to go on"
  packages=$(echo "$folder"/venv/lib/python3*/site-packages/nvidia)
  toolkit=$packages/cu13
  [ -x "$toolkit/bin/nvcc" ] || fail "no nvcc in $toolkit: the wheels have changed"
  for part in cudnn nccl; do join "$packages/$part" "$toolkit"; done
  link_names "$toolkit/lib"
  # nvcc's profile and CMake's FindCUDAToolkit say lib64.
  ln -sfn lib "$toolkit/lib64"
  ln -sfnr "$toolkit" "$folder/toolkit"
  "$folder/toolkit/bin/nvcc" --version >/dev/null || fail "nvcc does not start"
  echo "$hash" >"$stamp"
fi

echo "$("$folder/toolkit/bin/nvcc" --version | grep release) in $folder/toolkit"
echo "cmake --preset cuda -DCMAKE_CUDA_COMPILER=$folder/toolkit/bin/nvcc" \
  "-DCUDAToolkit_ROOT=$folder/toolkit"
