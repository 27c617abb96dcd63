//! The suite's own means: that its client sees what is lost, and nothing where nothing is broken.

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use libtest_mimic::Trial;

use crate::hosts::HTTP_PORT;
use crate::room::Room;
use crate::suite::Suite;
use crate::traffic::{Record, Traffic};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.show("harness::the_client_sees_each_way_of_dying", client)]
}

async fn client(room: Arc<Room>) -> anyhow::Result<()> {
    let hosts = room.http_hosts(&["only"]).await?;
    let host = &hosts[0];
    let traffic = Traffic::start(&room.node, host.at(HTTP_PORT)).await?;
    traffic.more(50).await?;
    traffic.stop("harness: nothing broken").await?.lossless()?;

    let faults = ["500", "close", "hang", "dropped", "killed"];
    for fault in faults {
        let traffic = Traffic::start(&room.node, host.at(HTTP_PORT)).await?;
        host.break_by(fault).await?;
        let broken = Instant::now();
        let failed = |seen: &[Record]| seen.iter().any(|record| record.result.is_err());
        traffic.until(&format!("a failure of a host that is {fault}"), broken, failed).await?;
        let report = traffic.stop(&format!("harness: {fault}")).await?;
        let well = report.answers(broken);
        ensure!(well.is_empty(), "{fault}, and yet answers: {well:?}");
        host.mend(fault).await?;
    }
    Ok(())
}
