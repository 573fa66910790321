//! The steps of a sequence. Their numbers choose among what exists when the step is carried out.

use proptest::prelude::*;

use crate::envoy::LinkState;
use crate::oracle::Grant;

/// The most steps of a sequence.
const MAX_STEPS: usize = 40;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Create {
        grant: Grant,
        is_restricted: bool,
        lives_an_hour: bool,
    },
    Update {
        key: u8,
        grant: Grant,
        is_restricted: bool,
    },
    Rotate {
        key: u8,
        overlaps: bool,
    },
    EndOverlap {
        key: u8,
    },
    Activate {
        key: u8,
    },
    Deactivate {
        key: u8,
    },
    Delete {
        key: u8,
    },
    /// So many tenths of a second, with a tick in each.
    Turns(u8),
    /// So many seconds, in which nothing else happens.
    Idle(u64),
    Link {
        envoy: u8,
        state: LinkState,
    },
    Wakes {
        envoy: u8,
        arrive: bool,
    },
    Call {
        envoy: u8,
        call: u8,
        event: CallEvent,
    },
    /// A copy of a request arrives, long after it was sent.
    Copy(u8),
    Hangs {
        envoy: u8,
        vm: u8,
    },
    Resumes {
        envoy: u8,
        vm: u8,
    },
    Traps {
        envoy: u8,
        vm: u8,
    },
    /// The process is killed, and another takes its place.
    Killed {
        envoy: u8,
        bound: u64,
    },
    /// The same, after its instance was retired.
    Leaves {
        envoy: u8,
    },
    /// Its instance is retired, but the process continues.
    Renews {
        envoy: u8,
    },
    Reconfigured {
        envoy: u8,
    },
    /// From now on its wall clock is wrong by this many hours.
    WrongClock {
        envoy: u8,
        hours: i8,
    },
    Request {
        envoy: u8,
        vm: u8,
        secret: u8,
        probe: u8,
    },
    /// An operator removes the instance of a process that has ended.
    Removed {
        instance: u8,
    },
    Restart {
        replica: u8,
        /// It shuts down gracefully instead of being killed; a single control plane always does.
        orderly: bool,
    },
    Tidy,
    BackUp,
    Restore,
    /// Admins use this control plane from now on.
    SwitchAdmins {
        replica: u8,
    },
    /// An Envoy's calls go to this control plane from now on, or to each in turn.
    Route {
        envoy: u8,
        replica: Option<u8>,
    },
    /// The database ends the connections of this control plane.
    Cut {
        replica: u8,
    },
}

/// What happens to a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallEvent {
    Arrive,
    DeliverAnswer,
    Lose,
    Break,
    Duplicate,
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..MAX_STEPS)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![12 => by_admins(), 14 => in_time(), 10 => on_the_network(), 8 => in_an_envoy(), 2 => at_the_control_plane(), 4 => between_control_planes()]
}

fn by_admins() -> impl Strategy<Value = Step> {
    let grant = || prop_oneof![Just(Grant::Nothing), Just(Grant::Read), Just(Grant::Write)];
    let key = || any::<u8>();
    prop_oneof![
        4 => (grant(), prop::bool::weighted(0.3), prop::bool::weighted(0.3)).prop_map(
            |(grant, is_restricted, lives_an_hour)| Step::Create { grant, is_restricted, lives_an_hour }
        ),
        2 => (key(), grant(), any::<bool>())
            .prop_map(|(key, grant, is_restricted)| Step::Update { key, grant, is_restricted }),
        4 => (key(), any::<bool>()).prop_map(|(key, overlaps)| Step::Rotate { key, overlaps }),
        1 => key().prop_map(|key| Step::EndOverlap { key }),
        2 => key().prop_map(|key| Step::Activate { key }),
        2 => key().prop_map(|key| Step::Deactivate { key }),
        2 => key().prop_map(|key| Step::Delete { key }),
    ]
}

fn in_time() -> impl Strategy<Value = Step> {
    // They pass the limits for a worker that is late or gone, the lease, the bounds, an overlap, an hour, a day.
    let lengths = prop::sample::select(vec![1, 3, 5, 21, 31, 61, 200, 1_900, 3_700, 90_000]);
    let request = (any::<(u8, u8, u8)>(), any::<u8>());
    prop_oneof![
        8 => (1..8_u8).prop_map(Step::Turns),
        3 => lengths.prop_map(Step::Idle),
        3 => request.prop_map(|((envoy, vm, secret), probe)| Step::Request { envoy, vm, secret, probe }),
    ]
}

fn on_the_network() -> impl Strategy<Value = Step> {
    let state = prop_oneof![2 => Just(LinkState::Prompt), 2 => Just(LinkState::Paused), 1 => Just(LinkState::Broken)];
    let event = prop_oneof![
        4 => Just(CallEvent::Arrive),
        4 => Just(CallEvent::DeliverAnswer),
        1 => Just(CallEvent::Lose),
        1 => Just(CallEvent::Break),
        1 => Just(CallEvent::Duplicate),
    ];
    prop_oneof![
        3 => (any::<u8>(), state).prop_map(|(envoy, state)| Step::Link { envoy, state }),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(envoy, arrive)| Step::Wakes { envoy, arrive }),
        8 => (any::<(u8, u8)>(), event).prop_map(|((envoy, call), event)| Step::Call { envoy, call, event }),
        2 => any::<u8>().prop_map(Step::Copy),
    ]
}

fn in_an_envoy() -> impl Strategy<Value = Step> {
    let envoy = || any::<u8>();
    let vm = || any::<(u8, u8)>();
    prop_oneof![
        4 => vm().prop_map(|(envoy, vm)| Step::Hangs { envoy, vm }),
        4 => vm().prop_map(|(envoy, vm)| Step::Resumes { envoy, vm }),
        2 => vm().prop_map(|(envoy, vm)| Step::Traps { envoy, vm }),
        1 => (envoy(), prop::sample::select(vec![10, 60])).prop_map(|(envoy, bound)| Step::Killed { envoy, bound }),
        1 => envoy().prop_map(|envoy| Step::Leaves { envoy }),
        1 => envoy().prop_map(|envoy| Step::Renews { envoy }),
        1 => envoy().prop_map(|envoy| Step::Reconfigured { envoy }),
        1 => (envoy(), -1..=1_i8).prop_map(|(envoy, hours)| Step::WrongClock { envoy, hours }),
        1 => any::<u8>().prop_map(|instance| Step::Removed { instance }),
    ]
}

fn at_the_control_plane() -> impl Strategy<Value = Step> {
    let restart = any::<(u8, bool)>().prop_map(|(replica, orderly)| Step::Restart { replica, orderly });
    prop_oneof![3 => restart, 2 => Just(Step::Tidy), 2 => Just(Step::BackUp), 2 => Just(Step::Restore)]
}

/// Without effect on a single control plane.
fn between_control_planes() -> impl Strategy<Value = Step> {
    let replica = any::<u8>;
    prop_oneof![
        2 => replica().prop_map(|replica| Step::SwitchAdmins { replica }),
        2 => (any::<u8>(), any::<Option<u8>>()).prop_map(|(envoy, replica)| Step::Route { envoy, replica }),
        1 => replica().prop_map(|replica| Step::Cut { replica }),
    ]
}
