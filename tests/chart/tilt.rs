//! The Tiltfile names images, values, a resource and ports of the chart, and files of the repository. Nothing else here
//! reads it, so what it names is held against what is there.

use std::collections::BTreeSet;
use std::fs;

use regex::Regex;
use serde_json::Value;

use crate::tools::{self, MAJORS, OLDEST_KUBERNETES, containers, of_kind, pods};

fn tiltfile() -> String {
    let text = fs::read_to_string(tools::top().join("Tiltfile")).expect("the Tiltfile");
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

/// What the one group of `pattern` finds, which must be something.
fn found(text: &str, pattern: &str) -> Vec<String> {
    let pattern = Regex::new(pattern).expect("a pattern");
    let found: Vec<String> = pattern.captures_iter(text).map(|found| found[1].to_owned()).collect();
    assert!(!found.is_empty(), "nothing like {pattern} in the Tiltfile");
    found
}

/// The quoted texts within `text`.
fn quoted(text: &str) -> Vec<String> {
    found(text, "'([^']*)'")
}

/// The arguments of `helm template` that do what the Tiltfile's `helm(…)` does.
fn rendered(major: &str) -> Option<Vec<Value>> {
    let text = tiltfile();
    let call = &found(&text, r"(?s)k8s_yaml\(helm\((.*?)\n\)\)")[0];
    let chart = tools::top().join(&found(call, r"^\s*'([^']+)'")[0]);
    let (name, namespace) = (&found(call, r"name='([^']+)'")[0], &found(&text, r"\nnamespace = '([^']+)'")[0]);
    assert!(call.contains("namespace=namespace"), "{call}");
    let chart = chart.display().to_string();
    let mut args = vec!["template", name, &chart, "--namespace", namespace, "--kube-version", OLDEST_KUBERNETES];
    let set = quoted(&found(call, r"set=\[([^\]]*)\]")[0]);
    args.extend(set.iter().flat_map(|pair| ["--set", pair.as_str()]));
    let out = tools::helm(major, &args, None)?;
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Some(tools::parse(&String::from_utf8_lossy(&out.stdout)))
}

#[test]
fn what_it_sets_are_values_of_the_chart() {
    let text = fs::read_to_string(tools::chart().join("values.yaml")).expect("values.yaml");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    for pair in quoted(&found(&tiltfile(), r"set=\[([^\]]*)\]")[0]) {
        let (path, _) = pair.split_once('=').unwrap_or_else(|| panic!("{pair}: no value"));
        assert!(values.pointer(&format!("/{}", path.replace('.', "/"))).is_some(), "the chart has no value {path}");
    }
}

/// Tilt puts its own builds in the place of images by their names without tags; one that matches nothing is never run.
#[test]
fn it_builds_every_image_that_the_chart_runs_and_no_other() {
    let text = tiltfile();
    let built: BTreeSet<String> = quoted(&found(&text, r"ref = (.*)")[0]).into_iter().collect();
    let targets: BTreeSet<String> = quoted(&found(&text, r"for target in \[([^\]]*)\]")[0]).into_iter().collect();
    assert!(text.contains("docker_build(ref, files, "), "{text}");
    // The condition of `ref` names one of the targets.
    let refs: BTreeSet<String> = built.difference(&targets).cloned().collect();
    for major in MAJORS {
        let Some(objects) = rendered(major) else { return };
        let run: BTreeSet<String> = of_kind(&objects, "Deployment")
            .into_iter()
            .flat_map(|deployment| containers(&deployment["spec"]["template"]))
            .map(|container| {
                container["image"].as_str().expect("an image").rsplit_once(':').expect("a tag").0.to_owned()
            })
            .collect();
        assert_eq!(refs, run, "{major}");
    }
    let stages = fs::read_to_string(tools::top().join("build/Dockerfile")).expect("build/Dockerfile");
    for target in targets {
        assert!(stages.contains(&format!("FROM scratch AS {target}\n")), "build/Dockerfile has no stage {target}");
    }
}

#[test]
fn what_it_forwards_to_is_there() {
    let text = tiltfile();
    let call = &found(&text, r"(?s)k8s_resource\((.*?)\n\)")[0];
    let forwards = quoted(&found(call, r"port_forwards=\[([^\]]*)\]")[0]);
    let Some(objects) = rendered("helm4") else { return };
    let deployments = of_kind(&objects, "Deployment");
    let named = &found(call, r"^\s*'([^']+)'")[0];
    let deployment = deployments
        .into_iter()
        .find(|deployment| deployment["metadata"]["name"] == named.as_str())
        .unwrap_or_else(|| panic!("no Deployment {named}"));
    let ports: BTreeSet<u64> = pods(std::slice::from_ref(deployment))
        .into_iter()
        .flat_map(containers)
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .filter_map(|port| port["containerPort"].as_u64())
        .collect();
    let mut here = BTreeSet::new();
    for forward in forwards {
        let (local, remote) = forward.split_once(':').expect("two ports");
        assert!(ports.contains(&remote.parse().expect("a port")), "{forward}: the pods listen on {ports:?}");
        here.insert(local.to_owned());
    }
    for port in found(call, r"http://localhost:(\d+)") {
        assert!(here.contains(&port), "a link to port {port}, which is not forwarded");
    }
}

#[test]
fn the_files_it_names_are_there() {
    let text = tiltfile();
    let program = &found(&text, r"local\('([^ ']+)")[0];
    for path in quoted(&found(&text, r"for path in \[([^\]]*)\]")[0]).iter().chain([program]) {
        assert!(tools::top().join(path).exists(), "no {path}");
    }
}
