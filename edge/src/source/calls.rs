//! The calls to the control plane that are in flight.

/// The purpose of a call. At most one call of each kind is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallKind {
    Feed,
    Acknowledgement,
    Usage,
}

struct PendingCall {
    kind: CallKind,
    /// The root context that sent it: Envoy drops the call when that context ends.
    root: u32,
    /// Envoy's number for the call.
    number: u32,
}

/// The calls in flight of one source.
#[derive(Default)]
pub(super) struct PendingCalls(Vec<PendingCall>);

impl PendingCalls {
    /// `root` has sent a call. An earlier one of the same kind is forgotten: its answer would come too late.
    pub(super) fn sent(&mut self, kind: CallKind, root: u32, number: u32) {
        self.forget(kind);
        self.0.push(PendingCall { kind, root, number });
    }

    /// Removes a call that was answered. `None`: the call is unknown, or was forgotten.
    pub(super) fn take(&mut self, root: u32, number: u32) -> Option<CallKind> {
        let at = self.0.iter().position(|call| (call.root, call.number) == (root, number))?;
        Some(self.0.swap_remove(at).kind)
    }

    /// Forgets the call of this kind: its answer is no longer of use.
    pub(super) fn forget(&mut self, kind: CallKind) {
        self.0.retain(|call| call.kind != kind);
    }

    /// A root context has ended, and its calls with it.
    pub(super) fn forget_root(&mut self, root: u32) -> Vec<CallKind> {
        self.0.extract_if(.., |call| call.root == root).map(|call| call.kind).collect()
    }
}
