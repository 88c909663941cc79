#!/usr/bin/env bash
# Brings NVIDIA's compiler and libraries (CUDA, cuDNN, NCCL, compute-sanitizer) without root, driver
# or GPU, and prints the line that configures a build with them.
#
#   scripts/install_cuda.sh [--toolkit 13|12] [FOLDER]
#
#   --toolkit 13   CUDA 13.0 from PyPI, 1.8 GB: for drivers from 580 on. The default.
#   --toolkit 12   CUDA 12.4 for drivers from 525 on, 2.2 GB, x86_64 only: headers and libraries from
#                  PyPI, the compiler, which PyPI lacks, out of Debian 13's nvidia-cuda-toolkit with
#                  apt-get (outside Debian: with debian-archive-keyring, and the URL of a mirror of
#                  Debian in MEDVQA_MIRROR). This nvcc takes g++ up to 13: CUDAHOSTCXX=g++-13.
#   FOLDER         .cuda in the source tree, where CMake finds it, or .cuda12
#
# FOLDER/toolkit is then what other systems have as /usr/local/cuda. Installs nothing twice.
set -euo pipefail
source_tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Without the pins of nvvm and crt, versions disagree within the toolkit.
requirements_13=('cuda-toolkit[nvcc,cudart,cublas,cccl,nvrtc,sanitizer]==13.0.2'
  nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88
  nvidia-cudnn-cu13==9.19.0.56 nvidia-nccl-cu13==2.28.9
  nvidia-cudnn-frontend==1.18.0)
# cuDNN, NCCL and the front end are the same versions for both.
requirements_12=('cuda-toolkit[nvcc,cudart,cublas,cccl,nvrtc]==12.4.1'
  nvidia-cudnn-cu12==9.19.0.56 nvidia-nccl-cu12==2.28.9
  nvidia-cudnn-frontend==1.18.0)
compiler_12=nvidia-cuda-toolkit=12.4.131~12.4.1-2
compiler_12_suite=trixie

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

# PyPI has folders beside the toolkit; here they are part of it, as in NVIDIA's own packages.
join() {
  local from=$1 to=$2 file
  for file in "$from"/include/[!_]*; do ln -sfr "$file" "$to/include/"; done
  for file in "$from"/lib/lib*.so*; do [ ! -e "$file" ] || ln -sfr "$file" "$to/lib/"; done
}

# Debian's package of the compiler, unpacked into $1. apt's own lists and settings are left alone.
unpack_compiler() {
  local folder=$1 mirror=${MEDVQA_MIRROR:-}
  command -v apt-get >/dev/null ||
    fail "--toolkit 12 needs apt-get; without it take CUDA 12 as NVIDIA packs it"
  # shellcheck disable=SC2016  # apt's variable
  [ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(SITE)' 2>/dev/null |
    awk '/\/debian\/*$/ && !found++')
  [ -n "$mirror" ] || fail "apt knows no mirror of Debian; set MEDVQA_MIRROR to the URL of one"
  local keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -r "$keys" ] || fail "$keys is missing: install debian-archive-keyring"
  rm -rf "$folder"
  mkdir -p "$folder/lists/partial" "$folder/archives/partial"
  touch "$folder/status"
  echo "deb [arch=amd64 signed-by=$keys] $mirror $compiler_12_suite non-free" >"$folder/sources.list"
  cat >"$folder/settings" <<SETTINGS
Dir::Etc::sourcelist "$folder/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$folder/lists";
Dir::State::status "$folder/status";
Dir::Cache "$folder/archives";
APT::Sandbox::User "";
Acquire::Languages "none";
SETTINGS
  if ! (cd "$folder" && export APT_CONFIG=$folder/settings &&
    apt-get -qq update && apt-get -qq download "$compiler_12"); then
    fail "apt-get could not bring $compiler_12 from $mirror $compiler_12_suite non-free"
  fi
  dpkg-deb -x "$folder"/*.deb "$folder" && rm "$folder"/*.deb
}

# Debian's compiler ($2) and PyPI's folders ($1), one a library, laid out as NVIDIA does.
assemble_12() {
  local packages=$1 compiler=$2/usr/lib/nvidia-cuda-toolkit toolkit=$1/cu12 part
  rm -rf "$toolkit"
  mkdir -p "$toolkit/include" "$toolkit/lib" "$toolkit/nvvm/bin"
  mv "$2/usr/bin" "$toolkit/bin"
  mv "$compiler/bin/nvcc" "$compiler/bin/crt" "$toolkit/bin/"  # over Debian's wrapper
  mv "$compiler/bin/cicc" "$toolkit/nvvm/bin/"
  mv "$compiler/libdevice" "$toolkit/nvvm/"
  mv "$compiler/compute-sanitizer" "$toolkit/"
  ln -sf ../compute-sanitizer/compute-sanitizer "$toolkit/bin/"
  for part in cuda_nvcc cuda_runtime cuda_cccl cuda_nvrtc cublas; do
    join "$packages/$part" "$toolkit"
  done
  # Every link by nvcc and CMake names two archives, which these wheels lack and we do not use: the
  # static runtime, here a linker script that takes the shared one, and dynamic parallelism.
  echo 'INPUT(-lcudart)' >"$toolkit/lib/libcudart_static.a"
  printf '!<arch>\n' >"$toolkit/lib/libcudadevrt.a"
  cat >"$toolkit/bin/nvcc.profile" <<'PROFILE'
TOP = $(_HERE_)/..
NVVMIR_LIBRARY_DIR = $(TOP)/nvvm/libdevice
LD_LIBRARY_PATH += $(TOP)/lib:
PATH += $(TOP)/nvvm/bin:$(_HERE_):
INCLUDES += "-I$(TOP)/include" $(_SPACE_)
LIBRARIES =+ $(_SPACE_) "-L$(TOP)/lib"
PROFILE
}

version=13
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,14p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 0 ;;
    --toolkit) version=${2:-}; shift $(($# < 2 ? 1 : 2)) ;;
    -*) fail "unknown option $1; see --help" ;;
    *) break ;;
  esac
done
[ $# -le 1 ] || fail "one folder at most, after the options; see --help"
case $version in
  13) requirements=("${requirements_13[@]}") folder=$source_tree/.cuda ;;
  12) requirements=("${requirements_12[@]}") folder=$source_tree/.cuda12
    compiler=$compiler_12 ;;
  *) fail "--toolkit is 13 or 12, not '$version'" ;;
esac
case "$version $(uname -sm)" in
  *" Linux x86_64" | "13 Linux aarch64") ;;
  *) fail "there is no CUDA $version for $(uname -sm) here; see --help" ;;
esac
mkdir -p "${1:-$folder}"
folder=$(cd "${1:-$folder}" && pwd)
stamp=$folder/requirements.sha256
hash=$(printf '%s\n' "${requirements[@]}" ${compiler:+"$compiler"} | sha256sum | cut -d' ' -f1)

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$hash" ]; then
  # Both toolkits' wheels of cuDNN and NCCL write to the same places.
  [ ! -f "$stamp" ] || rm -rf "$folder/venv" "$stamp"
  [ "$version" = 13 ] || unpack_compiler "$folder/debian"
  python3 -m venv "$folder/venv" || fail "python3 -m venv failed; is python3-venv installed?"
  "$folder/venv/bin/python" -m pip install -q --disable-pip-version-check --no-compile \
    "${requirements[@]}" || fail "pip could not install into $folder; run again to go on"
  packages=$(echo "$folder"/venv/lib/python3*/site-packages/nvidia)
  toolkit=$packages/cu$version
  [ "$version" = 13 ] || assemble_12 "$packages" "$folder/debian"
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
