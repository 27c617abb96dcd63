# Sourced by `host`. The servers that an outside host can be: real ones, of Debian.

serve_postgres() {
	local bin primary=${1:-}
	no_members "$group" || fail "something runs on $host already: host kill $host ends it"
	bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
	install -d -o postgres -g postgres -m 0700 "$dir/data"
	chown postgres "$dir"
	if [ -n "$(ls -A "$dir/data")" ]; then
		: # served before: its data is there
	elif [ -n "$primary" ]; then
		# -R makes it a standby of whom it copies.
		as_user postgres "$bin/pg_basebackup" -h "$primary" -U postgres -D /srv/data -R -c fast --no-sync
	else
		as_user postgres "$bin/initdb" -D /srv/data --auth=trust --no-sync >"$run/log/$host-initdb.log"
		printf 'host all all 198.18.0.0/15 trust\nhost replication all 198.18.0.0/15 trust\n' >>"$dir/data/pg_hba.conf"
	fi
	# Nobody serves this data: the number in its locks may be another process' by now.
	rm -f "$dir/data/postmaster.pid" "$dir"/.s.PGSQL.*
	start_in_host postgres setpriv --reuid=postgres --regid=postgres --init-groups -- \
		"$bin/postgres" -D /srv/data -c listen_addresses='*' -c unix_socket_directories=/srv -c fsync=off
	wait_until 60 "PostgreSQL of $host" pg_isready -q -h "$ip" -U postgres
	# What tells a primary from a standby: 200 or 503, as the usual cluster managers answer.
	start_in_host role /usr/bin/python3 "$here/servers/target.py" --port 8008 --name "$host" \
		--command "psql -h 127.0.0.1 -U postgres -Atc 'SELECT pg_is_in_recovery()' | grep -qx f"
	wait_until 20 "the role check of $host" curl -s -o /dev/null "http://$ip:8008/"
}

serve_redis() {
	start_in_host redis setpriv --reuid=redis --regid=redis --init-groups -- \
		redis-server --bind 0.0.0.0 --protected-mode no --save '' --appendonly no
	wait_until 20 "Redis of $host" redis-cli -h "$ip" ping
}

serve_nginx() {
	mkdir -p "$dir/html" "$dir/tmp"
	chmod 755 "$dir" "$dir/html"
	echo "$host" >"$dir/html/index.html"
	cat >"$dir/nginx.conf" <<-'END'
		user www-data;
		worker_processes 1;
		daemon off;
		pid /srv/nginx.pid;
		error_log stderr;
		events {}
		http {
			access_log /srv/access.log;
			client_body_temp_path /srv/tmp;
			server { listen 80; root /srv/html; }
		}
	END
	start_in_host nginx nginx -c /srv/nginx.conf -e stderr
	wait_until 20 "nginx of $host" curl -sf -o /dev/null "http://$ip/"
}

serve_http() {
	answer "${1:-200}"
	start_in_host http /usr/bin/python3 "$here/servers/target.py" --port 8080 --name "$host" --answer /srv/answer
	wait_until 20 "the HTTP target of $host" curl -s -o /dev/null --max-time 1 "http://$ip:8080/__hits"
}

# What the HTTP target answers from now on. A rename, so that no request sees half a file.
answer() {
	[[ "$1" =~ ^([1-5][0-9][0-9]|hang|close)$ ]] || fail "\"$1\" is no answer: a status code, hang or close"
	echo "$1" >"$dir/.answer"
	mv "$dir/.answer" "$dir/answer"
}
