//! Many behind one address, and many who ask on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::ensure;

use crate::harness::{
    Files, Target, alive_and_well, alone, answer, check, checks, failures, metric, wait_healthy, wait_metric, wait_more,
};

/// A thousand targets at one address, each ten times a second: half of them ask the same, and are asked as one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_targets_behind_one_address_ten_times_a_second_are_borne_by_it() -> anyhow::Result<()> {
    let _alone = alone().await;
    let target = Target::start(answer);
    let spec = "interval: 100ms; timeout: 100ms; failureThreshold: 100; staleAfter: 10m";
    let own = (0..500).map(|n| (target.at(0), format!("{{http: {{path: /{n}}}}}")));
    let same = (0..500).map(|_| (target.at(0), "{http: {path: /same}}".to_owned()));
    let documents = [checks("own", spec, own), checks("same", spec, same)].concat();
    let files = Files::with(&documents);
    let operator = files.standalone().serve()?;
    wait_healthy(&operator, documents.len()).await?;
    let (hits, shared) = (target.hits(), metric(&operator, "healthcheck_operator_shared_rounds_total", "").await?);
    wait_metric(&operator, "healthcheck_operator_shared_rounds_total", "", |seen| seen >= shared + 5_000.0).await?;
    wait_more(&operator, 1_000.0).await?;
    ensure!(failures(&operator).await?.0 == 0.0, "{:?}", failures(&operator).await?);
    let lag = metric(&operator, "healthcheck_operator_in_flight_probes", "").await?;
    ensure!(lag <= 256.0, "no more at once than one host is given: {lag}");
    let shared = metric(&operator, "healthcheck_operator_shared_rounds_total", "").await? - shared;
    println!("  1,000 targets behind one address: {} connections for {shared} rounds more", target.hits() - hits);
    alive_and_well(&operator)
}

/// Whoever asks `?fresh=true` as fast as he can takes nothing from the rounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_on_demand_takes_nothing_from_the_rounds() -> anyhow::Result<()> {
    let _alone = alone().await;
    const TARGETS: usize = 50;
    let (asked, flooded) = (Target::start(answer), Target::start(answer));
    let spec = "interval: 1s; timeout: 1s; failureThreshold: 3; staleAfter: 10m";
    let rounds = (0..TARGETS).map(|n| (asked.at(n), "{http: {}}".to_owned()));
    let more = (0..TARGETS).map(|n| (flooded.at(n), "{http: {connectionClose: Polite}}".to_owned()));
    let documents = [
        check("rounds", spec, rounds),
        check("flood", "interval: 1h; timeout: 5s; failureThreshold: 1; staleAfter: 2h", more),
    ];
    let files = Files::with(&documents);
    let operator = Arc::new(files.standalone().serve()?);
    wait_healthy(&operator, 2).await?;
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flood: Vec<_> = (0..64)
        .map(|_| {
            let (operator, done, answered) = (operator.clone(), done.clone(), answered.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let answer = operator.get("/healthz/shop/flood?fresh=true").await?;
                    ensure!([200, 429].contains(&answer.status), "{answer:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        })
        .collect();
    let before = asked.hits();
    wait_more(&operator, 10.0 * TARGETS as f64).await?;
    done.store(true, Ordering::Relaxed);
    for one in flood {
        one.await??;
    }
    ensure!(failures(&operator).await?.0 == 0.0, "{:?}", failures(&operator).await?);
    ensure!(asked.hits() - before >= 9 * TARGETS as u64, "{}", asked.hits() - before);
    let answered = answered.load(Ordering::Relaxed);
    ensure!(answered >= 10, "there was a flood: {answered}");
    println!("  {answered} questions on demand beside {} rounds: none failed", asked.hits() - before);
    wait_healthy(&operator, 2).await?;
    alive_and_well(&operator)
}
