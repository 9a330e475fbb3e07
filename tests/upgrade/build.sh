#!/bin/sh
# build.sh: builds the daemon of an earlier version once, into a cache outside target/, and prints
# its path. The upgrade trials run it beside today's.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# The commit that the trials come from and go back to: the newest release, once there is one.
commit=$(cat "$here/previous-version")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/previous-$commit

say() { echo "upgrade: $*" >&2; }

mkdir -p "$cache"
exec 9>"$cache/lock"
flock -n 9 || { say "another build runs; waiting for it"; flock 9; }
if [ ! -x "$cache/external-endpoints" ]; then
	git -C "$here" cat-file -e "$commit^{commit}" 2>/dev/null ||
		{ say "commit $commit is not here; a shallow clone gets it by: git fetch --unshallow"; exit 1; }
	say "building the version of $commit (4 minutes) ..."
	rm -rf "$cache/source" "$cache/target"
	mkdir "$cache/source"
	git -C "$here/../.." archive --format=tar "$commit" | tar -x -C "$cache/source"
	if ! (cd "$cache/source" && CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 cargo build --locked \
		--target-dir "$cache/target" --bin external-endpoints) >"$cache/log" 2>&1; then
		tail -n 20 "$cache/log" >&2
		exit 1
	fi
	mv "$cache/target/debug/external-endpoints" "$cache/external-endpoints"
	rm -rf "$cache/source" "$cache/target"
fi
echo "$cache/external-endpoints"
