//! Where endpoints are, and where they may not be.

use k8s_openapi::api::core::v1::Namespace;

use super::*;

pub async fn families(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "families", 1).await?;
    let _operator = shop.stage.operator("hco-0").await?;
    let mut spec = shop.spec(json!({}));
    let targets = spec["targets"].as_array_mut().context("targets")?;
    targets.push(json!({"name": "six", "host": "fd00::7", "port": PORT, "zone": "hall-6"}));
    targets.push(json!({"name": "other-port", "host": shop.hosts[0].ip().to_string(), "port": PORT + 1}));
    shop.stage.apply(CHECK, spec).await?;
    wait_until("a slice of each family and port", SOON, || async {
        let slices = cluster.slices(&shop.stage.namespace, SERVICE).await?;
        let mut said = vec![];
        for slice in &slices {
            let [endpoint] = slice.endpoints.as_slice() else { anyhow::bail!("{slice:?}") };
            let port = slice.ports.as_deref().and_then(|ports| ports.first()?.port).context("a port")?;
            said.push((slice.address_type.clone(), port, endpoint.addresses.join(","), endpoint.zone.clone()));
        }
        said.sort();
        let host = shop.hosts[0].ip().to_string();
        let wanted = [
            ("IPv4".to_owned(), i32::from(PORT), host.clone(), None),
            ("IPv4".to_owned(), i32::from(PORT) + 1, host, None),
            ("IPv6".to_owned(), i32::from(PORT), "fd00::7".to_owned(), Some("hall-6".to_owned())),
        ];
        ensure!(said == wanted, "{said:?}");
        anyhow::Ok(())
    })
    .await
}

/// An address that no slice may hold is refused where it is written, and left out where a name leads to it.
pub async fn refused(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "refused", 1).await?;
    let _operator = shop.stage.operator("hco-0").await?;
    for host in ["127.0.0.1", "169.254.169.254", "fe80::1"] {
        let mut spec = shop.spec(json!({}));
        spec["targets"][0]["host"] = json!(host);
        let Err(error) = shop.stage.apply("literal", spec).await else { anyhow::bail!("{host} was accepted") };
        ensure!(format!("{error:#}").contains("give the one that clients reach"), "{error:#}");
    }
    let mut spec = shop.spec(json!({}));
    let targets = spec["targets"].as_array_mut().context("targets")?;
    targets.push(json!({"name": "here", "host": "localhost", "port": PORT}));
    shop.stage.apply(CHECK, spec).await?;
    let told = |check: &HealthCheck| message(check, "GatesApplied").contains("a slice cannot hold it: localhost");
    shop.stage.wait(CHECK, "the address to be told", told).await?;
    let check = shop.stage.wait(CHECK, "the verdict of the other", |check| gate(check)["desiredReady"] == 1).await?;
    ensure!(gate(&check)["publishedReady"] == 1, "it counts for nothing: {check:?}");
    shop.wait_published(&[true]).await?;
    // Alone it leaves the gate with nothing to do, which is not what was asked for.
    let mut spec = shop.spec(json!({}));
    spec["targets"] = json!([{"name": "here", "host": "localhost", "port": PORT}]);
    shop.stage.apply(CHECK, spec).await?;
    shop.wait_condition(CHECK, "False/NotFound").await?;
    let none = |check: &HealthCheck| gate(check)["publishedReady"] == 0;
    let check = shop.stage.wait(CHECK, "what was published to go", none).await?;
    ensure!(message(&check, "GatesApplied").contains("a slice cannot hold it: localhost"), "{check:?}");
    shop.wait_published(&[]).await
}

pub async fn namespace_goes(cluster: Arc<ControlPlane>) -> anyhow::Result<()> {
    let shop = Shop::new(cluster.clone(), "goes", 2).await?;
    let neighbour = Shop::new(cluster.clone(), "stays", 1).await?;
    // The operator's own namespace is another one.
    let command = neighbour.stage.command("hco-0", None)?.args(["--watch-namespace", &shop.stage.namespace]);
    let operator = neighbour.stage.serve(command).await?;
    for shop in [&shop, &neighbour] {
        shop.stage.apply(CHECK, shop.spec(json!({}))).await?;
        shop.wait_settled().await?;
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.delete(&shop.stage.namespace, &DeleteParams::default()).await?;
    wait_until("the namespace to be gone", SOON, || async {
        ensure!(namespaces.get_opt(&shop.stage.namespace).await?.is_none(), "still there");
        anyhow::Ok(())
    })
    .await?;
    // And the others' gates go on.
    neighbour.hosts[0].set_status(500);
    neighbour.wait_condition(CHECK, "True/FailOpen").await?;
    operator.process().check_alive()
}
