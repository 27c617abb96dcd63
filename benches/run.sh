#!/usr/bin/env bash
# Every benchmark, one after the other: `benches/run.sh`, or some: `benches/run.sh probing healthz`; at the end one table
# of all goals beside what was measured, and target/bench.json.
# The tables go to stdout, progress to stderr. BENCH_ROUNDS, BENCH_SECONDS and BENCH_SCALE (percent) make a trial run
# short; BENCH_ONLY names parts (docs/benchmarks.md). Needs two cores, root, and of Debian: nginx-light, wrk, binutils,
# iproute2, util-linux, and for `peers` haproxy, prometheus-blackbox-exporter and tcpdump (Envoy is fetched from PyPI);
# `cluster` needs what the tests need.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(binutils haproxy iproute2 nginx-light prometheus-blackbox-exporter tcpdump util-linux wrk)
for command in haproxy ip nginx prometheus-blackbox-exporter setpriv size taskset tcpdump wrk; do
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

if [ -z "${HEALTHCHECK_OPERATOR_BENCH_BINARY:-}" ]; then
	cargo build --release --locked
fi
all=(size peers engine scripts allocations healthz passive probing cluster)
if [ $# -eq 0 ]; then
	set -- "${all[@]}"
	if [ -z "${BENCH_ONLY:-}" ]; then
		# A figure of an earlier day beside those of today would be told as one of them.
		for bench in "${all[@]}"; do rm -f "${CARGO_TARGET_DIR:-target}/$bench.json"; done
	fi
fi
# One that fails says so, and keeps no other from its turn: its lines of the last table say that nothing was measured.
failed=()
for bench in "$@"; do
	cargo bench --locked --bench "$bench" || failed+=("$bench")
done
cargo bench --locked --bench summary
if [ ${#failed[@]} -gt 0 ]; then
	echo "benches/run.sh: failed: ${failed[*]}" >&2
	exit 1
fi
