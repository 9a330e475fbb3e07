#!/bin/sh
# push.sh DESTINATION: pushes the images in dist/ as one for all architectures, and prints its
# digest. DESTINATION is a name as buildah has it, such as docker://ghcr.io/owner/name:0.1.0.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 1 ] || { echo "usage: push.sh DESTINATION" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
with_storage() {
	buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

with_storage manifest create release >/dev/null
for archive in "$root"/dist/external-endpoints-*-image-*.tar; do
	tar -xf "$archive" -C "$work"
	with_storage manifest add release "oci:$work/$(basename "$archive" .tar)" >/dev/null
done
with_storage manifest push --all --quiet --digestfile "$work/digest" release "$1" >&2
cat "$work/digest"
