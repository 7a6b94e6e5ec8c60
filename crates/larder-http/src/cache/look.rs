//! Deciding a request from what is stored: no I/O, no waiting.

use std::time::Duration;

use http::header::ACCEPT_LANGUAGE;
use larder_core::{Entry, Moment};
use larder_http_rules::reuse::Failure;
use larder_http_rules::{Reason, RequestFacts, RequestView, Reuse, credentials, reuse, vary};

use super::answer::{Answer, Wanted};
use super::layer::Shared;
use super::record::{Page, Variant};
use super::variants::Selector;
use crate::RequestHead;

impl Shared {
    /// What the request says about itself, with the route's declarations and perhaps a variant's.
    pub(super) fn view<'a>(
        &self,
        head: RequestHead<'a>,
        facts: RequestFacts,
        variant: Option<&Variant>,
    ) -> RequestView<'a> {
        let route = &self.config.route.credentials;
        let rule = variant.and_then(|variant| variant.rule.as_ref()).unwrap_or(route);
        RequestView {
            method: head.method(),
            uri: head.uri(),
            headers: head.headers(),
            facts,
            credentials: credentials::assess(&self.config.policy, rule, facts, head.headers()),
        }
    }

    /// Whether the request selects this variant. Decided before and apart from freshness.
    pub(super) fn selects(
        &self,
        variant: &Variant,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> Result<bool, Reason> {
        if !variant.covers(head, facts) {
            return Ok(false);
        }
        let list = &variant.list;
        let verbatim = variant.verbatim.as_deref();
        if list.is_empty() || verbatim.is_some_and(|sent| list.sends(sent, head.headers())) {
            return Ok(true);
        }
        let selector = list.select(&self.config.policy, head, &self.computed)?;
        if *selector == *variant.selector {
            return Ok(true);
        }
        match &variant.by_language {
            Some(stored) => self.prefers(stored, variant, head),
            None => Ok(false),
        }
    }

    // Whether the variant is in the language that the request prefers, and differs in nothing else.
    fn prefers(
        &self,
        stored: &[u8],
        variant: &Variant,
        head: RequestHead<'_>,
    ) -> Result<bool, Reason> {
        let policy = &self.config.policy;
        let Some(language) = vary::preferred_language(head.headers()) else { return Ok(false) };
        if !policy.select_language || !variant.list.headers.contains(&ACCEPT_LANGUAGE) {
            return Ok(false);
        }
        let selector = variant.list.select_by_language(policy, head, &self.computed, language)?;
        Ok(*selector == *stored)
    }

    /// Whether a variant that the request selects may answer it.
    pub(super) fn judge<'a>(
        &self,
        variant: &'a Variant,
        resident: Duration,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> Result<Answer<'a>, Reuse> {
        let stored = &variant.response;
        let view = self.view(head, facts, Some(variant));
        let reuse = reuse::decide(&self.config.policy, &stored.terms, resident, &view);
        if let Reuse::Refuse(_) = reuse {
            return Err(reuse);
        }
        let wall = || self.config.store.clock().wall();
        let wanted = Wanted::of(stored, head, facts, wall).map_err(Reuse::Fetch)?;
        if !reuse.answers() {
            return Err(reuse);
        }
        let mut answer = Answer::new(&self.config.policy, stored, resident, wanted);
        answer.refresh = reuse == Reuse::StaleWhileRevalidate;
        Ok(answer)
    }

    /// Whether a variant that the request selects may stand in for a handler that failed.
    pub(super) fn stand_in<'a>(
        &self,
        variant: &'a Variant,
        resident: Duration,
        head: RequestHead<'_>,
        facts: RequestFacts,
        failure: Failure,
    ) -> Result<Answer<'a>, Reason> {
        let stored = &variant.response;
        let view = self.view(head, facts, Some(variant));
        reuse::on_failure(&self.config.policy, &stored.terms, resident, &view, failure)?;
        let wall = || self.config.store.clock().wall();
        let wanted = Wanted::of(stored, head, facts, wall)?;
        Ok(Answer::new(&self.config.policy, stored, resident, wanted))
    }

    /// How long a response counts as stored: as long as it was, or at least its lifetime where one of its tags was made
    /// stale since.
    pub(super) fn resident(&self, entry: &Entry, variant: &Variant, now: Moment) -> Duration {
        let resident = entry.times().map_or(Duration::ZERO, |times| now.since(times.written));
        if entry.is_fresh(now) {
            return resident;
        }
        let terms = &variant.response.terms;
        resident.max(terms.lifetime.saturating_sub(terms.initial_age))
    }

    /// Whether the page has a variant that the request selects.
    pub(super) fn has_variant(
        &self,
        page: &Page,
        head: RequestHead<'_>,
        facts: RequestFacts,
    ) -> bool {
        let among_others = || {
            let selectors = self.selectors(page, head).unwrap_or_default();
            let mut lists = page.lists.iter().zip(&selectors);
            lists.any(|(list, selector)| page.others.contains(&Variant::name(list, selector)))
        };
        self.selects(&page.newest, head, facts) == Ok(true) || among_others()
    }

    /// The selectors of a request under a page's lists, newest list first.
    pub(super) fn selectors(
        &self,
        page: &Page,
        head: RequestHead<'_>,
    ) -> Result<Vec<Selector>, Reason> {
        let policy = &self.config.policy;
        page.lists.iter().map(|list| list.select(policy, head, &self.computed)).collect()
    }
}
