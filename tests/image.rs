//! The container images: built from scratch by `build/image.sh`, which takes the binary it is
//! given, so that this needs no release build. What is shown is the layout, not the operator.
// The same without the feature: once is enough.
#![cfg(feature = "cluster")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("build/image.sh")
}

/// Whether images can be built here; says why not, and in CI that is a failure.
fn can_build() -> bool {
    let mut missing = Vec::new();
    if Command::new("buildah").arg("--version").output().is_err() {
        missing.push("buildah");
    }
    let stat = std::fs::metadata(BUSYBOX);
    if !stat.is_ok_and(|s| s.permissions().mode() & 0o111 != 0) {
        missing.push("busybox-static");
    }
    if missing.is_empty() {
        return true;
    }
    println!("SKIP no {}", missing.join(", no "));
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "skipped in CI: no {}", missing.join(", no "));
    false
}

fn build(into: &Path, binary: &str) -> Output {
    Command::new(script()).arg(into).env("BINARY", binary).env("IMAGE_TAG", "9.9").output().expect("image.sh starts")
}

fn tar(archive: &Path, args: &[&str]) -> String {
    let out = Command::new("tar").arg("--file").arg(archive).args(args).output().expect("tar");
    assert!(out.status.success(), "tar {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("UTF-8")
}

struct Image {
    tags: Value,
    config: Value,
    /// Path to mode, owner and size, as `tar` prints them.
    files: BTreeMap<String, String>,
    passwd: String,
}

fn read(archive: &Path) -> Image {
    let manifest: Value = serde_json::from_str(&tar(archive, &["-xO", "manifest.json"])).expect("a manifest");
    let config = tar(archive, &["-xO", manifest[0]["Config"].as_str().expect("a config")]);
    let dir = tempfile::tempdir().expect("a directory");
    let layers = manifest[0]["Layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1, "one layer from scratch");
    let layer = layers[0].as_str().expect("a layer");
    tar(archive, &["-x", "-C", dir.path().to_str().expect("UTF-8"), layer]);
    let layer = dir.path().join(layer);
    let listing = tar(&layer, &["-tv", "--numeric-owner"]);
    let files = listing
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[5].trim_end_matches('/').to_owned(), format!("{} {} {}", words[0], words[1], words[2]))
        })
        .collect();
    Image {
        tags: manifest[0]["RepoTags"].clone(),
        config: serde_json::from_str::<Value>(&config).expect("JSON")["config"].clone(),
        files,
        passwd: tar(&layer, &["-xO", "etc/passwd"]),
    }
}

#[test]
fn both_images_hold_what_they_need_and_nothing_else() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let out = build(dir.path(), BUSYBOX);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let printed = String::from_utf8(out.stdout).expect("UTF-8");
    let archives: Vec<_> = printed.lines().map(PathBuf::from).collect();
    assert_eq!(archives.len(), 2, "{printed}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("a directory").collect();
    assert_eq!(left.len(), 2, "two archives and no rest");

    let operator = read(&archives[0]);
    let runner = read(&archives[1]);
    let name = |image: &Image| {
        image.tags.as_array().map(|t| t.iter().map(|t| t.as_str().unwrap_or("").to_owned()).collect::<Vec<_>>())
    };
    assert!(
        name(&operator).is_some_and(|n| n.len() == 1 && n[0].ends_with("healthcheck-operator:9.9")),
        "{}",
        operator.tags
    );
    assert!(
        name(&runner).is_some_and(|n| n.len() == 1 && n[0].ends_with("healthcheck-operator-runner:9.9")),
        "{}",
        runner.tags
    );
    for image in [&operator, &runner] {
        // By number, or a kubelet cannot tell that it is not root.
        assert_eq!(image.config["User"], "65532:65532");
        assert_eq!(image.config["Entrypoint"], json!(["/usr/bin/healthcheck-operator"]));
        assert!(image.passwd.starts_with("nonroot:x:65532:65532:"), "{}", image.passwd);
        assert!(image.files["usr/bin/healthcheck-operator"].starts_with("-rwxr-xr-x 0/0 "));
        assert!(image.files["etc/ssl/certs/ca-certificates.crt"].starts_with("-rw-r--r-- 0/0 "));
        assert!(image.files["tmp"].starts_with("drwxrwxrwt"));
        let loose: Vec<_> = image
            .files
            .iter()
            .filter(|(p, f)| {
                f[1..].contains('s') || (f.as_bytes()[8] == b'w' && p.as_str() != "tmp" && !f.starts_with('l'))
            })
            .collect();
        assert!(loose.is_empty(), "no setuid, nothing for everybody to write: {loose:?}");
    }
    assert!(
        !operator.files.keys().any(|p| p.starts_with("bin")),
        "the operator has no shell: {:?}",
        operator.files.keys()
    );
    for program in ["sh", "wget", "nc", "cat", "sleep"] {
        assert!(runner.files.get(&format!("bin/{program}")).is_some_and(|f| f.starts_with('l')), "/bin/{program}");
    }
}

/// FROM scratch has no loader: a dynamic program would fail in the cluster, so it fails here.
#[test]
fn a_dynamic_binary_is_refused() {
    if !can_build() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let out = build(dir.path(), "/bin/bash");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert!(said.contains("/bin/bash is not a static program: build it with RUSTFLAGS="), "{said}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("a directory").count(), 0, "nothing is left behind");
}

#[test]
fn without_buildah_the_message_names_the_mend() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("path");
    std::fs::create_dir(&path).expect("a directory");
    for tool in ["bash", "dirname", "sed", "head"] {
        let found = ["/bin", "/usr/bin"].iter().map(|d| Path::new(d).join(tool)).find(|p| p.exists()).expect(tool);
        std::os::unix::fs::symlink(found, path.join(tool)).expect("a link");
    }
    let out = Command::new(path.join("bash")).arg(script()).arg(dir.path()).env("PATH", &path).output().expect("bash");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success());
    assert!(said.contains("no `buildah` on PATH: install it (Debian: apt-get install buildah)"), "{said}");
}
