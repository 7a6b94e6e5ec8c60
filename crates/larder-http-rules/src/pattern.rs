//! Names of cookies and of parameters, as routes speak of them.

/// One name, or with a final `*` all that begin so. Letter case counts.
///
/// ```
/// use larder_http_rules::NamePattern;
///
/// assert!(NamePattern::new("utm_*").matches(b"utm_source"));
/// assert!(!NamePattern::new("theme").matches(b"themes"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NamePattern {
    text: Box<str>,
    prefix: bool,
}

impl NamePattern {
    /// `"theme"` or `"_ga*"`.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        match pattern.strip_suffix('*') {
            Some(prefix) => Self { text: prefix.into(), prefix: true },
            None => Self { text: pattern.into(), prefix: false },
        }
    }

    /// Whether this name is meant.
    #[must_use]
    pub fn matches(&self, name: &[u8]) -> bool {
        let text = self.text.as_bytes();
        if self.prefix { name.starts_with(text) } else { name == text }
    }
}

impl From<&str> for NamePattern {
    fn from(pattern: &str) -> Self {
        Self::new(pattern)
    }
}
