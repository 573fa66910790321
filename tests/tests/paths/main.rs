//! One reading of a path, or 400: what passes is dispatched by every kind of upstream on the route that Envoy matched.

mod generated;
mod generator;
mod known;
mod ordinary;
mod site;
mod tomcat;

use site::{CATCH_ALL, PRINTED, ROUTES, Setup, Site, TEMPLATES};

/// All that must hold in this setup, of one Envoy: starting one is most of what a test costs.
fn assert_read_in_one_way(setup: &Setup) {
    let site = Site::start(setup);
    known::assert_refused(&site);
    ordinary::assert_pass(&site);
    generated::assert_pass_as_matched(&site);
}

#[test]
fn routes_as_printed_read_a_path_in_one_way() {
    assert_read_in_one_way(&PRINTED);
}

#[test]
fn routes_of_the_plugin_configuration_read_a_path_in_one_way() {
    assert_read_in_one_way(&ROUTES);
}

#[test]
fn templates_in_metadata_read_a_path_in_one_way() {
    assert_read_in_one_way(&TEMPLATES);
}

#[test]
fn a_public_catch_all_behind_protected_routes_reads_a_path_in_one_way() {
    assert_read_in_one_way(&CATCH_ALL);
}
