//! Metrics as text, in the two forms that scrapers read: OpenMetrics for who asks for it, and the one that Prometheus had
//! before for everybody else, `promtool check metrics` included.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use prometheus_client::{encoding::text::encode, registry::Registry};

use super::respond::{Failure, respond};

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/>
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything in `registry`, in the form that `headers` prefer.
pub fn expose(registry: &Registry, headers: &HeaderMap) -> Response {
    let mut body = String::new();
    match encode(&mut body, registry) {
        Ok(()) if wants_open_metrics(headers) => respond(StatusCode::OK, OPEN_METRICS, body),
        Ok(()) => respond(StatusCode::OK, CLASSIC, classic(&body)),
        Err(_) => Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded").into_response(),
    }
}

/// Whether OpenMetrics is named in `Accept`, and nothing else that we have is preferred to it (RFC 9110, section 12.5.1).
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let weight = match parts.next().map(str::to_ascii_lowercase).as_deref() {
            Some("application/openmetrics-text") => &mut open,
            Some("text/plain" | "text/*") => &mut plain,
            _ => continue,
        };
        let asked = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse).unwrap_or(0.0);
        *weight = weight.max(asked);
    }
    open > 0.0 && open >= plain
}

/// `text` in the older form: there a family is called as its samples are, units and the end are not told, and what is
/// called `info` in the newer one is a gauge.
fn classic(text: &str) -> String {
    let mut classic = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            // Told once it is known what kind of family it is.
            help = Some(told);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take().and_then(|told| told.split_once(' ')) {
                classic.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            classic.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            classic.extend([line, "\n"]);
        }
    }
    classic
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn openmetrics_is_for_who_asks_for_it() {
        let of = |accept: &'static str| {
            wants_open_metrics(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert!(of(prometheus));
        assert!(of("application/openmetrics-text"));
        assert!(!of("text/plain;version=0.0.4, application/openmetrics-text;q=0.5"));
        assert!(!of("application/openmetrics-text;q=0, */*"));
        for other in ["*/*", "text/plain", "text/html", ""] {
            assert!(!of(other), "{other}");
        }
        assert!(!wants_open_metrics(&HeaderMap::new()));
    }

    #[test]
    fn the_older_form_calls_families_as_their_samples() {
        let open = "# HELP a Counted.\n# TYPE a counter\na_total{x=\"# y\"} 1\n# HELP b_seconds Told.\n# TYPE b_seconds gauge\n\
                    # UNIT b_seconds seconds\nb_seconds 2.0\n# HELP c What runs.\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let wanted = "# HELP a_total Counted.\n# TYPE a_total counter\na_total{x=\"# y\"} 1\n# HELP b_seconds Told.\n\
                      # TYPE b_seconds gauge\nb_seconds 2.0\n# HELP c_info What runs.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(classic(open), wanted);
    }
}
