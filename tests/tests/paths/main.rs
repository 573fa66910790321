//! Path confusion: a path has one reading, or is refused with 400.
//!
//! Every kind of upstream dispatches a path that passes to the route that Envoy matched.

mod attacks;
mod generated;
mod generator;
mod ordinary;
mod pathless;
mod site;
mod tomcat;

use site::{CATCH_ALL, PRINTED, ROUTES, Setup, Site, TEMPLATES};

/// Checks everything about this setup on one Envoy, because starting one is most of what a test costs.
fn assert_read_in_one_way(setup: &Setup) {
    let mut site = Site::start(setup);
    let wrong = [attacks::passed(&site), ordinary::refused(&site), generated::mismatches(&site)].concat();
    assert!(wrong.is_empty(), "{}:\n{}", setup.name, wrong.join("\n"));
    site.assert_no_vm_failed();
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
