#!/bin/sh
# sbom.sh CARGO_CYCLONEDX: prints the crates of the program as a CycloneDX document.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/version.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# It writes its file beside Cargo.toml, so it gets a copy of all that cargo needs to read.
mkdir "$work/src"
cp "$root/Cargo.toml" "$root/Cargo.lock" "$work/"
cp -R "$root/src" "$work/"
cd "$work"
"$1" cyclonedx --format json --spec-version 1.5 --target x86_64-unknown-linux-gnu \
	--override-filename sbom >&2
# The folder is the only thing that differs from one run to the next.
sed "s|path+file://$work|path+file:///src|" sbom.json
