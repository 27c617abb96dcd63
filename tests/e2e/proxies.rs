//! Proxies outside the cluster that stop sending to what the operator says is down.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use healthcheck_operator::api::HealthCheck;
use libtest_mimic::Trial;
use serde_json::json;

use crate::hosts::{HTTP_PORT, Host};
use crate::room::Room;
use crate::suite::Suite;
use crate::support::recorder::Recorder;
use crate::traffic::Traffic;
use crate::verdict::{self, State};

const PROXY_PORT: u16 = 8000;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("proxies::haproxy_asks_healthz_instead_of_its_servers", haproxy)]
}

/// One backend; each server is asked for at the operator, by the name of its target.
fn haproxy_config(operator: std::net::IpAddr, namespace: &str, hosts: &[Host]) -> String {
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

async fn haproxy(room: Arc<Room>) -> anyhow::Result<()> {
    let release = room.operator(&[]).await?;
    let hosts = room.http_hosts(&["a", "b", "c"]).await?;
    let targets: Vec<_> =
        hosts.iter().map(|host| json!({"name": host.name, "host": host.ip, "port": HTTP_PORT})).collect();
    room.check("hosts", verdict::quick(json!({"http": {"path": "/", "expectedStatuses": [200]}}), &targets)).await?;
    room.health("hosts", "Healthy").await?;
    let recorder = room.record().await?;

    let proxy = room.host("haproxy").await?;
    let operator = room.service_ip(&release.full_name()).await?;
    std::fs::write(proxy.directory().join("haproxy.cfg"), haproxy_config(operator, &room.namespace, &hosts))?;
    proxy.act("start", &["haproxy", "haproxy", "-db", "-f", "/srv/haproxy.cfg"]).await?;

    for fault in ["500", "dropped", "killed"] {
        let sick = &hosts[1];
        let traffic = Traffic::start(&room.node, proxy.at(PROXY_PORT)).await?;
        for host in &hosts {
            traffic.answered_by(&host.name).await?;
        }
        let begun = Instant::now();
        sick.break_by(fault).await?;
        let verdict = verdict::seen(&recorder, "hosts", &sick.name, State::Unhealthy, begun).await?;
        traffic.until("requests after the verdict", verdict + verdict::WATCHED, |seen| seen.len() >= 100).await?;
        let mended = Instant::now();
        sick.mend(fault).await?;
        verdict::seen(&recorder, "hosts", &sick.name, State::Healthy, mended).await?;
        traffic.answered_by(&sick.name).await?;
        let report = traffic.stop(&format!("HAProxy asks /healthz: {fault}")).await?;
        report.over_by(begun, verdict)?;
    }
    room.health("hosts", "Healthy").await?;
    flips(&recorder, &hosts)
}

/// Only the sick one ever changed.
fn flips(recorder: &Recorder<HealthCheck>, hosts: &[Host]) -> anyhow::Result<()> {
    for host in [&hosts[0], &hosts[2]] {
        let seen = verdict::states(recorder, "hosts", &host.name)?;
        ensure!(seen.iter().all(|(_, state)| *state == State::Healthy), "{} was {seen:?}", host.name);
    }
    Ok(())
}
