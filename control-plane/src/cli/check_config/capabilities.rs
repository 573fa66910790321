//! The capabilities that the filter needs: without one of them it denies requests.

/// Those that `envoy/demo.yaml` grants, which every test in a real Envoy relies on.
pub(super) const NEEDED: [&str; 33] = [
    "proxy_on_context_create",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_queue_ready",
    "proxy_on_http_call_response",
    "proxy_on_request_headers",
    "proxy_on_request_trailers",
    "proxy_on_delete",
    "proxy_get_buffer_bytes",
    "proxy_call_foreign_function",
    "proxy_set_tick_period_milliseconds",
    "proxy_get_header_map_pairs",
    "proxy_remove_header_map_value",
    "proxy_replace_header_map_value",
    "proxy_get_property",
    "proxy_set_property",
    "proxy_send_local_response",
    "proxy_http_call",
    "proxy_set_effective_context",
    "proxy_get_shared_data",
    "proxy_set_shared_data",
    "proxy_register_shared_queue",
    "proxy_enqueue_shared_queue",
    "proxy_dequeue_shared_queue",
    "proxy_define_metric",
    "proxy_increment_metric",
    "proxy_record_metric",
    "proxy_log",
    "proxy_get_current_time_nanoseconds",
    "clock_time_get",
    "random_get",
    "environ_get",
    "environ_sizes_get",
];

#[cfg(test)]
mod tests {
    use super::NEEDED;

    #[test]
    fn the_list_is_the_demo_s() {
        let demo = include_str!("../../../../envoy/demo.yaml");
        let granted: Vec<_> = demo.lines().filter_map(|line| line.trim().strip_suffix(": {}")).collect();
        assert_eq!(granted, NEEDED);
    }
}
