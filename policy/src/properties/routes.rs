//! No path gets more than a template gives it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{CaseCost, cases};
use crate::path::{PathKind, Paths};
use crate::route::{Binding, Route, RouteRule, Routes, Template};
use crate::rule::Rule;

/// Segments of templates and paths: few and similar, so that they match.
const TEXTS: [&str; 3] = ["a", "ae", "ace"];
const PARAMETERS: [&str; 4] = ["{workspace}", "{id}", "a{id}", "{id}e"];

fn template() -> impl Strategy<Value = String> {
    let segment = prop_oneof![prop::sample::select(&TEXTS[..]), prop::sample::select(&PARAMETERS[..])];
    let end = prop::sample::select(&["", "", "/{*rest}", "/a{*rest}"][..]);
    (prop::collection::vec(segment, 1..4), end).prop_map(|(segments, end)| format!("/{}{end}", segments.join("/")))
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![prop::sample::select(&TEXTS[..]).prop_map(str::to_owned), "[ace]{1,3}"];
    (prop::collection::vec(segment, 1..5), any::<bool>())
        .prop_map(|(segments, slash)| format!("/{}{}", segments.join("/"), if slash { "/" } else { "" }))
}

/// The templates that compile. The rule of each is named after its place in the list, or is `public`.
fn compiled(templates: &[(String, bool)]) -> (Routes, Vec<String>) {
    let mut lines: Vec<Route> = Vec::new();
    let mut kept = Vec::new();
    let mut routes = Routes::default();
    for (number, (path, is_public)) in templates.iter().enumerate() {
        let rule = if *is_public { "public".to_owned() } else { format!("t{number}") };
        let rule = rule.try_into().unwrap();
        lines.push(Route { methods: Vec::new(), path: path.clone(), rule });
        match Routes::compile(&lines) {
            Ok(all) => {
                routes = all;
                kept.push(path.clone());
            }
            Err(_) => drop(lines.pop()),
        }
    }
    (routes, kept)
}

/// A matcher without priorities: it compares the path's segments with the template's, one by one.
fn matches(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let mut own = template.split('/').peekable();
    while let Some(pattern) = own.next() {
        let is_last = own.peek().is_none();
        if let Some((before, _)) = pattern.split_once("{*") {
            // `/{*rest}` also matches the bare prefix; with text before it, it needs at least one byte.
            let rest = segments.collect::<Vec<_>>().join("/");
            return before.is_empty() || (rest.starts_with(before) && rest.len() > before.len());
        }
        let Some(segment) = segments.next() else { return false };
        let segment_fits = match pattern.split_once('{').and_then(|(a, b)| Some((a, b.split_once('}')?.1))) {
            None => segment == pattern,
            Some((before, after)) => {
                segment.len() > before.len() + after.len() && segment.starts_with(before) && segment.ends_with(after)
            }
        };
        if !segment_fits {
            return false;
        }
        if is_last {
            return segments.next().is_none();
        }
    }
    false
}

fn kinds() -> impl Strategy<Value = BTreeSet<PathKind>> {
    prop::sample::subsequence(PathKind::ALL.to_vec(), 0..=5).prop_map(|kinds| kinds.into_iter().collect())
}

proptest! {
    #![proptest_config(cases(CaseCost::Low))]

    #[test]
    fn no_bytes_make_a_reading_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[/a-c.%;?#25eEfF\\\\]{0,40}", kinds in kinds(),
    ) {
        for bytes in [&bytes[..], text.as_bytes()] {
            if let Some(path) = Paths::default().read(b"GET", bytes) {
                let (plain, decoded) = path.readings();
                prop_assert!(plain.starts_with('/') && decoded.is_none());
                prop_assert!(!plain.contains("//") && !plain.contains([';', '\\']));
                prop_assert!(plain.split('/').all(|segment| segment != "." && segment != ".."));
                let admitted = Paths { allow: kinds.clone() }.read(b"GET", bytes);
                prop_assert_eq!(admitted.as_ref(), Some(&path), "a plain path is read the same, whatever is admitted");
            }
            if let Some(path) = (Paths { allow: kinds.clone() }).read(b"GET", bytes) {
                let (plain, decoded) = path.readings();
                for reading in [Some(plain), decoded].into_iter().flatten() {
                    prop_assert!(reading.split('/').all(|segment| segment != "." && segment != ".."), "{}", reading);
                }
            }
        }
    }

    #[test]
    fn a_path_is_public_only_by_a_public_template(
        templates in prop::collection::vec((template(), any::<bool>()), 1..7), path in path(),
        noise in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let (routes, kept) = compiled(&templates);
        for path in [path.as_bytes(), &[path.as_bytes(), &noise].concat()] {
            let Some(path) = Paths::default().read(b"GET", path) else { continue };
            if let RouteRule::Rule { rule: Rule::Public, .. } = routes.find(b"GET", &path, Rule::Deny) {
                let plain = path.readings().0;
                let by = templates.iter().any(|(template, is_public)| *is_public && kept.contains(template) && matches(template, plain));
                prop_assert!(by, "{plain} is public by none of {kept:?}");
            }
        }
    }

    #[test]
    fn a_workspace_binding_is_bypassed_only_by_plain_text(
        templates in prop::collection::vec(template(), 1..7), path in path(),
    ) {
        let named: Vec<_> = templates.iter().map(|template| (template.clone(), false)).collect();
        let (routes, kept) = compiled(&named);
        let read = Paths::default().read(b"GET", path.as_bytes()).unwrap();
        let RouteRule::Rule { rule: Rule::Scope { scope, .. }, workspace: None } =
            routes.find(b"GET", &read, Rule::Deny) else { return Ok(()) };
        let number: usize = scope.trim_start_matches('t').parse().unwrap();
        let taken: Vec<_> = templates[number].split('/').collect();
        for bound in kept.iter().filter(|bound| matches(bound, &path)) {
            let Some(at) = bound.split('/').position(|segment| segment == "{workspace}") else { continue };
            // `{*rest}` of the bound template may match a path that the router gives to plain text.
            let named = taken.get(at).is_some_and(|segment| !segment.contains('{'));
            prop_assert!(named, "{path} goes to {} past {bound}, of {kept:?}", templates[number]);
        }
    }

    #[test]
    fn a_binding_never_panics_and_names_a_part_of_the_path(
        template in prop_oneof![template(), any::<String>(), "[/a-c{}*.%]{0,20}"],
        path in prop_oneof![path().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)],
    ) {
        let (Ok(compiled), Some(path)) = (Template::compile(&template), Paths::default().read(b"GET", &path)) else {
            return Ok(());
        };
        if let Binding::Match { workspace: Some(workspace) } = compiled.bind(&path) {
            prop_assert!(template.contains("/{workspace}"), "bound by another parameter");
            prop_assert!(path.readings().0.split('/').any(|segment| segment == workspace));
        }
    }
}

proptest! {
    #![proptest_config(cases(CaseCost::High))]

    #[test]
    fn no_template_makes_compiling_panic(templates in prop::collection::vec("[/a-c{}*.%?]{0,12}|(/[a-c]){1,3}", 0..6)) {
        let templates: Vec<_> = templates.into_iter().map(|template| (template, false)).collect();
        let (routes, kept) = compiled(&templates);
        prop_assert_eq!(routes.is_empty(), kept.is_empty());
    }

    #[test]
    fn no_number_of_parameters_makes_compiling_panic(parts in prop::collection::vec("(/|[a-c])?\\{\\*?[a-z]{1,9}\\}", 0..60)) {
        let text: String = parts.concat();
        let parameters = text.matches('{').count();
        prop_assert!(Template::compile(&text).is_err() || parameters <= crate::route::MAX_PARAMETERS);
    }
}
