//! What a gate held and does not hold any more.

use super::*;

pub async fn dry_run(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "dryrun", 2).await?;
    let mark = shop.mark()?;
    let _operator = shop.stage.operator("hco-0").await?;
    shop.stage.apply(CHECK, shop.spec(json!({"mode": "DryRun"}))).await?;
    shop.wait_condition(CHECK, "True/DryRun").await?;
    shop.hosts[1].set_status(500);
    let seen = |desired: u32, published: u32| {
        move |check: &HealthCheck| gate(check)["desiredReady"] == desired && gate(check)["publishedReady"] == published
    };
    shop.stage.wait(CHECK, "one to be withheld", seen(1, 1)).await?;
    shop.hosts[0].set_status(500);
    let check = shop.stage.wait(CHECK, "all to be published", seen(0, 2)).await?;
    ensure!(message(&check, "GatesApplied").contains("would be FailOpen"), "{}", message(&check, "GatesApplied"));
    wait_until("the event", SOON, || async {
        let events = shop.stage.events(CHECK).await?;
        ensure!(events.iter().any(|(reason, _)| reason == "GateDryRun"), "{events:?}");
        anyhow::Ok(())
    })
    .await?;
    shop.live().await?;
    ensure!(shop.writes(mark)?.is_empty(), "{:?}", shop.writes(mark)?);
    // In earnest, it is written.
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    shop.wait_published(&[true, true]).await
}

pub async fn release(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "release", 2).await?;
    let _operator = shop.stage.operator("hco-0").await?;
    shop.service("other", json!({"ports": [{"port": 5432}]})).await?;
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    shop.wait_published(&[true, true]).await?;
    let count = async |service: &str, wanted: usize| {
        wait_until(&format!("{service} to have {wanted} slices"), SOON, || async {
            let slices = cluster.slices(&shop.stage.namespace, service).await?;
            ensure!(slices.len() == wanted, "{slices:?}");
            anyhow::Ok(())
        })
        .await
    };
    // An edit: another Service, whose only port has no name.
    let mut edited = shop.spec(json!({}));
    edited["gates"][0]["endpointSlice"] = json!({"service": "other"});
    shop.stage.apply(CHECK, edited).await?;
    count("other", 1).await?;
    count(SERVICE, 0).await?;
    let ports = json!(cluster.slices(&shop.stage.namespace, "other").await?[0].ports);
    ensure!(ports == json!([{"name": "", "port": PORT, "protocol": "TCP"}]), "{ports}");
    // The Service comes again, and another one that has a selector takes its place.
    shop.stage.kubectl(&["delete", "service", "other"]).await?;
    shop.wait_condition(CHECK, "False/NotFound").await?;
    count("other", 0).await?;
    shop.service("other", json!({"ports": [{"port": 5432}]})).await?;
    count("other", 1).await?;
    shop.wait_condition(CHECK, "True/Enforced").await?;
    // The gate goes, and the condition with it.
    shop.stage.apply(CHECK, fast(&[target("t0", shop.hosts[0].address())])).await?;
    count("other", 0).await?;
    shop.wait_condition(CHECK, "").await?;
    // The check goes.
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    count(SERVICE, 1).await?;
    shop.stage.checks().delete(CHECK, &DeleteParams::default()).await?;
    count(SERVICE, 0).await?;
    Ok(())
}

pub async fn marked(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "marked", 2).await?;
    let operator = shop.stage.operator("hco-0").await?;
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    shop.wait_settled().await?;
    let lease = ["annotate", "lease", "healthcheck-operator"];
    let key = "healthcheck-operator.dev/release";
    shop.stage.kubectl(&[&lease[..], &[&format!("{key}=2026-01-01T00:00:00Z")]].concat()).await?;
    wait_until("the marker to be seen", SOON, || async {
        let log = std::fs::read_to_string(operator.process().log())?;
        ensure!(log.contains("release marker on the lease has come"), "{}", operator.process().log_tail());
        anyhow::Ok(())
    })
    .await?;
    let mark = shop.mark()?;
    shop.hosts[0].set_status(500);
    shop.stage.wait_health(CHECK, "Unhealthy").await?;
    shop.live().await?;
    ensure!(shop.writes(mark)?.is_empty(), "{:?}", shop.writes(mark)?);
    shop.stage.kubectl(&[&lease[..], &[&format!("{key}-")]].concat()).await?;
    shop.wait_published(&[false, true]).await
}

pub async fn orphan(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "orphan", 0).await?;
    // Left by a HealthCheck that is gone, while no operator ran; and one of a HealthCheck that this operator does not
    // look at.
    shop.stage.apply("stranger", json!({"targets": [{"name": "t", "host": "198.18.255.3", "port": 1}]})).await?;
    let stranger = shop.stage.get("stranger").await?.uid().context("a uid")?;
    let slice = |name: &str, owner: &str, uid: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": name,
                "labels": {
                    "kubernetes.io/service-name": SERVICE, "healthcheck-operator.dev/gate": "traffic",
                    "endpointslice.kubernetes.io/managed-by": "healthcheck-operator.dev",
                },
                "ownerReferences": [{
                    "apiVersion": "healthcheck-operator.dev/v1alpha1", "kind": "HealthCheck", "controller": true,
                    "name": owner, "uid": uid,
                }],
            },
            "endpoints": [{"addresses": ["198.18.255.3"]}], "ports": [{"name": "pg", "port": 5432}],
        })
    };
    let record = shop.record().await?;
    let mark = shop.mark()?;
    cluster.apply(&shop.stage.namespace, &slice("theirs", "stranger", &stranger).to_string()).await?;
    // Its owner was another object of that name.
    let former = slice("former", "stranger", "00000000-0000-0000-0000-000000000000");
    cluster.apply(&shop.stage.namespace, &former.to_string()).await?;
    let command = shop.stage.command("hco-0", None)?.args(["--label-selector", "watched=yes"]);
    let operator = shop.stage.serve(command).await?;
    wait_until("the orphan to go", SOON, || async {
        let gone =
            |change: &Change<EndpointSlice>| matches!(change, Change::Gone(slice) if slice.name_any() == "former");
        ensure!(record.changes()?.iter().any(gone), "{:?}", cluster.slices(&shop.stage.namespace, SERVICE).await?);
        anyhow::Ok(())
    })
    .await?;
    wait_until("the operator to have looked", SOON, || async {
        let log = cluster.audit().since(mark)?;
        let ours = log.iter().filter(|entry| entry.user == shop.stage.user());
        let asked = ours.filter(|entry| entry.verb == "get" && entry.resource == "healthchecks").count();
        ensure!(asked > 0, "nobody was asked about");
        anyhow::Ok(())
    })
    .await?;
    ensure!(shop.api().get_opt("theirs").await?.is_some(), "it belongs to a HealthCheck that is there");
    ensure!(!shop.writes(mark)?.iter().any(|write| write.contains("theirs")), "{:?}", shop.writes(mark)?);
    operator.process().stop()?;
    Ok(())
}

pub async fn switched_off(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster, "switchedoff", 2).await?;
    let operator = shop.stage.operator("hco-0").await?;
    shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
    shop.wait_settled().await?;
    shop.hosts[1].set_status(500);
    shop.wait_published(&[true, false]).await?;
    operator.process().kill()?;
    let command = shop.stage.command("hco-0", None)?.args(["--disable-endpoint-slices"]);
    let _operator = shop.stage.serve(command).await?;
    shop.wait_published(&[true, true]).await?;
    let told = "what is published stays: 2 of 2 ready";
    let said = |check: &HealthCheck| message(check, "GatesApplied").contains(told);
    let check = shop.stage.wait(CHECK, "what is left to be told", said).await?;
    ensure!(condition(&check, "GatesApplied") == "False/Forbidden", "{:?}", check.status);
    // From then on nobody looks after it.
    let mark = shop.mark()?;
    shop.hosts[0].set_status(500);
    shop.stage.wait_health(CHECK, "Unhealthy").await?;
    shop.live().await?;
    ensure!(shop.writes(mark)?.is_empty(), "{:?}", shop.writes(mark)?);
    Ok(())
}
