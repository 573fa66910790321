//! GET …/keys/{key}/usage: how often a key was used and denied, and why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::extract::State;
use axum::response::Response;
use policy::UnixSeconds;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::api::response::ok_json;
use crate::base::instant;
use crate::operations::permissions::may;
use crate::store::{Period, Usage};
use crate::usage::{ALLOWED, Denial};
use crate::web::problem::Problem;

/// A key's use, as edges have reported it.
#[derive(Serialize, ToSchema)]
#[schema(as = Usage)]
struct UsageBody {
    totals: Totals,
    /// Hours of the last week with counts, oldest first.
    hours: Vec<PeriodBody>,
    /// Days before that with counts, for a year.
    days: Vec<PeriodBody>,
    /// The latest 20, newest first.
    denials: Vec<DenialBody>,
}

/// The totals of the hours and days below.
#[derive(Default, Serialize, ToSchema)]
#[schema(as = UsageTotals)]
struct Totals {
    allowed: u64,
    /// By code.
    denied: BTreeMap<String, u64>,
}

/// An hour or a day, UTC.
#[derive(Serialize, ToSchema)]
#[schema(as = UsagePeriod)]
struct PeriodBody {
    /// Its start.
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    at: UnixSeconds,
    allowed: u64,
    /// By code.
    denied: BTreeMap<String, u64>,
}

/// A request with a right secret that was denied.
#[derive(Serialize, ToSchema)]
#[schema(as = Denial)]
struct DenialBody {
    code: String,
    /// The client's address, as Envoy trusts it.
    #[schema(value_type = Option<String>, required)]
    address: Option<IpAddr>,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    at: UnixSeconds,
    method: String,
    /// Without its query, at most 256 characters.
    path: String,
}

impl Totals {
    fn add(&mut self, counts: Vec<(String, u64)>) {
        for (outcome, count) in counts {
            let total = if outcome == ALLOWED { &mut self.allowed } else { self.denied.entry(outcome).or_default() };
            *total = total.saturating_add(count);
        }
    }
}

impl PeriodBody {
    fn new(Period { at, counts }: Period) -> Self {
        let mut own = Totals::default();
        own.add(counts);
        Self { at, allowed: own.allowed, denied: own.denied }
    }
}

impl From<Denial> for DenialBody {
    fn from(Denial { code, address, at, method, path }: Denial) -> Self {
        Self { code, address, at, method, path }
    }
}

impl From<Usage> for UsageBody {
    fn from(Usage { hours, days, denials }: Usage) -> Self {
        let mut totals = Totals::default();
        hours.iter().chain(&days).for_each(|period| totals.add(period.counts.clone()));
        Self {
            totals,
            hours: hours.into_iter().map(PeriodBody::new).collect(),
            days: days.into_iter().map(PeriodBody::new).collect(),
            denials: denials.into_iter().map(DenialBody::from).collect(),
        }
    }
}

/// Shows how often a key was used and denied, and why.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}/keys/{key}/usage",
    operation_id = "get_key_usage",
    responses((status = 200, description = "The key's use", body = UsageBody))
)]
pub(in crate::api) async fn usage(
    State(api): State<Api>,
    Within(at, ..): Within<may::ReadKeys>,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let usage = api.operations().key_usage(&at, id).await?;
    ok_json(&UsageBody::from(usage))
}
