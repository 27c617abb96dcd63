//! Helm, and what tests ask of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

/// The oldest Kubernetes the chart is for; renders are for it unless a test says otherwise.
pub const OLDEST_KUBERNETES: &str = "1.33.0";

/// Both majors, as `tests/cluster/helm.sh` names them.
pub const MAJORS: [&str; 2] = ["helm3", "helm4"];

/// The name of the release in every render.
pub const RELEASE: &str = "rel";

/// The namespace of the release in every render.
pub const NAMESPACE: &str = "hco";

/// The top of the repository.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The chart's directory.
pub fn chart() -> PathBuf {
    top().join("charts/healthcheck-operator")
}

/// Says that a test does not run, and why. In CI that is a failure, because nobody reads it there.
pub fn skip(why: &str) {
    println!("SKIP {why}");
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "skipped in CI: {why}");
}

/// The directory with `helm3` and `helm4`, built on first use; `None` when they cannot be had.
pub fn helm_dir() -> Option<&'static Path> {
    static DIR: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let out = Command::new(top().join("tests/cluster/helm.sh")).output().map_err(|e| format!("helm.sh: {e}"))?;
        if !out.status.success() {
            return Err(format!("no Helm: {}", String::from_utf8_lossy(&out.stderr)));
        }
        Ok(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
    });
    match dir {
        Ok(dir) => Some(dir),
        Err(why) => {
            skip(why);
            None
        }
    }
}

/// Values of a render: those of a file, or `key=value` pairs for `--set-json`.
#[derive(Clone, Debug)]
pub enum Values {
    /// A file under the chart's `ci/`.
    File(PathBuf),
    /// Pairs such as `replicaCount=1`, each value in JSON.
    Set(Vec<String>),
}

impl Values {
    /// From pairs of path and JSON.
    pub fn set(pairs: &[&str]) -> Self {
        Self::Set(pairs.iter().map(|p| (*p).to_owned()).collect())
    }

    /// A file of `ci/` by its short name: `scripts` is `ci/scripts-values.yaml`.
    pub fn ci(name: &str) -> Self {
        Self::File(chart().join(format!("ci/{name}-values.yaml")))
    }

    fn args(&self) -> Vec<String> {
        match self {
            Self::File(path) => vec!["--values".into(), path.display().to_string()],
            Self::Set(pairs) => pairs.iter().flat_map(|p| ["--set-json".to_owned(), p.clone()]).collect(),
        }
    }
}

/// Every values file of the chart's `ci/`, sorted.
pub fn ci_values() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(chart().join("ci"))
        .expect("the chart has ci/")
        .map(|entry| entry.expect("ci/ can be listed").path())
        .filter(|path| path.to_string_lossy().ends_with("-values.yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 5, "ci/ covers the chart's surface: {files:?}");
    files
}

/// Runs one Helm, away from whatever the machine's user has set up for it.
pub fn helm(major: &str, args: &[&str], values: Option<&Values>) -> Option<Output> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(helm_dir()?.join(major));
    command.args(args).args(values.map(Values::args).unwrap_or_default());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    Some(command.env_remove("KUBECONFIG").output().expect("helm starts"))
}

/// What a render printed, or what Helm complained about.
pub type Rendered = Result<String, String>;

/// `helm template`. The same render is made once for all tests of a run.
pub fn template(major: &str, values: &Values, more: &[&str]) -> Option<Rendered> {
    static DONE: Mutex<BTreeMap<String, Rendered>> = Mutex::new(BTreeMap::new());
    let key = format!("{major} {values:?} {more:?}");
    if let Some(rendered) = DONE.lock().expect("no test panics while it holds this").get(&key) {
        return Some(rendered.clone());
    }
    let rendered = render(major, values, more)?;
    DONE.lock().expect("no test panics while it holds this").insert(key, rendered.clone());
    Some(rendered)
}

fn render(major: &str, values: &Values, more: &[&str]) -> Option<Rendered> {
    let chart = chart();
    let chart = chart.to_str().expect("the checkout's path is UTF-8");
    let mut args = vec!["template", RELEASE, chart, "--namespace", NAMESPACE];
    if !more.contains(&"--kube-version") {
        args.extend(["--kube-version", OLDEST_KUBERNETES]);
    }
    args.extend(more);
    let out = helm(major, &args, Some(values))?;
    Some(if out.status.success() {
        Ok(String::from_utf8(out.stdout).expect("helm prints UTF-8"))
    } else {
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    })
}

/// The objects of a render, by Helm 4; `None` when there is no Helm. Panics when it is refused.
pub fn objects(values: &Values) -> Option<Vec<Value>> {
    objects_with(values, &[])
}

/// The same with more arguments for `helm template`.
pub fn objects_with(values: &Values, more: &[&str]) -> Option<Vec<Value>> {
    let text = template("helm4", values, more)?.unwrap_or_else(|e| panic!("{values:?} is refused: {e}"));
    Some(parse(&text))
}

/// The objects of a stream of YAML documents, empty ones left out.
pub fn parse(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|e| panic!("not YAML: {e}\n{text}"));
    all.into_iter().filter(|value| !value.is_null()).collect()
}

/// The objects of one kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|o| o["kind"] == kind).collect()
}

/// The one object of a kind.
pub fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = of_kind(objects, kind);
    assert_eq!(found.len(), 1, "one {kind}");
    found[0]
}

/// The operator's Deployment, whether or not the runner has one too.
pub fn operator(objects: &[Value]) -> &Value {
    part(objects, "Deployment", "controller")
}

/// The one object of a kind that is of this component.
pub fn part<'a>(objects: &'a [Value], kind: &str, component: &str) -> &'a Value {
    let of = |object: &&&Value| object["metadata"]["labels"]["app.kubernetes.io/component"] == component;
    let all = of_kind(objects, kind);
    let found: Vec<_> = all.iter().filter(of).collect();
    assert_eq!(found.len(), 1, "one {kind} of {component}");
    found[0]
}

/// `kind/name`, for messages.
pub fn title(object: &Value) -> String {
    format!("{}/{}", object["kind"].as_str().unwrap_or("?"), object["metadata"]["name"].as_str().unwrap_or("?"))
}

/// The pod templates of a render: of workloads, and bare pods.
pub fn pods(objects: &[Value]) -> Vec<&Value> {
    objects
        .iter()
        .filter_map(|o| match o["kind"].as_str() {
            Some("Pod") => Some(o),
            Some("Deployment" | "Job" | "DaemonSet" | "StatefulSet") => Some(&o["spec"]["template"]),
            _ => None,
        })
        .collect()
}

/// Every container of a pod, init containers first.
pub fn containers(pod: &Value) -> Vec<&Value> {
    ["initContainers", "containers", "ephemeralContainers"]
        .iter()
        .filter_map(|list| pod["spec"][list].as_array())
        .flatten()
        .collect()
}

/// A container of a pod by its name.
pub fn container<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    containers(pod).into_iter().find(|c| c["name"] == name)
}

/// The strings of a list.
pub fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}
