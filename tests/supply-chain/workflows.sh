#!/bin/sh
# workflows.sh [actionlint|zizmor]...: checks the workflows in .github offline. actionlint looks for
# mistakes, and zizmor for what an attacker could use; without an argument both do. What is missing
# on this machine is built once, into the cache: actionlint in seconds, and zizmor in minutes.
set -eu
zizmor=1.26.1
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints

say() { echo "workflows: $*" >&2; }

run_actionlint() {
	actionlint=$cache/actionlint-$(sha256sum <"$here/actionlint/go.sum" | cut -c1-12)/actionlint
	if [ ! -x "$actionlint" ]; then
		say "building actionlint ..."
		mkdir -p "$(dirname "$actionlint")"
		(cd "$here/actionlint" &&
			go build -trimpath -o "$actionlint.part" github.com/rhysd/actionlint/cmd/actionlint)
		mv "$actionlint.part" "$actionlint"
	fi
	# Without shellcheck and pyflakes: their result depends on the version that a machine has.
	"$actionlint" -shellcheck= -pyflakes= .github/workflows/*.yaml
}

run_zizmor() {
	if [ ! -x "$cache/zizmor-$zizmor/bin/zizmor" ]; then
		say "building zizmor $zizmor ..."
		cargo install zizmor --quiet --locked --version "$zizmor" \
			--root "$cache/zizmor-$zizmor" >&2 || {
			say "zizmor could not be installed; see https://docs.zizmor.sh"
			exit 1
		}
	fi
	"$cache/zizmor-$zizmor/bin/zizmor" --offline --quiet --no-progress .github
}

cd "$root"
[ $# -gt 0 ] || set -- actionlint zizmor
for tool in "$@"; do
	case $tool in
		actionlint | zizmor) "run_$tool" ;;
		*) say "$tool is neither actionlint nor zizmor"; exit 1 ;;
	esac
done
