#!/bin/sh
# reproduce.sh: builds the program for amd64 and its image twice, at the same time, and compares the
# bytes. The second build has its sources, its target folder, its crates and its settings elsewhere,
# as another person's build has.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
. "$root/packaging/version.sh"

say() { echo "reproduce: $*" >&2; }
fail() { say "$*"; exit 1; }

other=$root/target/reproduce/in-another/folder
home=$root/target/reproduce/another-cargo-home
cargo=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$other" "$home/registry"
for part in Cargo.toml Cargo.lock rust-toolchain.toml src packaging deploy; do
	rm -rf "${other:?}/$part"
	cp -Rp "$root/$part" "$other/"
done
# The crates are downloaded once, and unpacked for each build.
"$root/packaging/build.sh" fetch
for folder in index cache; do
	ln -sfn "$cargo/registry/$folder" "$home/registry/$folder"
done
[ ! -e "$cargo/config.toml" ] || cp "$cargo/config.toml" "$home/"

# In another folder, rustup might choose another compiler.
RUSTUP_TOOLCHAIN=${RUSTUP_TOOLCHAIN:-$(rustup show active-toolchain 2>/dev/null | cut -d' ' -f1)}
[ -z "$RUSTUP_TOOLCHAIN" ] && unset RUSTUP_TOOLCHAIN || export RUSTUP_TOOLCHAIN

# elsewhere COMMAND...: runs a command of the other folder as another person.
elsewhere() (
	cd "$other"
	umask 077
	unset CARGO_TARGET_DIR
	exec env CARGO_HOME="$home" TZ=Asia/Tokyo LANG=de_DE.UTF-8 "$@"
)

reproduced=$root/target/reproduce
elsewhere ./packaging/build.sh amd64 >"$reproduced/second" 2>"$reproduced/log" &
second_build=$!
trap 'kill "$second_build" 2>/dev/null || true' EXIT
first=$("$root/packaging/build.sh" amd64)
wait "$second_build" || { cat "$reproduced/log" >&2; fail "the second build failed"; }
trap - EXIT
second=$(cat "$reproduced/second")

[ "$(realpath "$first")" != "$(realpath "$second")" ] || fail "both builds are one"
cmp "$first" "$second" || fail "the programs differ; diffoscope says in what"
for path in "$root" "$cargo" "$home"; do
	! strings "$first" | grep -F -m 3 "$path" || fail "the program names a folder of this machine"
done
image=$root/target/package/image/amd64
"$root/packaging/image.sh" "$first" amd64 "$image"
elsewhere ./packaging/image.sh "$second" amd64 "$reproduced/image"
diff -r "$image" "$reproduced/image" || fail "the images differ"
say "both builds are the same bytes: $(sha256sum "$first" | cut -d' ' -f1)"
