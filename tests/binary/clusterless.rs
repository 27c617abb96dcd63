//! The commands of a cluster where there is none.

use std::path::PathBuf;

use crate::checks::{Files, SOON, without_reader};
use crate::support::operator::command;
use crate::support::ports::free_port;

/// A kubeconfig of an API server that nobody runs.
fn deserted(files: &Files) -> PathBuf {
    let text = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", free_port())}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let file = files.file("deserted");
    std::fs::write(&file, text.to_string()).expect("a file");
    file
}

/// Exit code, and the one line that says why.
async fn refused(words: &[&str], config: &std::path::Path) -> anyhow::Result<(Option<i32>, String)> {
    let (first, rest) = words.split_first().expect("a command");
    let ended = command(first).args(rest).arg("--kubeconfig").arg(config).run(SOON).await?;
    let told = String::from_utf8(ended.stdout)? + &String::from_utf8(ended.stderr)?;
    assert!(!told.contains("panicked"), "{told}");
    let mut lines: Vec<_> =
        told.lines().filter(|line| line.starts_with("error: ") || line.starts_with("[-]")).collect();
    assert_eq!(lines.len(), 1, "{words:?}: {told}");
    Ok((ended.status.code(), lines.remove(0).to_owned()))
}

const CONTROLLER: &[&str] = &["controller", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_no_matter_of_usage() -> anyhow::Result<()> {
    let files = Files::new();
    let config = deserted(&files);
    for words in [CONTROLLER, &["doctor"]] {
        let (code, line) = refused(words, &config).await?;
        assert_eq!(code, Some(3), "{words:?}: {line}");
        assert_eq!(line.matches("onnection refused").count(), 1, "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn a_flag_or_a_file_that_is_wrong_is_and_is_told_once() -> anyhow::Result<()> {
    let files = Files::new();
    let (config, absent, nonsense) = (deserted(&files), files.file("absent"), files.file("nonsense"));
    std::fs::write(&nonsense, "nonsense")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let in_use: &[&str] = &["controller", "--listen", &address, "--admin-listen", "127.0.0.1:0"];
    for (words, file, part) in [
        (CONTROLLER, &absent, "No such file"),
        (&["doctor"], &absent, "No such file"),
        (CONTROLLER, &nonsense, "cannot read the kubeconfig"),
        (in_use, &config, "the port is in use"),
        (&["doctor", "--context", "other"], &config, "choose a context"),
        (&["doctor", "--admin-url", "nowhere"], &config, "want http://HOST:PORT"),
        (&["doctor", "--admin-url", "ftp://nowhere"], &config, "want http://HOST:PORT"),
    ] {
        let (code, line) = refused(words, file).await?;
        assert_eq!(code, Some(2), "{words:?}: {line}");
        assert_eq!(line.matches(part).count(), 1, "{words:?}: {line}");
    }
    Ok(())
}

#[tokio::test]
async fn a_doctor_whose_reader_goes_away_does_not_panic() -> anyhow::Result<()> {
    let files = Files::new();
    let kubeconfig = deserted(&files).display().to_string();
    let (code, told) = without_reader(&["doctor", "--kubeconfig", &kubeconfig]).await?;
    assert_eq!((code, told.contains("panicked")), (Some(3), false), "{told}");
    Ok(())
}
