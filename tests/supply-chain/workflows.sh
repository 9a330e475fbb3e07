#!/bin/sh
# workflows.sh: checks the workflows in .github offline: actionlint looks for mistakes, and zizmor
# for what an attacker could use. What is missing on this machine is built once, into the cache:
# actionlint in seconds, and zizmor in minutes.
set -eu
zizmor=1.26.1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints

say() { echo "workflows: $*" >&2; }

actionlint=$cache/actionlint-$(sha256sum <"$here/actionlint/go.sum" | cut -c1-12)/actionlint
if [ ! -x "$actionlint" ]; then
	say "building actionlint ..."
	mkdir -p "$(dirname "$actionlint")"
	(cd "$here/actionlint" &&
		go build -trimpath -o "$actionlint.part" github.com/rhysd/actionlint/cmd/actionlint)
	mv "$actionlint.part" "$actionlint"
fi
if [ ! -x "$cache/zizmor-$zizmor/bin/zizmor" ]; then
	say "building zizmor $zizmor ..."
	cargo install zizmor --quiet --locked --version "$zizmor" --no-default-features \
		--root "$cache/zizmor-$zizmor" >&2 || {
		say "zizmor could not be installed; see https://docs.zizmor.sh"
		exit 1
	}
fi

cd "$root"
# Without shellcheck and pyflakes: what they say depends on which version a machine happens to have.
"$actionlint" -shellcheck= -pyflakes= .github/workflows/*.yaml
"$cache/zizmor-$zizmor/bin/zizmor" --offline --quiet --no-progress --persona=pedantic .github
