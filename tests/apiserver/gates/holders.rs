//! Whose a Service is.

use super::*;

pub async fn conflicts(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "conflicts", 1).await?;
    let _operator = shop.stage.operator("hco-0").await?;
    let mark = shop.mark()?;
    let ports = json!([{"name": "pg", "port": 5432}]);
    shop.service("pods", json!({"ports": ports, "selector": {"app": "pods"}})).await?;
    shop.service("outside", json!({"type": "ExternalName", "externalName": "db.example"})).await?;
    shop.service("taken", json!({"ports": ports})).await?;
    let foreign = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": "taken"}},
        "endpoints": [{"addresses": ["198.18.255.1"]}], "ports": [{"name": "pg", "port": 5432}],
    });
    cluster.apply(&shop.stage.namespace, &foreign.to_string()).await?;
    shop.service("mirrored", json!({"ports": ports})).await?;
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mirrored"},
        "subsets": [{"addresses": [{"ip": "198.18.255.2"}], "ports": [{"name": "pg", "port": 5432}]}],
    });
    cluster.apply(&shop.stage.namespace, &endpoints.to_string()).await?;
    for (service, port, wanted, part) in [
        ("pods", "pg", "False/Conflict", "take the selector away"),
        ("outside", "pg", "False/Conflict", "ExternalName"),
        ("taken", "pg", "False/Conflict", "'by-hand'"),
        ("mirrored", "pg", "False/Conflict", "endpointslicemirroring-controller.k8s.io"),
        ("missing", "pg", "False/NotFound", "create it"),
        (SERVICE, "mysql", "False/NotFound", "it has 5432 (pg)"),
    ] {
        let name = format!("{service}-{port}");
        let mut spec = shop.spec(json!({}));
        spec["gates"][0]["endpointSlice"] = json!({"service": service, "port": port});
        shop.stage.apply(&name, spec).await?;
        let check = shop.wait_condition(&name, wanted).await?;
        ensure!(message(&check, "GatesApplied").contains(part), "{name}: {}", message(&check, "GatesApplied"));
        ensure!(condition(&check, "Ready") == "True/Accepted", "it is probed all the same");
        shop.stage.wait_health(&name, "Healthy").await?;
    }
    ensure!(shop.writes(mark)?.is_empty(), "{:?}", shop.writes(mark)?);
    // What is mended is gated.
    cluster.kubectl_ok(&["--namespace", &shop.stage.namespace, "delete", "endpointslice", "by-hand"]).await?;
    shop.wait_condition("taken-pg", "True/Enforced").await?;
    shop.service("missing", json!({"ports": ports})).await?;
    shop.wait_condition("missing-pg", "True/Enforced").await?;
    for service in ["taken", "missing"] {
        ensure!(cluster.slices(&shop.stage.namespace, service).await?.len() == 1, "{service}");
    }
    Ok(())
}

pub async fn two(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "two", 2).await?;
    let _operator = shop.stage.operator("hco-0").await?;
    let of = |index: usize| {
        let mut spec = fast(&[target("t", shop.hosts[index].address())]);
        spec["gates"] = shop.spec(json!({}))["gates"].clone();
        spec
    };
    let said = async |index: usize| {
        let wanted = BTreeMap::from([(shop.hosts[index].ip(), true)]);
        wait_until("the endpoints of one check alone", SOON, || async {
            let published = shop.published().await?;
            ensure!(published == wanted, "{published:?}, wanted {wanted:?}");
            anyhow::Ok(())
        })
        .await
    };
    shop.stage.apply("older", of(0)).await?;
    shop.wait_condition("older", "True/Enforced").await?;
    // Times of the API server have no fraction: within one second the lower UID would decide.
    let created = shop.stage.get("older").await?.creation_timestamp().context("a time")?.0;
    wait_until("another second", SOON, || async {
        ensure!(jiff::Timestamp::now().as_second() > created.as_second());
        anyhow::Ok(())
    })
    .await?;
    shop.stage.apply("younger", of(1)).await?;
    let check = shop.wait_condition("younger", "False/Conflict").await?;
    ensure!(message(&check, "GatesApplied").contains("'older'"), "{}", message(&check, "GatesApplied"));
    shop.hosts[1].wait_hits(5, SOON).await?;
    said(0).await?;
    shop.stage.checks().delete("older", &DeleteParams::default()).await?;
    said(1).await?;
    shop.wait_condition("younger", "True/Enforced").await?;
    Ok(())
}
