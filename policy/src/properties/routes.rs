//! Whatever a path is, it gets no more than a template gives it.

use proptest::prelude::*;

use super::{Work, cases};
use crate::route::{Route, RouteRule, RouteRuleBinding, Routes, bind, plain_path};
use crate::rule::Rule;

/// Segments of templates and paths: few and alike, so that they meet.
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

/// Templates that compile, each with its place in the list for its rule, or `public`.
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

/// A matcher that knows nothing of priorities: the path's segments fit the template's, one by one.
fn fits(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    let mut own = template.split('/').peekable();
    while let Some(pattern) = own.next() {
        let is_last = own.peek().is_none();
        if let Some((before, _)) = pattern.split_once("{*") {
            // `/{*rest}` takes the bare prefix too; with text before it, it takes at least a byte.
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

proptest! {
    #![proptest_config(cases(Work::Little))]

    #[test]
    fn no_bytes_make_a_plain_path_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[/a-c.%;?#25eE\\\\]{0,40}") {
        for bytes in [&bytes[..], text.as_bytes()] {
            if let Some(path) = plain_path(bytes) {
                prop_assert!(bytes.starts_with(path.as_bytes()) && path.starts_with('/'));
                prop_assert!(!path.contains("//") && !path.contains(['?', '#', ';', '\\']));
                prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert_eq!(plain_path(path.as_bytes()), Some(path), "what is plain stays plain");
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
            if let RouteRule::Rule { rule: Rule::Public, .. } = routes.find(b"GET", path, Rule::Deny) {
                let plain = plain_path(path).unwrap();
                let by = templates.iter().any(|(template, is_public)| *is_public && kept.contains(template) && fits(template, plain));
                prop_assert!(by, "{plain} is public by none of {kept:?}");
            }
        }
    }

    #[test]
    fn a_workspace_is_passed_by_only_where_a_template_names_it(
        templates in prop::collection::vec(template(), 1..7), path in path(),
    ) {
        let named: Vec<_> = templates.iter().map(|template| (template.clone(), false)).collect();
        let (routes, kept) = compiled(&named);
        let RouteRule::Rule { rule: Rule::Scope { scope, .. }, workspace: None } =
            routes.find(b"GET", path.as_bytes(), Rule::Deny) else { return Ok(()) };
        let number: usize = scope.trim_start_matches('t').parse().unwrap();
        let taken: Vec<_> = templates[number].split('/').collect();
        for bound in kept.iter().filter(|bound| fits(bound, &path)) {
            let Some(at) = bound.split('/').position(|segment| segment == "{workspace}") else { continue };
            // `{*rest}` of the bound template may fit what the router gives to a text.
            let named = taken.get(at).is_some_and(|segment| !segment.contains('{'));
            prop_assert!(named, "{path} goes to {} past {bound}, of {kept:?}", templates[number]);
        }
    }

    #[test]
    fn a_binding_never_panics_and_names_a_part_of_the_path(
        template in prop_oneof![template(), any::<String>(), "[/a-c{}*.%]{0,20}"],
        path in prop_oneof![path().prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)],
    ) {
        if let RouteRuleBinding::Fits { workspace: Some(workspace) } = bind(&template, &path) {
            prop_assert!(template.contains("/{workspace}"), "bound by another parameter");
            prop_assert!(plain_path(&path).unwrap().split('/').any(|segment| segment == workspace));
        }
    }
}

proptest! {
    #![proptest_config(cases(Work::Much))]

    #[test]
    fn no_template_makes_compiling_panic(templates in prop::collection::vec("[/a-c{}*.%?]{0,12}|(/[a-c]){1,3}", 0..6)) {
        let templates: Vec<_> = templates.into_iter().map(|template| (template, false)).collect();
        let (routes, kept) = compiled(&templates);
        prop_assert_eq!(routes.is_empty(), kept.is_empty());
    }
}
