//! Metrics as text, in the two forms that scrapers read: OpenMetrics for who asks for it, and the one that Prometheus had
//! before for everybody else, `promtool check metrics` included.

use std::fmt;

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
    let open = wants_open_metrics(headers);
    let encoded = if open {
        let mut body = String::new();
        encode(&mut body, registry).map(|()| body)
    } else {
        let mut body = Classic::default();
        encode(&mut body, registry).map(|()| body.text)
    };
    match encoded {
        Ok(body) => respond(StatusCode::OK, if open { OPEN_METRICS } else { CLASSIC }, body),
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

/// Turns what is written to it into the older form, line by line, as the whole of both would be twice as large: there a
/// family is called as its samples are, units and the end are not told, and what is called `info` in the newer one is a gauge.
#[derive(Default)]
struct Classic {
    text: String,
    /// As much of the line as has come.
    line: String,
    /// What was told of the family that comes next: repeated once it is known what kind it is.
    help: Option<String>,
}

impl fmt::Write for Classic {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                None => self.line.push_str(part),
                Some(end) => {
                    self.line.push_str(end);
                    let mut line = std::mem::take(&mut self.line);
                    self.take(&line);
                    line.clear();
                    self.line = line;
                }
            }
        }
        Ok(())
    }
}

impl Classic {
    fn take(&mut self, line: &str) {
        if let Some(told) = line.strip_prefix("# HELP ") {
            self.help = Some(told.to_owned());
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|told| told.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            let help = self.help.take();
            if let Some((_, help)) = help.as_deref().and_then(|told| told.split_once(' ')) {
                self.text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            self.text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            self.text.extend([line, "\n"]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

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
        // However it comes in pieces.
        for size in [1, 7, open.len()] {
            let mut classic = Classic::default();
            for part in open.as_bytes().chunks(size) {
                classic.write_str(str::from_utf8(part).expect("ASCII")).expect("a String takes all");
            }
            assert_eq!(classic.text, wanted);
        }
    }
}
