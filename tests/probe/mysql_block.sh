# Gives this host an address with a name, and runs the command line. A MySQL server counts by host
# only connections of hosts that have a name and are not the loopback.
set -eu
ip link set lo up
ip addr add 198.51.100.2/32 dev lo
hosts=$(mktemp)
printf '127.0.0.1 localhost\n198.51.100.2 checker.example\n' >"$hosts"
mount --bind "$hosts" /etc/hosts
rm "$hosts"
exec "$@"
