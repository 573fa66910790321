//! How upstreams resolve the path of a request into the path that they dispatch on.

mod escapes;
mod lenient;
mod segments;
mod servers;
mod servlet;
#[cfg(test)]
mod tests;

/// One kind of upstream, modelled from its documentation and its observed behaviour.
#[derive(Clone, Copy)]
pub struct UpstreamModel {
    pub name: &'static str,
    dispatch: fn(&[u8]) -> Option<Vec<u8>>,
}

impl UpstreamModel {
    /// All models: servers by default and with other options, and known mistakes of upstreams.
    pub const ALL: [Self; 26] = [
        Self { name: "Tomcat 10.1", dispatch: servlet::tomcat },
        Self { name: "Tomcat 10.1 that decodes %2f", dispatch: servlet::tomcat_that_decodes_slashes },
        Self { name: "Tomcat 10.1 that passes %2f through", dispatch: servlet::tomcat_that_keeps_slashes },
        Self { name: "Tomcat 10.1 with allowBackslash", dispatch: servlet::tomcat_with_backslash },
        Self { name: "Spring, UrlPathHelper", dispatch: servlet::spring_url_path_helper },
        Self { name: "Spring, UrlPathHelper that decodes first", dispatch: servlet::spring_that_decodes_first },
        Self { name: "Spring, PathPattern", dispatch: servlet::spring_path_pattern },
        Self { name: "servlets that cut at the first semicolon", dispatch: servlet::cut_at_first_semicolon },
        Self { name: "nginx", dispatch: servers::nginx },
        Self { name: "nginx without merge_slashes", dispatch: servers::nginx_without_merging },
        Self { name: "WSGI", dispatch: servers::wsgi },
        Self { name: "WSGI that merges slashes", dispatch: servers::wsgi_that_merges_slashes },
        Self { name: "Node, as sent", dispatch: servers::as_sent },
        Self { name: "Node, decodeURIComponent", dispatch: servers::decode_uri_component },
        Self { name: "Node, new URL()", dispatch: servers::whatwg_url },
        Self { name: "Node, static files", dispatch: servers::static_files },
        Self { name: "IIS with file paths", dispatch: servers::iis },
        Self { name: "decodes twice", dispatch: lenient::decode_twice },
        Self { name: "decodes until nothing changes", dispatch: lenient::decode_all },
        Self { name: "decodes until nothing changes, then cuts parameters", dispatch: lenient::decode_all_then_cut },
        Self { name: "takes overlong UTF-8", dispatch: lenient::overlong_utf8 },
        Self { name: "drops what is no UTF-8", dispatch: lenient::drop_invalid_utf8 },
        Self { name: "trims control bytes and blanks", dispatch: lenient::trim_blanks },
        Self { name: "drops control bytes", dispatch: lenient::drop_control_bytes },
        Self { name: "cuts at a decoded ?, # or NUL", dispatch: lenient::cut_at_delimiters },
        Self { name: "all leniencies at once", dispatch: lenient::everything },
    ];

    /// The path it dispatches on for the target of a request line; `None` when it refuses the request.
    pub fn resolve(&self, target: &[u8]) -> Option<Vec<u8>> {
        (self.dispatch)(Self::path_of(target))
    }

    /// The path of a request target: what comes before its query or fragment.
    pub fn path_of(target: &[u8]) -> &[u8] {
        let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
        &target[..end]
    }
}
