#!/usr/bin/env bash
# Runs scripts/quickstart.sh as a new user meets it: a clone of HEAD in a bare Debian 12 root.
#
#   scripts/quickstart_trial.sh [FOLDER]   needs root and debootstrap, 3 GB, 15 to 30 minutes
#
# FOLDER (default: a temporary one) must not exist; it is removed afterwards. MEDVQA_MIRROR names
# another Debian mirror. Too slow for CI: README.md says when it was last done.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mirror=${MEDVQA_MIRROR:-http://deb.debian.org/debian}

fail() {
  echo "quickstart_trial: $*" >&2
  exit 1
}

[ "$(id -u)" -eq 0 ] || fail "needs root, for debootstrap and chroot"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
system=${1:-$(mktemp -d)/bookworm}
[ ! -e "$system" ] || fail "$system exists; name a folder that does not"

clean() {
  for part in proc sys dev; do
    ! mountpoint -q "$system/$part" || umount -l "$system/$part"
  done
  rm -rf --one-file-system "$system"
}
trap clean EXIT

debootstrap --variant=minbase bookworm "$system" "$mirror"
for file in /etc/resolv.conf /etc/hosts; do
  [ ! -f "$file" ] || cp --dereference "$file" "$system$file"
done
mount -t proc proc "$system/proc"
mount --rbind --make-rslave /sys "$system/sys"
mount --rbind --make-rslave /dev "$system/dev"
git clone -q --no-hardlinks "$root" "$system/root/medvqa"
begin=$SECONDS
chroot "$system" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
  /root/medvqa/scripts/quickstart.sh
echo "quickstart on a bare Debian 12: $((SECONDS - begin)) s"
