#!/bin/sh
# image.sh PROGRAM ARCHITECTURE OUT: puts this program into an image of the form OCI layout, in the
# folder OUT. The image is the last stage of deploy/Dockerfile. Its bytes depend on the program, the
# certificates of this machine, the version and the commit, and not on the time or the machine.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 3 ] || { echo "usage: image.sh PROGRAM amd64|arm64 OUT" >&2; exit 1; }
umask 022
program=$1 architecture=$2 out=$3
. "$root/packaging/version.sh"

context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/etc/ssl/certs"
cp /etc/ssl/certs/ca-certificates.crt "$context/etc/ssl/certs/"
cp "$program" "$context/external-endpoints"
chmod 755 "$context/external-endpoints"
sed -n '/^FROM scratch/,$p' "$root/deploy/Dockerfile" >"$context/Dockerfile"

# Storage of its own: nothing that this machine has pulled or configured gets into the image.
# `chroot` needs no runtime, and nothing runs.
build() {
	buildah --root "$context/storage" --runroot "$context/run" --storage-driver vfs "$@"
}
build bud --quiet --isolation chroot --arch "$architecture" --os linux \
	--timestamp "$SOURCE_DATE_EPOCH" --build-context "build=$context" \
	--build-arg "VERSION=$VERSION" --build-arg "REVISION=$REVISION" --identity-label=false \
	--format oci --tag external-endpoints --file "$context/Dockerfile" "$context/etc" >/dev/null
rm -rf "$out"
mkdir -p "$(dirname "$out")"
build push --quiet external-endpoints "oci:$out:$VERSION"
