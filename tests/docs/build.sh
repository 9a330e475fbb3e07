#!/bin/sh
# build.sh: builds docs/ as a book into target/docs/book, and fails on any warning. Without mdbook
# on this machine, cargo builds it once, into the cache (two minutes on two processors).
set -eu
version=0.5.4
root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/external-endpoints/mdbook-$version
out=$root/target/docs

say() { echo "docs: $*" >&2; }

if [ ! -x "$cache/bin/mdbook" ]; then
	say "building mdbook $version ..."
	cargo install mdbook --quiet --locked --version "$version" \
		--no-default-features --features search --root "$cache" >&2 || {
		say "mdbook could not be installed; see https://rust-lang.github.io/mdBook/"
		exit 1
	}
fi

rm -rf "$out"
mkdir -p "$out"
"$cache/bin/mdbook" build "$root/docs" >"$out/log" 2>&1 || { cat "$out/log" >&2; exit 1; }
if grep -E '^ *(WARN|ERROR)|\[(WARN|ERROR)\]' "$out/log" >&2; then
	say "mdbook warns; correct the pages above"
	exit 1
fi

# Pages link to files of the repository beside docs/, which so work in the book too.
for folder in benches config deploy src tests; do
	cp -R "$root/$folder" "$out/"
done
rm -rf "$out/benches/target"
say "the book is in target/docs/book/index.html"
