#!/usr/bin/env bash
# Shows hushfs on this machine without asking anything: builds it, makes a volume in a local folder, mounts it,
# copies a file in, and looks at what the store sees of it. Leaves the folder for you to play with.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

scripts/install.sh try
say "Building (a few minutes the first time)"
cargo build --release
hushfs=$(scripts/target.sh)/release/hushfs

here=${1:-$(mktemp -d "${TMPDIR:-/tmp}/hushfs-try.XXXXXX")}
mkdir -p "$here"/{store,drive}
# A password is needed only to show the thing; use a real one for a real volume.
printf 'only for trying\n' > "$here/password"
options=(--password-file "$here/password")
folders=(--state-dir "$here/state" --cache-dir "$here/cache")

say "A volume in a local folder, mounted"
[ -e "$here/store/hushfs.volume" ] || run "$hushfs" init "${options[@]}" "$here/store"
run "$hushfs" mount "${options[@]}" "${folders[@]}" "$here/store" "$here/drive"
trap 'echo "unmount with: $hushfs umount $here/drive"' EXIT

say "A file goes in"
mkdir -p "$here/drive/letters"
printf 'Dear diary, nobody but me reads this.\n' > "$here/drive/letters/dear-diary.txt"
cp README.md "$here/drive/letters/"
run ls -l "$here/drive/letters"
run df -T "$here/drive"
run "$hushfs" flush "$here/drive"

say "What the store sees of it: no names, no contents, padded sizes"
(cd "$here/store" && find . -type f -printf '%10s  %P\n' | sort -k2)
if grep -rqaE 'diary|README' "$here/store"; then echo "a name or content is readable in the store!" >&2; exit 1; fi
pack=$(find "$here/store/pk" -type f | head -n 1)
run od -A d -t x1z -N 64 "$pack"

say "How the drive is"
run "$hushfs" status "$here/drive"

trap - EXIT
cat <<TEXT

The drive is mounted at $here/drive. Go on:
  cp -a SOMETHING $here/drive/
  $hushfs umount $here/drive
  $hushfs mount ${options[*]} ${folders[*]} $here/store $here/drive

With a bucket:
  export AWS_PROFILE=me                 # or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
  $hushfs init  s3://my-bucket/drive    # --endpoint-url https://... for other servers than Amazon's
  $hushfs mount s3://my-bucket/drive ~/drive
TEXT
