#!/bin/sh
# deny.sh CHECK...: runs these checks of cargo-deny (licenses, bans, sources, advisories) by
# deny.toml on both workspaces. Without cargo-deny on this machine, cargo builds it once, into the
# cache (some minutes).
set -eu
version=0.20.2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/cargo-deny-$version

say() { echo "deny: $*" >&2; }

find_deny() {
	if command -v cargo-deny >/dev/null; then
		command -v cargo-deny
	else
		if [ ! -x "$cache/bin/cargo-deny" ]; then
			say "building cargo-deny $version ..."
			cargo install cargo-deny --quiet --locked --version "$version" --root "$cache" >&2 || {
				say "cargo-deny could not be installed; see https://embarkstudios.github.io/cargo-deny/"
				exit 1
			}
		fi
		echo "$cache/bin/cargo-deny"
	fi
}

deny=$(find_deny)
for manifest in "$root/Cargo.toml" "$root/benches/Cargo.toml"; do
	"$deny" --config "$root/deny.toml" --manifest-path "$manifest" --locked --log-level error \
		check --hide-inclusion-graph "$@"
done
