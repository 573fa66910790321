//! The calls to the control plane that are in flight.

/// What a call is for. At most one of each kind is in flight.
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
    /// Envoy's number of the call.
    number: u32,
}

/// All calls of one source.
#[derive(Default)]
pub(super) struct PendingCalls(Vec<PendingCall>);

impl PendingCalls {
    /// `root` has sent a call. An earlier one of its kind is forgotten: its answer would come too late.
    pub(super) fn sent(&mut self, kind: CallKind, root: u32, number: u32) {
        self.forget(kind);
        self.0.push(PendingCall { kind, root, number });
    }

    /// The call was answered. `None`: it isn't one of these, or was forgotten.
    pub(super) fn take(&mut self, root: u32, number: u32) -> Option<CallKind> {
        let at = self.0.iter().position(|call| (call.root, call.number) == (root, number))?;
        Some(self.0.swap_remove(at).kind)
    }

    /// The answer to a call of this kind is of no use any more.
    pub(super) fn forget(&mut self, kind: CallKind) {
        self.0.retain(|call| call.kind != kind);
    }

    /// A root context has ended, and its calls with it.
    pub(super) fn forget_root(&mut self, root: u32) -> Vec<CallKind> {
        self.0.extract_if(.., |call| call.root == root).map(|call| call.kind).collect()
    }
}
