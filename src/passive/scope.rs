//! Whose endpoints a log may speak of.

use crate::{check::ObjectKey, engine::Scope};

/// `*` for every HealthCheck, `NAMESPACE/*` for those of a namespace, `NAMESPACE/NAME` for one.
///
/// # Errors
/// When the text is none of these, with what to write.
pub fn parse(text: &str) -> Result<Scope, String> {
    let plain = |part: &str| !part.is_empty() && part.len() <= 253 && !part.contains(['/', '*', ' ']);
    match text.split_once('/') {
        None if text == "*" => Ok(Scope::All),
        Some((namespace, "*")) if plain(namespace) => Ok(Scope::Namespace(namespace.into())),
        Some((namespace, name)) if plain(namespace) && plain(name) => Ok(Scope::Check(ObjectKey::new(namespace, name))),
        _ => Err(format!(
            "'{}' says not whose endpoints are meant: write NAMESPACE/NAME for one HealthCheck, NAMESPACE/* for a namespace, or *",
            crate::check::clean_message(text)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_everything_a_namespace_or_one_check() {
        assert_eq!(parse("*"), Ok(Scope::All));
        assert_eq!(parse("shop/*"), Ok(Scope::Namespace("shop".into())));
        assert_eq!(parse("shop/db"), Ok(Scope::Check(ObjectKey::new("shop", "db"))));
        for text in ["", "shop", "/", "/db", "shop/", "*/*", "*/db", "shop/db/x", "access log", "a b/c"] {
            assert!(parse(text).is_err_and(|why| why.contains("NAMESPACE/NAME")), "{text}");
        }
    }
}
