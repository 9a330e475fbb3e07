#!/bin/sh
# release.sh [amd64|arm64]...: makes the files of a release in dist/, for these architectures or, if
# none is named, for both. IMAGE is the name under which the image will be found; install.yaml and
# the chart's values name it. The same commit gives the same files.
set -eu
cyclonedx=0.5.9
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/version.sh"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/cargo-cyclonedx-$cyclonedx
dist=$root/dist
name=external-endpoints-$VERSION
[ $# -gt 0 ] || set -- amd64 arm64

say() { echo "release: $*" >&2; }
fail() { say "$*"; exit 1; }

if [ ! -x "$cache/bin/cargo-cyclonedx" ]; then
	say "building cargo-cyclonedx $cyclonedx ..."
	cargo install cargo-cyclonedx --quiet --locked --version "$cyclonedx" --root "$cache" >&2 ||
		fail "cargo-cyclonedx could not be installed; cargo says why above"
fi
eval "$("$root/tests/control-plane/build.sh" gitops)"
export KUBEBUILDER_ASSETS
helm=$EXTERNAL_ENDPOINTS_GITOPS/helm

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$dist"
mkdir -p "$dist"

# archive FOLDER FILE: packs a folder so that only its content counts.
archive() {
	tar --create --directory "$(dirname "$1")" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 \
		--group=0 --numeric-owner --mode=u=rwX,go=rX --format=gnu "$(basename "$1")" >"$work/tar"
	case $2 in
		*gz) gzip -9 --no-name <"$work/tar" >"$2" ;;
		*) mv "$work/tar" "$2" ;;
	esac
}

# What the program writes about itself comes from the one that runs here.
native=$("$root/packaging/build.sh" "$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')")
mkdir -p "$work/common/man" "$work/common/completions"
"$native" man "$work/common/man" >/dev/null
for shell in bash elvish fish powershell zsh; do
	"$native" completion "$shell" >"$work/common/completions/external-endpoints.$shell"
done
cp "$root/README.md" "$root/LICENSE" "$root/CHANGELOG.md" "$work/common/"

for architecture in "$@"; do
	program=$("$root/packaging/build.sh" "$architecture")
	folder=$work/$architecture/$name
	mkdir -p "$(dirname "$folder")"
	cp -R "$work/common" "$folder"
	cp "$program" "$folder/external-endpoints"
	archive "$folder" "$dist/$name-linux-$architecture.tar.gz"
	image=$root/target/package/image/$architecture
	"$root/packaging/image.sh" "$program" "$architecture" "$image"
	mkdir -p "$work/image"
	cp -R "$image" "$work/image/$name-image-$architecture"
	archive "$work/image/$name-image-$architecture" "$dist/$name-image-$architecture.tar"
done

"$root/packaging/sbom.sh" "$cache/bin/cargo-cyclonedx" >"$dist/$name.cdx.json"
"$root/packaging/manifests.sh" "${IMAGE:-external-endpoints}:$VERSION" >"$dist/install.yaml"
"$native" schema >"$dist/$name.schema.json"
if [ -e "$root/deploy/chart/Chart.yaml" ]; then
	mkdir "$work/charts"
	"$helm" package "$root/deploy/chart" --version "$VERSION" --app-version "$VERSION" \
		--destination "$work/charts" >/dev/null
	mkdir "$work/unpacked"
	tar -xzf "$work/charts/$name.tgz" -C "$work/unpacked"
	[ -z "${IMAGE:-}" ] || sed -i "s|^\(  repository: \).*|\1$IMAGE|" \
		"$work/unpacked/external-endpoints/values.yaml"
	archive "$work/unpacked/external-endpoints" "$dist/$name.tgz"
fi
(cd "$dist" && sha256sum -- * >SHA256SUMS)
say "the release $VERSION is in dist/"
