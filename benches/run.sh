#!/usr/bin/env bash
# Every benchmark, one after the other: `benches/run.sh`, or some: `benches/run.sh probing healthz`.
# The tables go to stdout, progress to stderr. BENCH_ROUNDS, BENCH_SECONDS and BENCH_SCALE (percent) make a trial run
# short. Needs two cores, and of Debian: nginx-light, wrk, binutils, util-linux, and for `peers` haproxy,
# prometheus-blackbox-exporter and tcpdump (Envoy is fetched from PyPI); `cluster` needs what the tests need.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(binutils haproxy nginx-light prometheus-blackbox-exporter tcpdump util-linux wrk)
for command in haproxy nginx prometheus-blackbox-exporter size taskset tcpdump wrk; do
	if ! PATH=$PATH:/usr/sbin command -v "$command" >/dev/null; then
		if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
			export DEBIAN_FRONTEND=noninteractive
			apt-get update -qq
			apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
			break
		fi
		echo "benches/run.sh: no $command; install ${packages[*]}" >&2
		exit 1
	fi
done

cargo build --release --locked
[ $# -gt 0 ] || set -- size peers probing healthz passive scripts cluster
for bench in "$@"; do
	cargo bench --locked --bench "$bench"
done
