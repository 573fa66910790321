//! Why a request is denied: the reasons, with what clients, metrics and reports get of each.

/// Makes the enum and everything that lists its reasons from one table, so that no list can lack one.
macro_rules! deny_reasons {
    ($($(#[$doc:meta])* $reason:ident => $status:literal $code:literal $detail:literal)*) => {
        /// Why a request is denied, in the order of the checks: the first reason that holds is the answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DenyReason {
            $($(#[$doc])* $reason,)*
        }

        impl DenyReason {
            /// All reasons, in their order.
            pub const ALL: [Self; [$($code),*].len()] = [$(Self::$reason),*];

            /// The code in responses, metrics, logs and reports of usage.
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$reason => $code,)*
                }
            }

            /// The HTTP status of the response.
            pub const fn status(self) -> u16 {
                match self {
                    $(Self::$reason => $status,)*
                }
            }

            /// A sentence for the client: what is wrong, and what to do next.
            pub const fn detail(self) -> &'static str {
                match self {
                    $(Self::$reason => $detail,)*
                }
            }
        }
    };
}

deny_reasons! {
    /// The path can be read in more than one way. Comes first, also on public routes.
    BadPath => 400 "bad-path"
    "The path can be read in more than one way. Send it without dot segments, `//`, `;`, backslashes, blanks at the ends of a segment, and needless or broken percent-encoding."

    /// The host contains a key. Also on public routes.
    BadAuthority => 400 "bad-authority"
    "The host of the request contains an API key. Send the key in the header that this API names, and replace it: hosts are logged on the way."

    /// None of the configured places has a key.
    MissingKey => 401 "missing-key"
    "The request has no API key. Send one in the header that this API names."

    /// More than one key, equal or not.
    MultipleKeys => 401 "multiple-keys"
    "The request has more than one API key. Send exactly one."

    /// Not the text of a key: wrong shape or checksum, or an imported key where these are refused.
    MalformedKey => 401 "malformed-key"
    "This is not the text of an API key. Compare it with the key as it was shown: a character is wrong, missing or added."

    /// The text names another environment. An imported key's text names none: it gets [`DenyReason::UnknownKey`].
    WrongEnvironment => 401 "wrong-environment"
    "This API key is for another environment. Use a key made for this one."

    /// The worker has no keys that it may decide by yet.
    NotReady => 503 "not-ready"
    "This gateway has not received its keys yet. Try again in a few seconds."

    /// The control plane last confirmed the keys longer ago than `max_staleness_secs`.
    Stale => 503 "stale"
    "This gateway has had no contact with its control plane for too long. Try again later."

    /// No record of this digest in the edge's environment.
    UnknownKey => 401 "unknown-key"
    "This API key is not known here. Check that it is the current one, or ask for a new one."

    /// A newer secret of the key has replaced this one, and their overlap is over.
    RotatedKey => 401 "rotated-key"
    "This API key's secret was replaced by a newer one. Use the newest secret of the key."

    /// An admin deactivated the key.
    InactiveKey => 401 "inactive-key"
    "This API key is deactivated. Ask an admin of its workspace to activate it."

    /// The key's end is reached, its own second included.
    ExpiredKey => 401 "expired-key"
    "This API key has expired. Ask an admin of its workspace for a new one."

    /// The client's address is not on the key's allowlist, or not known.
    AddressNotAllowed => 403 "address-not-allowed"
    "This API key may not be used from this address. Ask an admin of its workspace to add it to the key's allowlist."

    /// No rule for this path and method, a text that isn't a rule, or the rule `deny`.
    NoRouteRule => 403 "no-route-rule"
    "No API key gives access to this path with this method. Check both."

    /// The path names another workspace, or the record's workspace can't be read.
    WrongWorkspace => 403 "wrong-workspace"
    "This API key belongs to another workspace than the one in the path."

    /// The key lacks the scope, or has it only for reading where write is needed.
    MissingScope => 403 "missing-scope"
    "This API key lacks the scope that this request needs. Ask an admin of its workspace to add it."
}

impl DenyReason {
    /// The reason with this code. A newer edge may report others.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Its position in [`DenyReason::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_found_by_its_code_and_its_index() {
        for reason in DenyReason::ALL {
            assert_eq!(DenyReason::from_code(reason.code()), Some(reason));
            assert_eq!(DenyReason::ALL[reason.index()], reason);
        }
        assert_eq!(DenyReason::from_code("from-a-newer-edge"), None);
    }

    #[test]
    fn each_detail_is_whole_sentences() {
        for reason in DenyReason::ALL {
            assert!(reason.detail().ends_with('.'), "{reason:?}: {}", reason.detail());
        }
    }

    /// The table of denials in the documentation has the same reasons in the same order.
    #[test]
    fn the_documentation_lists_each_reason_in_its_order() {
        let document = include_str!("../../docs/filter.md");
        let section = document.split("\n## Denials\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| ")).skip(1);
        let documented: Vec<String> = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" ")).collect();
        let reasons = DenyReason::ALL.map(|reason| format!("{} `{}`", reason.status(), reason.code()));
        assert_eq!(documented, reasons);
    }
}
