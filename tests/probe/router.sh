# Sets up this host and a router in a network namespace of its own, and runs the rest of the
# command line on this host. $1 is a program that plays the server and the router's ICMP, in the
# router's namespace.
set -eu
program=$1
folder=$(mktemp -d)
mkfifo "$folder/ready"
ip link set lo up

unshare --net sh -c 'echo >"$0"; exec sleep 600' "$folder/ready" &
router=$!
read -r _ <"$folder/ready"
inside() { nsenter --target "$router" --net "$@"; }

ip link add here type veth peer name there netns "$router"
ip addr add 198.51.100.2/24 dev here
ip -6 addr add 2001:db8:1::2/64 dev here nodad
ip link set here up
inside ip link set lo up
inside ip link add beyond type veth peer name end
inside ip link set end up
inside ip link set beyond up
inside ip addr add 198.51.100.1/24 dev there
inside ip -6 addr add 2001:db8:1::1/64 dev there nodad
inside ip link set there up
inside sh -c 'cd /proc/sys/net; echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding
	echo 0 >ipv4/icmp_ratelimit; echo 0 >ipv6/icmp/ratelimit
	echo 100000 >ipv4/icmp_msgs_per_sec || true'
ip route add default via 198.51.100.1
ip -6 route add default via 2001:db8:1::1

# Routes that this host itself refuses.
ip route add unreachable 203.0.113.10
ip route add prohibit 203.0.113.11
ip route add blackhole 203.0.113.12
ip -6 route add unreachable 2001:db8:2::10
ip -6 route add prohibit 2001:db8:2::11
ip -6 route add blackhole 2001:db8:2::12

# The router's kernel: ...:20 is unreachable, ...:21 prohibited, ...:22 has no route, ...:23 resets,
# and ...:1 serves.
inside ip addr add 203.0.113.1/32 dev lo
inside ip -6 addr add 2001:db8:2::1/128 dev lo nodad
inside ip route add unreachable 203.0.113.20
inside ip route add prohibit 203.0.113.21
inside ip route add 203.0.113.23 dev beyond
inside ip -6 route add unreachable 2001:db8:2::20
inside ip -6 route add prohibit 2001:db8:2::21
inside ip -6 route add 2001:db8:2::23 dev beyond

# Packets to ...:100 and above are dropped silently: the program answers for these.
inside ip route add 203.0.113.96/27 dev beyond
inside ip route add 203.0.113.128/25 dev beyond
inside ip -6 route add 2001:db8:2::100/120 dev beyond
inside nft -f - <<'N'
table inet filter {
	chain forward {
		type filter hook forward priority 0;
		ip daddr 203.0.113.96-203.0.113.255 drop
		ip6 daddr 2001:db8:2::100/120 drop
		ip daddr 203.0.113.23 reject with tcp reset
		ip6 daddr 2001:db8:2::23 reject with tcp reset
	}
}
N

inside "$program" router::the_router_here --exact --ignored --nocapture >"$folder/ready" &
while read -r line <&3; do
	[ "$line" != ready ] || break
done 3<"$folder/ready"
rm -r "$folder"
"$@"
