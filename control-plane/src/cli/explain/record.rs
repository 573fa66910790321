//! A key as an edge knows it, built from what REST shows of it.

use std::convert::Infallible;

use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use policy::key_text::{Kind, compose};
use policy::position::Position;
use policy::table::{Loading, Table};
use policy::wire::{KeyRecord, SnapshotBuilder};
use policy::{Allowlist, Digest, Environment, Epoch, Revision, Scopes, UnixSeconds};
use serde::Deserialize;
use serde_json::Value;

use crate::base::instant;

/// Which of a key's secrets a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SecretChoice {
    /// The newest.
    Current,
    /// The one before, while its overlap lasts.
    Previous,
    /// One that was rotated out.
    RotatedOut,
}

/// What a secret looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretShape {
    /// `lk_…`
    Ours,
    /// Made by other software.
    Foreign,
}

/// A key that the edge knows, with a placeholder for its secret, whose text nobody knows any longer.
pub(super) struct ExplainedKey {
    pub(super) name: String,
    pub(super) record: KeyRecord,
    pub(super) environment: Environment,
    pub(super) scopes: Scopes,
    pub(super) expires_at: Option<UnixSeconds>,
    pub(super) placeholder: String,
}

/// The fields of a key that affect decisions, as REST shows them.
#[derive(Deserialize)]
struct RestKey {
    id: String,
    workspace_id: String,
    name: String,
    environment: Environment,
    active: bool,
    scopes: Scopes,
    ip_allowlist: Allowlist,
    expires_at: Option<String>,
    previous_secret_expires_at: Option<String>,
}

impl ExplainedKey {
    pub(super) fn read(
        body: &Value,
        slug: String,
        presented: SecretChoice,
        shape: SecretShape,
    ) -> anyhow::Result<Self> {
        let shown: RestKey =
            serde_json::from_value(body.clone()).context("not a key as `latchkey keys show --json` writes it")?;
        let at = |text: &Option<String>| match text {
            Some(text) => instant::parse(text).map(Some).ok_or_else(|| anyhow!("`{text}` is not an instant")),
            None => Ok(None),
        };
        let expires_at = at(&shown.expires_at)?;
        let placeholder = match shape {
            // No key was ever issued with a secret of 32 times the first digit.
            SecretShape::Ours => compose(&Kind::Key(shown.environment.clone()), |bytes| {
                bytes.fill(0);
                Ok::<(), Infallible>(())
            }),
            SecretShape::Foreign => Ok("foreign".to_owned()),
        };
        let Ok(placeholder) = placeholder;
        let superseded_at = match presented {
            SecretChoice::Current => UnixSeconds::DISTANT_FUTURE,
            SecretChoice::Previous => at(&shown.previous_secret_expires_at)?.unwrap_or(UnixSeconds::DISTANT_PAST),
            SecretChoice::RotatedOut => UnixSeconds::DISTANT_PAST,
        };
        let record = KeyRecord {
            digest: Digest::of(placeholder.as_bytes()),
            key: shown.id.parse().context("`id`")?,
            workspace: shown.workspace_id.parse().context("`workspace_id`")?,
            slug,
            environment: 0,
            active: shown.active,
            expires_at: expires_at.unwrap_or(UnixSeconds::DISTANT_FUTURE),
            superseded_at,
            grants: (0_u16..).zip(shown.scopes.values().copied()).collect(),
            allowlist: shown.ip_allowlist,
        };
        let (name, environment, scopes) = (shown.name, shown.environment, shown.scopes);
        Ok(Self { name, record, environment, scopes, expires_at, placeholder })
    }
}

/// The table of an edge that knows only this key, encoded and decoded as between control plane and edge.
pub(super) fn table(key: Option<&ExplainedKey>) -> anyhow::Result<Table> {
    let (scopes, environments) = key.map_or_else(Default::default, |key| {
        ((0_u16..).zip(key.scopes.keys().cloned()).collect(), vec![(0_u8, key.environment.clone())])
    });
    let start = Position::first(Epoch::from_bytes([0; 16]), Revision(1));
    let mut builder = SnapshotBuilder::new(start, scopes, environments);
    if let Some(key) = key {
        builder.push(&key.record)?;
    }
    let snapshot = builder.finish()?;
    let mut loading = Loading::start(&snapshot.manifest)?;
    for page in snapshot.pages {
        loading.add(page)?;
    }
    loading.finish().ok_or_else(|| anyhow!("the table is not whole"))
}
