//! Pieces of HTML.

use std::fmt::{self, Write};

use jiff::{SignedDuration, Timestamp};

use crate::check::Health;

/// Text from outside, safe in element content and in quoted attributes.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // It would turn what follows around, markup of ours included.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The path of `parts` under `base`, safe in a quoted attribute: whatever is no unreserved character of RFC 3986 is
/// percent-encoded.
pub fn path_to(base: &str, parts: &[&str]) -> String {
    let mut path = base.to_owned();
    for part in parts {
        path.push('/');
        for byte in part.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
                // Writing into a String cannot fail.
                _ => drop(write!(path, "%{byte:02X}")),
            }
        }
    }
    path
}

/// How long something lasts, in its two largest units; seconds alone below a minute.
pub struct Lasting(pub SignedDuration);

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs().max(0);
        match seconds {
            0..60 => write!(f, "{seconds}s"),
            60..3600 => write!(f, "{}m", seconds / 60),
            3600..86_400 => write!(f, "{}h {:02}m", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{}d {}h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

/// A moment: the time of day, with the date where it was another day than `now`.
pub struct Moment {
    pub at: Timestamp,
    pub now: Timestamp,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |time: Timestamp| time.strftime("%F").to_string();
        let form = if day(self.at) == day(self.now) { "%H:%M:%S" } else { "%b %-d, %H:%M" };
        write!(f, "<time datetime=\"{:.0}\">{}</time>", self.at, self.at.strftime(form))
    }
}

/// Since when, and for how long that is.
pub struct Since {
    pub at: Timestamp,
    pub now: Timestamp,
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, now) = (self.at, self.now);
        write!(f, "<b>{}</b> since {}", Lasting(now.duration_since(at)), Moment { at, now })
    }
}

/// A duration of a probe, in seconds: three digits and a unit.
pub fn latency(took: std::time::Duration) -> String {
    let millis = took.as_secs_f64() * 1e3;
    match millis {
        0.0..10.0 => format!("{millis:.1} ms"),
        10.0..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.1} s", millis / 1e3),
    }
}

/// A disc in the colour of `health`, for the browser's tab.
pub fn icon(health: Health) -> String {
    let colour = match health {
        Health::Healthy => "30a46c",
        Health::Degraded => "e2a336",
        Health::Unhealthy => "e5484d",
        Health::Unknown => "8e8ce0",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns=%22http://www.w3.org/2000/svg%22 viewBox=%220 0 16 16%22%3E\
         %3Ccircle cx=%228%22 cy=%228%22 r=%227%22 fill=%22%23{colour}%22/%3E%3C/svg%3E"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_only_text() {
        assert_eq!(Escaped("<a href='x'>\"&").to_string(), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
        assert_eq!(Escaped("a\u{202e}b\u{2066}").to_string(), "a\u{fffd}b\u{fffd}");
        assert_eq!(path_to("/healthz", &["a/b", "\"><é"]), "/healthz/a%2Fb/%22%3E%3C%C3%A9");
    }

    #[test]
    fn durations_are_short() {
        let of = |seconds| Lasting(SignedDuration::from_secs(seconds)).to_string();
        let expected = ["0s", "0s", "59s", "1m", "59m", "1h 00m", "23h 59m", "1d 0h", "400d 3h"];
        let seconds = [-5, 0, 59, 60, 3599, 3600, 86_399, 86_400, 400 * 86_400 + 3 * 3600];
        assert_eq!(seconds.map(of), expected);
        let of = |micros| latency(std::time::Duration::from_micros(micros));
        assert_eq!(
            [0, 1500, 9990, 12_345, 999_000, 2_345_000].map(of),
            ["0.0 ms", "1.5 ms", "10.0 ms", "12 ms", "999 ms", "2.3 s"]
        );
    }
}
