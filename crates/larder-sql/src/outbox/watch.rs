//! Which tables are watched, and what their rows' changes invalidate.

use larder_core::{Error, Result, Tag};

use crate::config::wrong;

/// A table, and the tags that a change of one of its rows invalidates.
///
/// ```
/// use larder_sql::Watch;
///
/// // A change of row 7 invalidates `products` and `product:7`.
/// let products = Watch::table("shop.product")?.tag("products")?.tag_of("product:", "id")?;
/// # let _ = products;
/// assert!(Watch::table("").is_err());
/// # Ok::<(), larder_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Watch {
    pub(super) table: Name,
    pub(super) tags: Vec<Rule>,
}

/// One tag of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Always(String),
    Of { prefix: String, column: String },
}

impl Watch {
    /// The table of that name, exactly as the database has it: it is quoted, so no letter is changed. `schema.table` in
    /// PostgreSQL; without a schema it is one in `public`.
    ///
    /// # Errors
    ///
    /// [`Configuration`](larder_core::ErrorKind::Configuration) for what cannot be a table's name.
    pub fn table(name: &str) -> Result<Self> {
        Ok(Watch { table: Name::parse(name)?, tags: Vec::new() })
    }

    /// A tag that every change of the table invalidates.
    ///
    /// # Errors
    ///
    /// What cannot be a tag.
    pub fn tag(mut self, tag: &str) -> Result<Self> {
        Tag::new(tag).map_err(not_a_tag)?;
        self.tags.push(Rule::Always(plain(tag)?.to_owned()));
        Ok(self)
    }

    /// A tag that is made of a column: the prefix and the column's text, of the row as it was and as it is. Take a
    /// column whose text is always the same, such as a number, a text or a UUID; one that is null makes no tag.
    ///
    /// # Errors
    ///
    /// What cannot be the beginning of a tag, or a column's name; an empty prefix.
    pub fn tag_of(mut self, prefix: &str, column: &str) -> Result<Self> {
        Tag::new(prefix).map_err(not_a_tag)?;
        let (prefix, column) = (plain(prefix)?.to_owned(), part(column)?.to_owned());
        self.tags.push(Rule::Of { prefix, column });
        Ok(self)
    }

    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().filter_map(|rule| match rule {
            Rule::Of { column, .. } => Some(&**column),
            Rule::Always(_) => None,
        })
    }

    /// The tags that every change invalidates, if there are no others: nobody can list those of rows that are gone.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    pub(super) fn always(&self) -> Option<Vec<&str>> {
        self.tags
            .iter()
            .map(|rule| match rule {
                Rule::Always(tag) => Some(&**tag),
                Rule::Of { .. } => None,
            })
            .collect()
    }
}

/// A name in the database, perhaps with the schema in which it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

impl Name {
    pub(super) fn parse(name: &str) -> Result<Self> {
        let (schema, name) = match name.split_once('.') {
            Some((schema, name)) => (Some(part(schema)?.to_owned()), name),
            None => (None, name),
        };
        Ok(Name { schema, name: part(name)?.to_owned() })
    }

    /// Another name beside it.
    #[cfg_attr(not(feature = "postgres"), allow(dead_code))]
    pub(super) fn beside(&self, name: String) -> Self {
        Name { schema: self.schema.clone(), name }
    }
}

fn part(name: &str) -> Result<&str> {
    let odd = |c: char| c == '.' || c.is_control();
    if name.is_empty() || name.len() > LONGEST || name.contains(odd) {
        return Err(wrong(format!(
            "names of tables, columns and outboxes have 1 to {LONGEST} bytes, no dot (but that between schema and table) and no control characters"
        )));
    }
    Ok(name)
}

// It becomes a literal: nothing that could not be read in a migration.
fn plain(text: &str) -> Result<&str> {
    if text.contains(char::is_control) {
        return Err(wrong("tags that a database notes have no control characters"));
    }
    Ok(text)
}

fn not_a_tag(error: Error) -> Error {
    wrong(format!("what a change invalidates is a tag: {error}"))
}

/// A name in the statement.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in the statement.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

// What PostgreSQL cuts off silently.
const LONGEST: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags_are_checked_and_quoted() {
        let name = Name::parse("Shop 1.my\"table").unwrap();
        assert_eq!((name.schema.as_deref(), &*name.name), (Some("Shop 1"), "my\"table"));
        assert_eq!(quoted(&name.name), "\"my\"\"table\"");
        assert_eq!(literal("it's"), "'it''s'");
        let long = "x".repeat(64);
        for bad in ["", ".", "a.", ".a", "a.b.c", "a\0", "a\nb", &long] {
            let error = Watch::table(bad).unwrap_err();
            assert!(error.to_string().contains("names of tables"), "{bad:?}: {error}");
        }
        let watch = || Watch::table("t").unwrap();
        for bad in ["", "\u{1}a", "a\nb", &"x".repeat(257)] {
            assert!(watch().tag(bad).is_err() && watch().tag_of(bad, "id").is_err(), "{bad:?}");
        }
        assert!(watch().tag_of("a:", "").is_err());
        assert_eq!(watch().tag("a").unwrap().always(), Some(vec!["a"]));
        assert_eq!(watch().tag("a").unwrap().tag_of("b:", "id").unwrap().always(), None);
    }
}
