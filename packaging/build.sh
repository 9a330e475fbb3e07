#!/bin/sh
# build.sh [amd64|arm64|fetch]: builds the static program of a release for this architecture and
# prints its path. The bytes depend on the sources, the Rust compiler and the C compiler, and not on
# the folder, the user or the time. The program holds the list of its crates, which
# `cargo audit bin` reads. `fetch` downloads the crates, and nothing else. CARGO_HOME and
# CARGO_TARGET_DIR are honoured; the default target folder is target/package. PROFILE=dev builds
# without optimising, to try these scripts.
set -eu
auditable=0.7.7
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/cargo-auditable-$auditable

say() { echo "build: $*" >&2; }
fail() { say "$*"; exit 1; }

architecture=${1:-amd64}
case $architecture in
	amd64) target=x86_64-unknown-linux-gnu compiler=gcc ;;
	arm64) target=aarch64-unknown-linux-gnu compiler=aarch64-linux-gnu-gcc ;;
	fetch) exec cargo fetch --quiet --locked --manifest-path "$root/Cargo.toml" ;;
	*) fail "there is no architecture $architecture here; say amd64 or arm64" ;;
esac

if [ ! -x "$cache/bin/cargo-auditable" ]; then
	say "building cargo-auditable $auditable ..."
	cargo install cargo-auditable --quiet --locked --version "$auditable" --root "$cache" >&2 ||
		fail "cargo-auditable could not be installed; cargo says why above"
fi

cd "$root"
sysroot=$(rustc --print sysroot)
[ -d "$sysroot/lib/rustlib/$target" ] ||
	fail "Rust has no $target here; install it by: rustup target add $target"
command -v "$compiler" >/dev/null ||
	fail "there is no $compiler; for arm64 Debian has it in the packages gcc-aarch64-linux-gnu and" \
		"libc6-dev-arm64-cross"

# No path of this machine gets into the program. The folder of crates is named after the registry,
# so it gets a fixed name itself. Where several prefixes match, the last one counts: a target folder
# below the sources is named by its place there.
"$0" fetch
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target/package}"
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
rust_flags="-C target-feature=+crt-static"
c_flags=
remap() {
	rust_flags="$rust_flags --remap-path-prefix=$1=$2"
	c_flags="$c_flags -ffile-prefix-map=$1=$2"
}
for crates in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
	remap "$crates" /crates
done
rust_flags="$rust_flags --remap-path-prefix=$sysroot/lib/rustlib/src/rust=/rustc/$commit"
remap "$CARGO_TARGET_DIR" /target
remap "$root" /src

# With an explicit target, the flags do not apply to build scripts and procedural macros, which
# cannot be static.
profile=${PROFILE:-release}
say "building for $architecture (six minutes on two processors) ..."
linker=CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_LINKER
env "RUSTFLAGS=$rust_flags" "CFLAGS_$(echo "$target" | tr - _)=$c_flags" "$linker=$compiler" \
	PATH="$cache/bin:$PATH" LC_ALL=C TZ=UTC CARGO_INCREMENTAL=0 cargo auditable build --quiet \
	--locked --profile "$profile" --bin external-endpoints --target "$target" >&2

[ "$profile" = dev ] && folder=debug || folder=$profile
program=$CARGO_TARGET_DIR/$target/$folder/external-endpoints
! readelf --program-headers "$program" | grep -q INTERP || fail "$program is not static"
echo "$program"
