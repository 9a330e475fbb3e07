# version.sh is read by the other scripts, not run: it sets VERSION from Cargo.toml, REVISION and
# SOURCE_DATE_EPOCH from the last commit, unless they are set. Outside a git repository they are
# `unknown` and 0.
root=${root:?}
VERSION=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)}
REVISION=${REVISION:-$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct 2>/dev/null || echo 0)}
export VERSION REVISION SOURCE_DATE_EPOCH
