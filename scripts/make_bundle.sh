#!/usr/bin/env bash
# Packs a build, mostly a CUDA build, for another machine: programs, test programs and their data,
# configurations, gpu_check.sh, the comparison with transformers + PEFT, compute-sanitizer where
# there is one, and every shared library but the C library's and the driver's. What is unpacked runs
# where it lies:
# tar xf medvqa-*.tar.gz && medvqa-*/gpu_check.sh
#
#   scripts/make_bundle.sh [--build FOLDER] [--out FILE]     default: build/cuda, build/medvqa-*.tar.gz
set -euo pipefail
source_tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$source_tree/build/cuda file=""

fail() {
  echo "make_bundle: $*" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --build) build=${2:?--build needs a folder}; shift ;;
    --out) file=${2:?--out needs a file}; shift ;;
    -h | --help) sed -n '2,8p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; exit 0 ;;
    *) fail "unknown argument $1; see --help" ;;
  esac
  shift
done

# The name under which other libraries ask for this one.
soname() { objdump -p "$1" | awk '$1 == "SONAME" { print $2 }'; }

# What belongs to the system: glibc and the loader, which must be one, and NVIDIA's driver.
system='^(ld-linux.*|linux-vdso.*|lib(c|m|dl|rt|pthread|resolv|util)\.so.*|lib(cuda|nvidia.*)\.so.*)$'

[ -f "$build/CMakeCache.txt" ] || fail "$build is no build folder; cmake --preset cuda makes one"
cmake --build "$build" --target medvqa medvqa_bundle >/dev/null || fail "the build failed"
cached() { sed -n "s/^$1:[A-Z]*=//p" "$build/CMakeCache.txt"; }
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
commit=$(git -C "$(cached CMAKE_HOME_DIRECTORY)" describe --always --dirty 2>/dev/null ||
  echo unknown)
name=medvqa-$commit-$(uname -m)
folder=$stage/$name
for component in Unspecified bundle; do
  cmake --install "$build" --prefix "$folder" --component $component --strip >/dev/null
done

mkdir -p "$folder/lib"
for program in "$folder"/bin/*; do
  [ ! -L "$program" ] || continue
  while read -r library path; do
    [[ ! $library =~ $system ]] || continue
    [ -f "$path" ] || fail "$program needs $library, which is not here"
    [ -f "$folder/lib/$library" ] || cp -L "$path" "$folder/lib/$library"
  done < <(ldd "$program" | awk '$2 == "=>" { print $1, $3 }')
done

# cuDNN is no program's in ldd's eyes: it is loaded at run time, and loads its own parts.
cudnn=$(cached MEDVQA_CUDNN_LIBRARY)
if [ -f "$cudnn" ] && [ -d "$(cached MEDVQA_CUDNN_FRONTEND)" ]; then
  cp -L "$(dirname "$cudnn")"/libcudnn*.so.9 "$folder/lib/"
fi

# Nor is the run-time compiler, which cuDNN and cuBLASLt load for what they have no code for, and
# which loads its built-in functions.
compiler=$(cached CMAKE_CUDA_COMPILER)
if [ -n "$compiler" ]; then
  nvrtc=$(readlink -f "$(cached CUDA_nvrtc_LIBRARY)") || fail "the CUDA toolkit has no libnvrtc"
  for path in "$nvrtc" "$(dirname "$nvrtc")"/libnvrtc-builtins.so.*; do
    [ -f "$path" ] || fail "the CUDA toolkit has no $path"
    cp -L "$path" "$folder/lib/$(soname "$path")"
  done
fi

toolkit=$(dirname "$(dirname "$(readlink -f "${compiler:-/none/none}")")")
if [ -x "$toolkit/compute-sanitizer/compute-sanitizer" ]; then
  # NVIDIA's own packages: a folder of its own, and only a way into it in bin.
  mkdir -p "$folder/sanitizer/bin"
  cp "$toolkit"/compute-sanitizer/{compute-sanitizer,TreeLauncher*,lib*.so} "$folder/sanitizer/bin/"
elif [ -x "$toolkit/bin/compute-sanitizer" ]; then
  mkdir -p "$folder/sanitizer/bin" "$folder/sanitizer/lib"
  cp "$toolkit"/bin/{compute-sanitizer,libsanitizer-collection.so} "$folder/sanitizer/bin/"
  cp "$toolkit"/lib/lib{Interceptor,TreeLauncher,sanitizer}*.so "$folder/sanitizer/lib/"
fi
cp "$source_tree/scripts/gpu_check.sh" "$source_tree/LICENSE" "$folder/"
mkdir "$folder/fixtures"
cp -r "$source_tree"/tests/fixtures/{quant,qwen2_vl_tiny} "$folder/fixtures/"
# Steps beside transformers + PEFT, as the source tree has them.
mkdir -p "$folder/tests/bench" "$folder/scripts/reference"
cp "$source_tree"/tests/bench/*.py "$folder/tests/bench/"
cp "$source_tree"/scripts/reference/*.py "$folder/scripts/reference/"
cp "$source_tree/scripts/requirements-reference.txt" "$folder/scripts/"
architectures="no CUDA devices"
[ -z "$compiler" ] || architectures="CUDA architectures $(cached MEDVQA_CUDA_ARCHITECTURES)"
printf 'medvqa %s\nbuilt %s for %s\n' "$commit" "$(date -u +%F)" "$architectures" >"$folder/VERSION"

file=${file:-$source_tree/build/$name.tar.gz}
tar -C "$stage" -cf - "$name" | gzip -1 >"$file.part"
mv "$file.part" "$file"
echo "$file: $(du -h "$file" | cut -f1), $(find "$folder/lib" -type f | wc -l) libraries"
