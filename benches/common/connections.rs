//! The kernel's count of connections in this network.

use anyhow::Context as _;

/// Connections that were begun in this network (`ActiveOpens`).
pub fn opened() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no Tcp")?;
    let at = names.split(' ').position(|name| name == "ActiveOpens").context("no ActiveOpens")?;
    Ok(values.split(' ').nth(at).context("no ActiveOpens")?.parse()?)
}
