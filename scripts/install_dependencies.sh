#!/usr/bin/env bash
# Installs what building and testing need and is missing; installs nothing twice.
#
#   scripts/install_dependencies.sh                    Debian packages to build and test
#   scripts/install_dependencies.sh --dev              ... and clang, clang-format, clang-tidy
#   scripts/install_dependencies.sh --python DIR       a light virtual environment in DIR
#   scripts/install_dependencies.sh --reference DIR    the pinned reference stack in DIR (5.6 GB)
#   ... --no-packages                                  virtual environments only
set -euo pipefail
scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

packages=(g++ cmake ninja-build ccache libdnnl-dev libonig-dev libutf8proc-dev
  nlohmann-json3-dev libcli11-dev libspdlog-dev libfmt-dev libgtest-dev libgmock-dev
  libbenchmark-dev libboost-context-dev libjpeg62-turbo-dev libpng-dev libssl-dev libstb-dev
  zlib1g-dev pkg-config python3 python3-venv git ca-certificates)
# clang's -fopenmp needs libomp, its sanitizers libclang-rt.
dev_packages=(clang clang-format clang-tidy libclang-rt-14-dev libomp-14-dev)

usage() { sed -n '2,9p' "${BASH_SOURCE[0]}" | sed 's/^# \{0,1\}//'; }

fail() {
  echo "install_dependencies: $*" >&2
  exit 1
}

install_packages() {
  command -v dpkg-query >/dev/null ||
    fail "no dpkg here. On another system install the counterparts of: ${packages[*]}"
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && as_root=(sudo) ||
      fail "not root and no sudo. Have an administrator run: apt-get install ${missing[*]}"
  fi
  echo "installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -q ||
    fail "apt-get update failed; these packages are missing: ${missing[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -q --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install: ${missing[*]}"
}

# Whether every pinned version of the requirements file is installed in a virtual environment.
has_versions() {
  "$1/bin/python" - "$2" <<'PYTHON' && "$1/bin/python" -m pip check >/dev/null 2>&1
import importlib.metadata, sys
for line in open(sys.argv[1], encoding="utf-8"):
    name, _, version = line.split("#")[0].strip().partition("==")
    if name:
        try:
            found = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found = None
        if found != version:
            sys.exit(1)
PYTHON
}

# A virtual environment is complete only when its stamp holds the hash of the requirements.
install_venv() {
  local folder=$1 requirements=$2 stamp=$1/requirements.sha256 hash
  hash=$(sha256sum "$requirements" | cut -d' ' -f1)
  [ "$(cat "$stamp" 2>/dev/null || true)" != "$hash" ] || return 0
  if [ -x "$folder/bin/python" ] && has_versions "$folder" "$requirements"; then
    echo "$hash" >"$stamp" 2>/dev/null || true
    return 0
  fi
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "python3 is $(python3 --version 2>&1), 3.11 or newer is needed"
  echo "installing $(basename "$requirements") into $folder"
  rm -f "$stamp"
  python3 -m venv "$folder" || fail "python3 -m venv failed; is python3-venv installed?"
  "$folder/bin/python" -m pip install -q --disable-pip-version-check -r "$requirements" ||
    fail "pip could not install $requirements into $folder; run again to go on"
  echo "$hash" >"$stamp"
}

with_packages=yes with_dev=no light="" reference=""
while [ $# -gt 0 ]; do
  case $1 in
    --dev) with_dev=yes ;;
    --no-packages) with_packages=no ;;
    --python) light=${2:?--python needs a folder}; shift ;;
    --reference) reference=${2:?--reference needs a folder}; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

[ $with_packages = no ] || install_packages "${packages[@]}"
[ $with_dev = no ] || install_packages "${dev_packages[@]}"
[ -z "$light" ] || install_venv "$light" "$scripts/requirements-light.txt"
[ -z "$reference" ] || install_venv "$reference" "$scripts/requirements-reference.txt"
