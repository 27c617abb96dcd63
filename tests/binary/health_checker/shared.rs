//! `--singleflight`: requests that come at once share a run.

use futures::future::join_all;

use crate::checks::Files;
use crate::health_checker::{Checker, begun, failed, gated, is_good, open_gate, script, wait_begun};

const AT_ONCE: usize = 10;

#[tokio::test]
async fn concurrent_requests_share_one_run_and_the_next_one_starts_another() -> anyhow::Result<()> {
    let files = Files::new();
    let path = script(files.path(), "gated.sh", &gated(files.path())).display().to_string();
    let flags = ["--singleflight", "--log-level", "debug", "--script-timeout", "25", "--script", &path];
    let checker = Checker::start(&flags).await?;
    let asked = join_all((0..AT_ONCE).map(|_| checker.get("/")));
    let opened = async {
        checker.logged("joined the run of another request", AT_ONCE - 1).await?;
        wait_begun(files.path(), 1).await?;
        anyhow::ensure!(begun(files.path()) == 1, "{} runs", begun(files.path()));
        open_gate(files.path())?;
        anyhow::Ok(())
    };
    let (answers, opened) = tokio::join!(asked, opened);
    opened?;
    for answer in answers {
        assert!(is_good(&answer?));
    }
    assert_eq!(begun(files.path()), 1);
    // Nothing is remembered.
    assert!(is_good(&checker.get("/").await?));
    assert_eq!(begun(files.path()), 2);
    Ok(())
}

#[tokio::test]
async fn a_shared_failure_is_told_to_all() -> anyhow::Result<()> {
    let files = Files::new();
    let path = script(files.path(), "gated.sh", &format!("{}\nexit 1", gated(files.path()))).display().to_string();
    let flags = ["--singleflight=true", "--log-level", "debug", "--script-timeout", "25", "--script", &path];
    let checker = Checker::start(&flags).await?;
    let opened = async {
        checker.logged("joined the run of another request", 1).await?;
        anyhow::Ok(open_gate(files.path())?)
    };
    let (one, other, opened) = tokio::join!(checker.get("/"), checker.ask("POST", "/other"), opened);
    opened?;
    assert_eq!((failed(&one?), failed(&other?)), (Some("script gated.sh"), Some("script gated.sh")));
    assert_eq!(begun(files.path()), 1);
    Ok(())
}

#[tokio::test]
async fn without_the_flag_every_request_has_a_run_of_its_own() -> anyhow::Result<()> {
    let files = Files::new();
    let path = script(files.path(), "gated.sh", &gated(files.path())).display().to_string();
    let checker = Checker::start(&["--script-timeout", "25", "--script", &path]).await?;
    let asked = join_all((0..AT_ONCE).map(|_| checker.get("/")));
    let opened = async {
        // All at once: none has ended yet.
        wait_begun(files.path(), AT_ONCE).await?;
        anyhow::Ok(open_gate(files.path())?)
    };
    let (answers, opened) = tokio::join!(asked, opened);
    opened?;
    for answer in answers {
        assert!(is_good(&answer?));
    }
    assert_eq!(begun(files.path()), AT_ONCE);
    Ok(())
}
