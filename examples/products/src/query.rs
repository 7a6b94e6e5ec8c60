//! Query strings: `?page=N` and `?q=…`, and a clear word about anything else.

use crate::errors::Problem;
use crate::product::PER_PAGE;

const LONGEST_Q: usize = 100;

/// What a query string asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The page, from 1.
    pub page: u32,
    /// What to search for.
    pub q: Option<String>,
}

impl Query {
    /// Reads the parameters that a route knows. Unknown ones are an error: `?pgae=2` would otherwise silently give the
    /// first page, and a stored copy of it.
    ///
    /// # Errors
    ///
    /// When one is unknown, stands twice or makes no sense.
    pub fn read(pairs: Vec<(String, String)>, known: &[&str]) -> Result<Self, Problem> {
        let mut query = Query { page: 1, q: None };
        let mut seen = Vec::new();
        for (name, value) in pairs {
            let Some(known) = known.iter().find(|known| **known == name) else {
                return Err(Problem::bad_request(
                    format!("there is no parameter {name:?}"),
                    format!("there is {}", known.join(" and ")),
                ));
            };
            if seen.contains(known) {
                return Err(Problem::bad_request(format!("{name} is given twice"), "give it once"));
            }
            seen.push(known);
            match *known {
                "page" => query.page = page(&value)?,
                _ => query.q = Some(text(&value)?),
            }
        }
        Ok(query)
    }

    /// How many products come before this page.
    pub fn offset(&self) -> i64 {
        i64::from(self.page - 1) * PER_PAGE
    }

    /// That there is such a page among so many products. The first page is always there.
    ///
    /// # Errors
    ///
    /// When it is beyond the end.
    pub fn check(&self, count: i64) -> Result<(), Problem> {
        let last = last_page(count);
        if i64::from(self.page) <= last {
            return Ok(());
        }
        Err(Problem::not_found(
            format!("there is no page {}", self.page),
            format!("the last page is {last}"),
        ))
    }
}

/// The number of the last page of so many products.
pub fn last_page(count: i64) -> i64 {
    ((count + PER_PAGE - 1) / PER_PAGE).max(1)
}

fn page(text: &str) -> Result<u32, Problem> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number too large to read is a page beyond the end.
    let page = if digits { text.parse().unwrap_or(u32::MAX) } else { 0 };
    if page == 0 {
        return Err(Problem::bad_request(
            format!("page must be a whole number from 1, and not {text:?}"),
            "write for instance ?page=1",
        ));
    }
    Ok(page)
}

fn text(value: &str) -> Result<String, Problem> {
    let text = value.trim();
    if text.chars().count() > LONGEST_Q {
        return Err(Problem::bad_request(
            format!("q is longer than {LONGEST_Q} characters"),
            "search for one or two words",
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Query, Problem> {
        let pairs = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Query::read(pairs, &["page", "q"])
    }

    #[test]
    fn a_page_is_a_whole_number_from_one() {
        assert_eq!(read(&[]).unwrap().page, 1);
        assert_eq!(read(&[("page", "7")]).unwrap().offset(), 300);
        assert_eq!(read(&[("page", "99999999999999999999")]).unwrap().page, u32::MAX);
        for wrong in ["0", "00", "x", "-1", "+1", "1.5", "", " 1", "٣"] {
            let problem = read(&[("page", wrong)]).unwrap_err();
            assert!(problem.error.contains("whole number"), "{wrong}: {problem}");
        }
    }

    #[test]
    fn what_is_unknown_or_doubled_is_told() {
        assert!(read(&[("pgae", "2")]).unwrap_err().error.contains("pgae"));
        assert!(read(&[("page", "1"), ("page", "2")]).unwrap_err().error.contains("twice"));
    }

    #[test]
    fn the_last_page_may_be_short_and_the_first_empty() {
        assert_eq!([0, 1, 50, 51, 10_000].map(last_page), [1, 1, 1, 2, 200]);
        let query = Query { page: 2, q: None };
        assert!(query.check(51).is_ok());
        assert_eq!(query.check(50).unwrap_err().hint, "the last page is 1");
    }
}
