//! The status page in a real browser. Pictures are in the run's directory (`KEEP_RUN=1`), or in `SCREENSHOTS=DIR`.

use std::path::PathBuf;

use serde_json::json;

use crate::checks::{Files, SOON, check, healthy, quick_http, standalone};
use crate::chromium::{self, Tab};
use crate::support::operator::Operator;
use crate::support::ports::free_port;
use crate::support::run_dir::sub_dir;
use crate::support::targets::HttpTarget;

fn pictures() -> PathBuf {
    match std::env::var_os("SCREENSHOTS") {
        Some(directory) => PathBuf::from(directory),
        None => sub_dir("screenshots"),
    }
}

/// Something of every word, with long names and long messages.
async fn everything() -> anyhow::Result<(Operator, HttpTarget, Files)> {
    let target = HttpTarget::start().await?;
    let (good, dead) = (target.port(), free_port());
    let long = "a-target-with-a-name-that-is-as-long-as-names-of-targets-may-be";
    let http = |path: &str| format!("probe: {{http: {{path: {path}}}}}");
    let row = |name: &str, port: u16| format!("  - {{name: {name}, host: 127.0.0.1, port: {port}}}\n");
    let head = "  interval: 200ms\n  failureThreshold: 2\n  successThreshold: 1\n";
    let body =
        "expectedBody: {contains: \"a text that is not in the answer and is rather long, so that the line is full\"}";
    let mut documents = vec![
        check("payments", &format!("{head}  targets:\n{}{}", row("psp", dead), row("fallback", dead))),
        check(
            "a-check-with-a-rather-long-name-as-generators-like-to-make-them",
            &format!(
                "{head}  targets:\n  - {{name: {long}, host: localhost, port: {good}, probe: {{http: {{path: /, {body}}}}}}}\n"
            ),
        ),
        check("orders", &format!("{head}  minHealthy: 1\n  targets:\n{}{}", row("pg-a", good), row("pg-b", dead))),
        check("search", &format!("  interval: 1h\n  failureThreshold: 10\n  targets:\n{}", row("es", dead))),
        check("legacy", &format!("  suspend: true\n  targets:\n{}", row("old", dead))),
    ];
    for number in 0..24 {
        let probe = http("/");
        let spec = format!("{head}  targets:\n  - {{name: web, host: localhost, port: {good}, {probe}}}\n");
        documents.push(check(&format!("node-{number:02}"), &spec));
    }
    let files = Files::with(&documents);
    let operator = standalone(files.path()).arg("--details").arg("full").serve()?;
    let settled = |text: &str| text.contains("24 healthy, 1 degraded, 2 unhealthy");
    operator.wait_get("/healthz", SOON, |answer| settled(&answer.body)).await?;
    Ok((operator, target, files))
}

#[tokio::test]
async fn the_page_is_legible_in_light_and_dark_and_on_a_phone() -> anyhow::Result<()> {
    if !chromium::is_there() {
        return Ok(());
    }
    let (operator, _target, _files) = everything().await?;
    let mut tab = Tab::open().await?;
    let pictures = pictures();
    for (name, path, scheme, width, height, phone) in [
        ("light", "/", "light", 1280, 1100, false),
        ("dark", "/", "dark", 1280, 1100, false),
        ("tablet", "/", "light", 800, 1100, false),
        ("phone", "/", "light", 390, 1500, true),
        ("phone-dark", "/", "dark", 320, 1500, true),
        ("one", "/healthz/shop/payments", "light", 1280, 700, false),
        ("one-phone", "/healthz/shop/payments", "dark", 390, 900, true),
    ] {
        tab.prefer(scheme).await?;
        tab.size(width, height, phone).await?;
        tab.load(&format!("{}{path}", operator.url())).await?;
        assert_eq!(tab.value("document.querySelectorAll('details').forEach((d) => d.open = true)").await?, json!(null));
        // A phone zooms out over what is too wide for it.
        let wide = "[document.documentElement.scrollWidth - document.documentElement.clientWidth, innerWidth]";
        assert_eq!(tab.value(wide).await?, json!([0, width]), "{name} scrolls sideways");
        let outside = "[...document.body.querySelectorAll('*')].filter((e) => e.getBoundingClientRect().right > \
                       document.documentElement.clientWidth).map((e) => e.outerHTML)";
        assert_eq!(tab.value(outside).await?, json!([]), "{name} is cut off");
        let dark = tab.value("getComputedStyle(document.body).backgroundColor").await?;
        assert_eq!(dark == json!("rgb(16, 18, 22)"), scheme == "dark", "{name}: {dark}");
        // Contrast that the Web Content Accessibility Guidelines 2.2 ask of text (1.4.3).
        let poor = tab.value(POOR_CONTRAST).await?;
        assert_eq!(poor, json!([]), "{name}: too little contrast");
        tab.value("document.querySelectorAll('details').forEach((d) => d.open = false)").await?;
        tab.screenshot(&pictures.join(format!("{name}.png"))).await?;
        assert_eq!(tab.complaints().await?, Vec::<String>::new(), "{name}");
    }
    Ok(())
}

/// Texts with less than 4.5:1 against the nearest background that is painted.
const POOR_CONTRAST: &str = "(() => {
    const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = (css) => {
        const [r, g, b] = css.match(/[\\d.]+/g).map(Number).map(part);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (!colour.endsWith(', 0)')) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const poor = new Set();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || element.tagName === 'SCRIPT') continue;
        const [a, b] = [getComputedStyle(element).color, behind(element)].map(light).sort((a, b) => b - a);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.add(`${element.tagName}.${element.className}: ${texts.currentNode.data}`);
    }
    return [...poor];
})()";

#[tokio::test]
async fn the_page_keeps_itself_fresh_without_being_loaded_again() -> anyhow::Result<()> {
    if !chromium::is_there() {
        return Ok(());
    }
    let (web, other) = (HttpTarget::start().await?, HttpTarget::start().await?);
    let files = Files::with(&[quick_http("web", web.port()), quick_http("other", other.port())]);
    let operator = healthy(files.path()).await?;
    let mut tab = Tab::open().await?;
    tab.load(&operator.url()).await?;
    assert_eq!(tab.value("document.querySelector('h1').innerText").await?, json!("Healthy"));
    // A document that is loaded again has no such mark, and a row that is made again is another one.
    tab.value("window.mark = 1; window.row = document.querySelector('#Healthy .check a'); row.focus(); 0").await?;
    assert_eq!(tab.value("row.textContent").await?, json!("shop/other"));
    tab.value("window.icon = document.getElementById('icon').href; 0").await?;

    web.close().await;
    tab.wait("document.querySelector('h1').innerText === 'Unhealthy'").await?;
    let down = "document.querySelector('section.Unhealthy article').innerText.includes('shop/web')";
    assert_eq!(tab.value(down).await?, json!(true));
    assert_eq!(tab.value("document.title").await?, json!("Unhealthy: all health checks"));
    assert_eq!(tab.value("document.getElementById('icon').href !== icon").await?, json!(true));
    assert_eq!(tab.value("window.mark").await?, json!(1), "the document was loaded again");
    assert_eq!(tab.value("document.activeElement === row && row.isConnected").await?, json!(true), "focus was lost");

    // What a hand folds stays folded.
    tab.value("document.getElementById('Healthy').open = false; 0").await?;
    web.reopen().await?;
    tab.wait("document.querySelector('h1').innerText === 'Healthy'").await?;
    assert_eq!(tab.value("document.getElementById('Healthy').open").await?, json!(false));
    assert_eq!(tab.value("document.querySelectorAll('article').length").await?, json!(0));
    assert_eq!(tab.complaints().await?, Vec::<String>::new());

    // Nobody answers any more: the page says so, and of when it is what it shows.
    drop(operator);
    tab.wait("document.getElementById('live').innerText.startsWith('no answer; shown is what was true as of')").await?;
    assert_eq!(tab.value("window.mark").await?, json!(1));
    Ok(())
}

#[tokio::test]
async fn the_search_works_with_scripts_and_without() -> anyhow::Result<()> {
    if !chromium::is_there() {
        return Ok(());
    }
    let (operator, _target, _files) = everything().await?;
    let mut tab = Tab::open().await?;
    let found = "document.getElementById('main').innerText";
    for scripts in [true, false] {
        tab.scripts(scripts).await?;
        tab.load(&format!("{}/?labelSelector=!absent", operator.url())).await?;
        tab.value("window.mark = 1; 0").await?;
        tab.type_into_search("node-17").await?;
        if !scripts {
            tab.press_enter().await?;
        }
        tab.wait(&format!("{found}.includes('1 of 29 match') && {found}.includes('node-17')")).await?;
        assert_eq!(tab.value(&format!("{found}.includes('payments')")).await?, json!(false));
        // The word is in the address, to be shared, and so is what was there before.
        let query = "[...new URLSearchParams(location.search)].sort().join()";
        assert_eq!(tab.value(query).await?, json!("labelSelector,!absent,q,node-17"));
        assert_eq!(tab.value("document.getElementById('Healthy').open").await?, json!(true), "folded away");
        assert_eq!(tab.value("document.querySelector('h1').innerText").await?, json!("Unhealthy"));
        assert_eq!(tab.value("window.mark === 1").await?, json!(scripts), "scripts: {scripts}");
        assert_eq!(tab.value("document.getElementById('q').value").await?, json!("node-17"));
        if scripts {
            assert_eq!(tab.value("document.activeElement.id").await?, json!("q"));
            assert_eq!(tab.complaints().await?, Vec::<String>::new());
        }
    }
    Ok(())
}
