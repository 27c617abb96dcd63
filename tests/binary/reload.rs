//! Files that change while `standalone` runs.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::ensure;

use crate::checks::{
    Files, SOON, check, healthy, metric, no_panic, quick_http, standalone, v1, wait_metric, wait_printed,
};
use rustix::process::Signal;

use crate::support::operator::Operator;
use crate::support::targets::HttpTarget;
use crate::support::wait::{wait_for, wait_until};

const RELOADED: &str = "healthcheck_operator_config_reload_success";

/// A check that is well by itself.
fn plain(name: &str) -> String {
    check(name, "  interval: 100ms\n  targets: [{name: s, probe: {script: {command: ['true']}}}]")
}

async fn appears(operator: &Operator, name: &str) -> anyhow::Result<()> {
    operator.wait_get(&format!("/healthz/shop/{name}"), SOON, |answer| answer.status == 200).await?;
    Ok(())
}

/// Waits until the check is nowhere any more.
async fn vanishes(operator: &Operator, name: &str) -> anyhow::Result<()> {
    operator.wait_get(&format!("/healthz/shop/{name}"), SOON, |answer| answer.status == 404).await?;
    assert_eq!(operator.admin_get(&format!("/v1/healthchecks/shop/{name}")).await?.status, 404);
    let metrics = operator.admin_get("/metrics").await?.body;
    assert!(!metrics.contains(&format!("name=\"{name}\"")), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_hangup_reads_the_files_again_and_ends_nothing() -> anyhow::Result<()> {
    let files = Files::with(&[plain("web")]);
    let operator = healthy(&files.file("checks.yaml")).await?;
    operator.process().signal(Signal::HUP)?;
    wait_printed(&operator, "SIGHUP: reading the files again").await?;
    files.write("checks.yaml", &[plain("web"), plain("api")]);
    appears(&operator, "api").await?;
    no_panic(&operator);
    Ok(())
}

#[tokio::test]
async fn a_good_edit_is_applied_and_a_broken_one_refused() -> anyhow::Result<()> {
    let (old, new) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let files = Files::with(&[quick_http("web", old.port())]);
    let operator = healthy(&files.file("checks.yaml")).await?;
    wait_metric(&operator, RELOADED, "1").await?;

    // Good: a second check comes, the first goes on with what it knows.
    let since = v1(&operator, "web").await?["since"].clone();
    files.write("checks.yaml", &[quick_http("web", old.port()), quick_http("api", new.port())]);
    appears(&operator, "api").await?;
    let seen = v1(&operator, "web").await?;
    assert_eq!((&seen["since"], &seen["health"]), (&since, &"Healthy".into()), "{seen}");

    // Broken: nothing of it is applied, not even what is right in it.
    let broken = [plain("other"), quick_http("web", old.port()).replace("interval:", "intervall:")];
    files.write("checks.yaml", &broken);
    let place =
        format!("{}:12:3: spec.intervall: unknown field; did you mean interval?", files.file("checks.yaml").display());
    wait_printed(&operator, &place).await?;
    wait_printed(&operator, "files refused: the last good version keeps running").await?;
    wait_metric(&operator, RELOADED, "0").await?;
    old.wait_hits(10, SOON).await?;
    new.wait_hits(10, SOON).await?;
    assert_eq!(operator.get("/healthz/shop/other").await?.status, 404);
    assert_eq!(operator.get("/healthz").await?.status, 200);
    assert_eq!(operator.process().output().matches(&place).count(), 1, "one edit is told once");

    // Mended.
    files.write("checks.yaml", &[plain("other"), quick_http("web", old.port())]);
    appears(&operator, "other").await?;
    wait_metric(&operator, RELOADED, "1").await?;
    vanishes(&operator, "api").await?;
    let hits = new.hits();
    old.wait_hits(10, SOON).await?;
    assert!(new.hits() <= hits + 1, "a check that is gone is still probed");
    no_panic(&operator);
    Ok(())
}

#[tokio::test]
async fn an_edit_that_asks_the_same_keeps_counters_and_one_that_asks_anew_keeps_the_verdict() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    let files = Files::with(&[quick_http("web", target.port())]);
    let operator = healthy(files.path()).await?;
    target.wait_hits(20, SOON).await?;
    let transitions = v1(&operator, "web").await?["transitions"].clone();
    let with = |from: &str, to: &str| [quick_http("web", target.port()).replace(from, to)];
    files.write("checks.yaml", &with("interval: 100ms", "interval: 200ms"));
    wait_until("the new interval", SOON, || async {
        let seen = v1(&operator, "web").await?;
        ensure!(seen["intervalSeconds"] == 0.2, "{seen}");
        ensure!(seen["transitions"] == transitions && seen["health"] == "Healthy", "flipped: {seen}");
        ensure!(seen["endpoints"][0]["counters"]["success"].as_u64() >= Some(20), "began anew: {seen}");
        anyhow::Ok(())
    })
    .await?;
    files.write("checks.yaml", &with("path: /,", "path: /other,"));
    wait_until("the new path at the target", SOON, || async {
        let path = target.last_request().map(|request| request.uri.path().to_owned());
        ensure!(path.as_deref() == Some("/other"), "{path:?}");
        anyhow::Ok(())
    })
    .await?;
    let seen = v1(&operator, "web").await?;
    assert_eq!((&seen["transitions"], &seen["health"]), (&transitions, &"Healthy".into()), "{seen}");
    Ok(())
}

#[tokio::test]
async fn a_file_replaced_by_a_rename_is_read() -> anyhow::Result<()> {
    let files = Files::with(&[plain("one")]);
    let operator = healthy(&files.file("checks.yaml")).await?;
    // Twice: a watch on the file itself would be gone after the first.
    for (name, gone) in [("two", "one"), ("three", "two")] {
        files.write("new", &[plain(name)]);
        std::fs::rename(files.file("new"), files.file("checks.yaml"))?;
        appears(&operator, name).await?;
        vanishes(&operator, gone).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_directory_is_the_sum_of_its_files() -> anyhow::Result<()> {
    let files = Files::new();
    files.write("a.yaml", &[plain("a")]);
    files.write("b.yml", &[plain("b")]);
    files.write("notes.txt", &["not for us: [".to_owned()]);
    let operator = healthy(files.path()).await?;
    assert_eq!(operator.get("/healthz/shop/b").await?.status, 200);
    files.write("c.yaml", &[plain("c")]);
    appears(&operator, "c").await?;
    std::fs::remove_file(files.file("a.yaml"))?;
    vanishes(&operator, "a").await?;
    // The same name in two files: refused, and both are named.
    files.write("d.yaml", &[plain("c")]);
    let both = format!("shop/c is declared in {}:1 already", files.file("c.yaml").display());
    wait_printed(&operator, &both).await?;
    wait_metric(&operator, RELOADED, "0").await?;
    std::fs::remove_file(files.file("d.yaml"))?;
    wait_metric(&operator, RELOADED, "1").await?;
    std::fs::remove_file(files.file("b.yml"))?;
    vanishes(&operator, "b").await?;
    // The last file goes. An empty board would answer Healthy: what ran keeps running.
    std::fs::remove_file(files.file("c.yaml"))?;
    wait_printed(&operator, "no HealthCheck is declared any more").await?;
    wait_metric(&operator, RELOADED, "0").await?;
    assert_eq!(operator.get("/healthz/shop/c").await?.status, 200);
    // A file that has been emptied is no other thing.
    files.write("c.yaml", &[]);
    assert_eq!(operator.get("/healthz/shop/c").await?.status, 200);
    files.write("c.yaml", &[plain("c")]);
    wait_printed(&operator, "files applied applied=0 removed=0").await?;
    wait_metric(&operator, RELOADED, "1").await
}

#[tokio::test]
async fn what_is_written_beside_the_files_or_says_the_same_is_no_reload() -> anyhow::Result<()> {
    let files = Files::with(&[plain("one")]);
    let operator =
        standalone(files.path()).args(["--log-level", "info,healthcheck_operator::cli=debug,access=off"]).serve()?;
    appears(&operator, "one").await?;
    let unchanged = || operator.process().output().matches("the files say what they said before").count();
    files.write("notes.txt", &["not for us".to_owned()]);
    wait_for("a look", SOON, unchanged, |count| *count >= 1).await?;
    files.write("checks.yaml", &[plain("one")]);
    wait_for("another look", SOON, unchanged, |count| *count >= 2).await?;
    assert!(!operator.process().output().contains("files applied"));
    // A broken edit is told once, whatever else is written.
    files.write("broken.yaml", &["[".to_owned()]);
    let refused = || operator.process().output().matches("files refused").count();
    wait_for("the fault", SOON, refused, |count| *count == 1).await?;
    let looks = unchanged();
    files.write("notes.txt", &["still not for us".to_owned()]);
    wait_for("a look", SOON, unchanged, |count| *count > looks).await?;
    assert_eq!(refused(), 1, "{}", operator.process().output());
    wait_metric(&operator, RELOADED, "0").await?;
    files.write("broken.yaml", &[plain("two")]);
    appears(&operator, "two").await?;
    wait_printed(&operator, "files applied applied=1 removed=0").await?;
    wait_metric(&operator, RELOADED, "1").await
}

#[tokio::test]
async fn a_file_that_is_gone_keeps_running_until_it_is_back() -> anyhow::Result<()> {
    let target = HttpTarget::start().await?;
    let files = Files::with(&[quick_http("web", target.port())]);
    let file = files.file("checks.yaml");
    let operator = healthy(&file).await?;
    std::fs::remove_file(&file)?;
    wait_printed(&operator, &format!("{}: cannot be read: No such file or directory", file.display())).await?;
    wait_metric(&operator, RELOADED, "0").await?;
    target.wait_hits(10, SOON).await?;
    assert_eq!(operator.get("/healthz/shop/web").await?.status, 200);
    files.write("checks.yaml", &[quick_http("web", target.port()), plain("more")]);
    appears(&operator, "more").await?;
    wait_metric(&operator, RELOADED, "1").await
}

/// A ConfigMap's volume: the files are links through `..data`, a link to a directory of a version, which is replaced by
/// a rename.
fn publish(root: &Path, version: &str, documents: &[String]) -> std::io::Result<()> {
    std::fs::create_dir(root.join(version))?;
    std::fs::write(root.join(version).join("checks.yaml"), documents.join("---\n"))?;
    symlink(version, root.join("..data_tmp"))?;
    std::fs::rename(root.join("..data_tmp"), root.join("..data"))
}

#[tokio::test]
async fn a_config_map_that_changes_is_read_by_directory_and_by_file() -> anyhow::Result<()> {
    for by_file in [false, true] {
        let files = Files::new();
        publish(files.path(), "..v1", &[plain("one")])?;
        symlink("..data/checks.yaml", files.file("checks.yaml"))?;
        let path = if by_file { files.file("checks.yaml") } else { files.path().to_owned() };
        let operator = healthy(&path).await?;
        publish(files.path(), "..v2", &[plain("two")])?;
        std::fs::remove_dir_all(files.file("..v1"))?;
        appears(&operator, "two").await?;
        vanishes(&operator, "one").await?;
        publish(files.path(), "..v3", &[plain("three")])?;
        appears(&operator, "three").await?;
        wait_metric(&operator, RELOADED, "1").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_directory_behind_a_link_that_is_turned_is_read() -> anyhow::Result<()> {
    let files = Files::new();
    for version in ["v1", "v2"] {
        std::fs::create_dir(files.file(version))?;
        files.write(&format!("{version}/checks.yaml"), &[plain(version)]);
    }
    symlink("v1", files.file("current"))?;
    let operator = healthy(&files.file("current")).await?;
    symlink("v2", files.file("next"))?;
    std::fs::rename(files.file("next"), files.file("current"))?;
    appears(&operator, "v2").await?;
    vanishes(&operator, "v1").await?;
    files.write("v2/checks.yaml", &[plain("v2"), plain("v3")]);
    appears(&operator, "v3").await
}

#[tokio::test]
async fn files_that_declare_nothing_may_be_filled_later() -> anyhow::Result<()> {
    let files = Files::new();
    let operator = standalone(files.path()).serve()?;
    let answer = operator.wait_get("/healthz", SOON, |answer| answer.status == 200).await?;
    assert_eq!(answer.body, "Healthy; 0 healthy, 0 degraded, 0 unhealthy, 0 unknown\n");
    wait_printed(&operator, "holds no HealthCheck").await?;
    files.write("checks.yaml", &[plain("first")]);
    appears(&operator, "first").await?;
    assert_eq!(metric(&operator, RELOADED).await?.as_deref(), Some("1"));
    Ok(())
}

#[tokio::test]
async fn many_files_may_be_named() -> anyhow::Result<()> {
    let (one, two) = (Files::with(&[plain("one")]), Files::with(&[plain("two")]));
    let operator = standalone(one.path()).arg("-f").arg(two.file("checks.yaml")).serve()?;
    appears(&operator, "one").await?;
    appears(&operator, "two").await?;
    two.write("checks.yaml", &[plain("three")]);
    appears(&operator, "three").await?;
    vanishes(&operator, "two").await?;
    assert_eq!(operator.get("/healthz/shop/one").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_pipe_is_read_once_and_stays() -> anyhow::Result<()> {
    let (files, others) = (Files::new(), Files::with(&[plain("one")]));
    let pipe = files.file("pipe");
    anyhow::ensure!(std::process::Command::new("mkfifo").arg(&pipe).status()?.success(), "mkfifo");
    let operator = standalone(&pipe).arg("-f").arg(others.path()).serve()?;
    // Opening it waits for the reader.
    let writing = tokio::task::spawn_blocking(move || std::fs::write(pipe, plain("piped")));
    tokio::time::timeout(SOON, writing).await???;
    appears(&operator, "piped").await?;
    others.write("checks.yaml", &[plain("two")]);
    appears(&operator, "two").await?;
    vanishes(&operator, "one").await?;
    assert_eq!(operator.get("/healthz/shop/piped").await?.status, 200);
    Ok(())
}
