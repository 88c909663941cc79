#!/usr/bin/env bash
# Proves a bundle on a machine that has nothing of ours: unpacks it in a bare Debian 12 root and
# starts what is in it. Without a GPU, so gpu_check.sh must say that there is none.
#
#   scripts/bundle_trial.sh [BUNDLE [FOLDER]]   needs root and debootstrap, 4 GB, 3 to 15 minutes
#
# BUNDLE: default: what scripts/make_bundle.sh makes of build/cuda. FOLDER (default: a temporary
# one) must not exist; it is removed afterwards. MEDVQA_MIRROR names another Debian mirror. Not part
# of CI, whose stage gpu-check-cpu runs a bundle of the CPU build.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mirror=${MEDVQA_MIRROR:-http://deb.debian.org/debian}

fail() {
  echo "bundle_trial: $*" >&2
  exit 1
}

[ "$(id -u)" -eq 0 ] || fail "needs root, for debootstrap and chroot"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
scratch=$(mktemp -d)
bundle=${1:-$scratch/bundle.tar.gz}
system=${2:-$scratch/bookworm}
[ ! -e "$system" ] || fail "$system exists; name a folder that does not"
[ $# -eq 0 ] || [ -f "$bundle" ] || fail "no bundle $bundle"

clean() {
  ! mountpoint -q "$system/proc" || umount -l "$system/proc"
  rm -rf --one-file-system "$system" "$scratch"
}
trap clean EXIT

[ $# -gt 0 ] || "$root/scripts/make_bundle.sh" --out "$bundle"
debootstrap --variant=minbase bookworm "$system" "$mirror" >"$scratch/debootstrap.log" ||
  { tail -n 20 "$scratch/debootstrap.log" >&2; fail "debootstrap failed"; }
mount -t proc proc "$system/proc"
mkdir "$system/bundle"
tar -C "$system/bundle" --strip-components 1 -xf "$bundle"

# inside EXIT-CODE COMMAND...: runs it in the bare root, where it must end with that code.
inside() {
  local expected=$1 code=0 begin=$SECONDS
  shift
  echo "--- $*"
  chroot "$system" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@" ||
    code=$?
  [ $code -eq "$expected" ] || fail "$*: exit $code, expected $expected"
  echo "exit $code, $((SECONDS - begin)) s"
}

inside 0 /bundle/bin/medvqa --version
inside 0 /bundle/bin/medvqa doctor
inside 9 /bundle/gpu_check.sh
inside 0 /bundle/gpu_check.sh --device cpu --out /root/gpu_check
echo "bundle_trial: $(head -n 1 "$system/bundle/VERSION") in a bare Debian 12: $(
  du -sh "$bundle" | cut -f1) packed, $(du -sh "$system/bundle" | cut -f1) unpacked, $SECONDS s"
