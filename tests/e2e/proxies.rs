//! Who sends requests by what the operator says: kube-proxy by the slices, nginx outside the cluster by the names that
//! CoreDNS makes of the slices, HAProxy outside by `/healthz`. All of them stop sending to what is down.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::json;

use crate::gated::{self, Gated};
use crate::hosts::{HTTP_PORT, Host};
use crate::room::Room;
use crate::suite::Suite;
use crate::traffic::Traffic;
use crate::verdict::{self, State};

const PROXY_PORT: u16 = 8000;
/// A Service without an address: its name leads to the endpoints that are ready.
const BY_NAME: &str = "by-name";

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("proxies::all_stop_sending_to_what_is_down", all)]
}

/// One backend; each server is asked for at the operator, by the name of its target.
fn haproxy_config(operator: IpAddr, namespace: &str, hosts: &[Host]) -> String {
    let servers: String = hosts
        .iter()
        .map(|host| format!("  server {} {} check addr {operator} port 8080\n", host.name, host.at(HTTP_PORT)))
        .collect();
    format!(
        "global\n  maxconn 1000\n\
         defaults\n  mode http\n  timeout connect 900ms\n  timeout client 2s\n  timeout server 900ms\n  timeout check 500ms\n  retries 0\n\
         frontend in\n  bind :{PROXY_PORT}\n  default_backend hosts\n\
         backend hosts\n  balance roundrobin\n  option httpchk\n\
         \x20 http-check send meth GET uri-lf /healthz/{namespace}/hosts/%[srv_name]\n  http-check expect status 200\n\
         \x20 default-server inter 200ms fall 1 rise 1\n{servers}"
    )
}

/// A failed request is not tried elsewhere: what is lost is to be seen.
fn nginx_config(resolver: &str, namespace: &str) -> String {
    format!(
        "user root;\nworker_processes 1;\ndaemon off;\npid /srv/nginx.pid;\nerror_log stderr;\nevents {{}}\n\
         http {{\n  access_log off;\n  resolver {resolver} ipv6=off;\n  client_body_temp_path /srv/body;\n  proxy_temp_path /srv/proxy;\n\
         \x20 proxy_connect_timeout 500ms;\n  proxy_read_timeout 500ms;\n  proxy_next_upstream off;\n\
         \x20 server {{\n    listen {PROXY_PORT};\n    location / {{\n      set $backend {BY_NAME}.{namespace}.svc.cluster.local;\n\
         \x20     proxy_pass http://$backend:{HTTP_PORT};\n    }}\n  }}\n}}\n"
    )
}

async fn proxy(room: &Room, name: &str, config: &str, command: &[&str]) -> anyhow::Result<SocketAddr> {
    let host = room.host(name).await?;
    std::fs::write(host.directory().join("config"), config)?;
    host.act("start", &[&[name], command].concat()).await?;
    Ok(host.at(PROXY_PORT))
}

async fn all(room: Arc<Room>) -> anyhow::Result<()> {
    let release = room.operator(&[]).await?;
    let hosts = room.http_hosts(&["a", "b", "c"]).await?;
    room.service(BY_NAME, json!({"clusterIP": "None", "ports": [{"name": "traffic", "port": HTTP_PORT}]})).await?;
    let spec = gated::with_gate(gated::spec(&hosts), BY_NAME, &json!({}));
    let gated = Gated::new(&room, "hosts", &hosts, spec, json!({})).await?;
    gated.settled(&[true, true, true]).await?;

    let asked = haproxy_config(room.service_ip(&release.full_name()).await?, &room.namespace, &hosts);
    let haproxy = proxy(&room, "haproxy", &asked, &["haproxy", "-db", "-f", "/srv/config"]).await?;
    let named = nginx_config(room.node.fact("DNS_IP"), &room.namespace);
    let nginx = proxy(&room, "nginx", &named, &["nginx", "-c", "/srv/config", "-e", "stderr"]).await?;
    let consumers = [("kube-proxy", gated.address), ("HAProxy", haproxy), ("nginx", nginx)];

    let sick = &hosts[1];
    for fault in ["500", "dropped", "killed"] {
        let mut clients = Vec::new();
        for (name, address) in consumers {
            let traffic = Traffic::start(address).await?;
            for host in &hosts {
                traffic.answered_by(&host.name).await?;
            }
            clients.push((name, traffic));
        }
        let begun = Instant::now();
        sick.break_by(fault).await?;
        let verdict = gated.verdict(sick, State::Unhealthy, begun).await?;
        for (_, traffic) in &clients {
            let after = |seen: &[_]| seen.len() >= 100;
            traffic.until("requests after the verdict", verdict + verdict::WATCHED, after).await?;
        }
        let mended = Instant::now();
        sick.mend(fault).await?;
        gated.verdict(sick, State::Healthy, mended).await?;
        for (name, traffic) in clients {
            traffic.answered_by(&sick.name).await?;
            let report = traffic.stop(&format!("{name}, of three at once: {fault}")).await?;
            report.over_by(begun, verdict)?;
        }
    }
    // Only the sick one ever changed.
    for host in [&hosts[0], &hosts[2]] {
        let states = verdict::states(&gated.checks, &gated.name, &host.name)?;
        let known: Vec<_> =
            states.iter().map(|(_, state)| *state).skip_while(|state| *state == State::Unknown).collect();
        ensure!(known == [State::Healthy], "{} was {states:?}", host.name);
    }
    Ok(())
}
