//! Whose endpoints a log may speak of.

use crate::{check::ObjectKey, engine::Scope};

/// `*` for every HealthCheck, `NAMESPACE/*` for those of a namespace, `NAMESPACE/NAME` for one.
///
/// # Errors
/// When the text is none of these, with what to write.
pub fn parse(text: &str) -> Result<Scope, String> {
    match text.split_once('/') {
        None if text == "*" => Ok(Scope::All),
        Some((namespace, "*")) if is_label(namespace) => Ok(Scope::Namespace(namespace.into())),
        Some((namespace, name)) if is_label(namespace) && is_subdomain(name) => {
            Ok(Scope::Check(ObjectKey::new(namespace, name)))
        }
        _ => Err(format!(
            "'{}' says not whose endpoints are meant: write NAMESPACE/NAME for one HealthCheck, NAMESPACE/* for a namespace, or *",
            crate::check::clean_message(text)
        )),
    }
}

/// A namespace (RFC 1123, as Kubernetes has it).
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= 63 && text.bytes().all(inner) && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

/// The name of an object.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_everything_a_namespace_or_one_check() {
        assert_eq!(parse("*"), Ok(Scope::All));
        assert_eq!(parse("shop/*"), Ok(Scope::Namespace("shop".into())));
        assert_eq!(parse("shop/db"), Ok(Scope::Check(ObjectKey::new("shop", "db"))));
        assert_eq!(parse("shop-2/db.v1-x"), Ok(Scope::Check(ObjectKey::new("shop-2", "db.v1-x"))));
        let long = format!("{}/db", "a".repeat(64));
        let bad = ["", "shop", "/", "/db", "shop/", "*/*", "*/db", "shop/db/x", "access log", "a b/c", &long];
        // What a log would be forged with, and what no API server has ever named.
        let worse =
            ["shop/db\nx", "shop/\u{1b}[31m", "sh\u{0}p/*", "Shop/db", "shop/-db", "shop/db-", "a.b/db", "shop/d..b"];
        for text in bad.into_iter().chain(worse) {
            assert!(parse(text).is_err_and(|why| why.contains("NAMESPACE/NAME")), "{text}");
        }
    }
}
