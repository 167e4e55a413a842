//! Holders die: their leases end at once and are not given back twice.

use std::sync::Arc;

use pit_core::priority::Ageing;
use pool_manager::{AllocateError, Holder, Request};

use crate::support::{Woken, counts, leased, poll, poll_with, pools, refused};

#[test]
fn dead_holder_gives_back_everything_at_once_and_nothing_later() {
    let (pools, _) = pools(Ageing::default());
    let (a, b) = (pools.declare("a", 2).unwrap(), pools.declare("b", 2).unwrap());
    let (holder, other) = (Holder::new("run:1@0"), Holder::new("run:2@0"));
    let held = [a, a, b].map(|model| pools.allocate(Request::new(model).held_by(&holder)).unwrap());
    let others = pools.allocate(Request::new(b).held_by(&other)).unwrap();
    assert_eq!((holder.leases(), other.leases()), (3, 1));

    let mut waiting = pools.allocate_async(a);
    assert!(poll(&mut waiting).is_pending());
    holder.retire();
    assert_eq!((holder.leases(), holder.is_retired(), other.is_retired()), (0, true, false));
    assert_eq!((counts(&pools, a), counts(&pools, b)), ((1, 0), (1, 0)), "one of them was handed over");
    assert!(held.iter().all(|lease| !lease.is_current()));
    let successor = leased(poll(&mut waiting));
    drop(held);
    assert_eq!((counts(&pools, a), counts(&pools, b)), ((1, 0), (1, 0)));
    drop((successor, others));
    assert_eq!((counts(&pools, a), counts(&pools, b)), ((0, 0), (0, 0)));
}

#[test]
fn dead_holder_gets_nothing_any_more() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let holder = Holder::new("h");
    let request = || Request::new(model).held_by(&holder);
    let refusal = AllocateError::HolderRetired(model);

    let holding = pools.allocate(model).unwrap();
    let woken = Arc::new(Woken::default());
    let (mut waiting, mut next) = (pools.allocate_async(request()), pools.allocate_async(model));
    assert!(poll_with(&mut waiting, &woken).is_pending());
    assert!(poll(&mut next).is_pending());
    holder.retire();
    assert_eq!(woken.count(), 1);
    assert_eq!(refused(poll(&mut waiting)), refusal);
    assert_eq!(refused(poll(&mut pools.allocate_async(request()))), refusal);
    drop(holding);
    drop(leased(poll(&mut next)));
    assert_eq!(pools.allocate(request()).unwrap_err(), refusal);
    assert_eq!(counts(&pools, model), (0, 0));
}

#[test]
fn lease_handed_to_a_holder_that_dies_before_it_looks_goes_on() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 1).unwrap();
    let holder = Holder::new("h");
    let holding = pools.allocate(model).unwrap();
    let mut dying = pools.allocate_async(Request::new(model).held_by(&holder));
    let mut next = pools.allocate_async(model);
    assert!(poll(&mut dying).is_pending());
    assert!(poll(&mut next).is_pending());
    drop(holding);
    holder.retire();
    drop(leased(poll(&mut next)));
    assert_eq!(refused(poll(&mut dying)), AllocateError::HolderRetired(model));
    assert_eq!(counts(&pools, model), (0, 0));
}

#[test]
fn leases_of_a_redeclared_model_do_not_count() {
    let (pools, _) = pools(Ageing::default());
    let old = pools.declare("m", 1).unwrap();
    let holder = Holder::new("h");
    let before = pools.allocate(Request::new(old).held_by(&holder)).unwrap();
    let new = pools.redeclare(old, 1).unwrap();
    let after = pools.allocate(Request::new(new).held_by(&holder)).unwrap();
    assert_eq!(holder.leases(), 1);
    drop(before);
    assert_eq!((holder.leases(), counts(&pools, new)), (1, (1, 0)));
    drop(after);
    assert_eq!((holder.leases(), counts(&pools, new)), (0, (0, 0)));
}

#[test]
fn lease_outlives_the_last_handle_of_its_holder_and_no_other_holder_ends_it() {
    let (pools, _) = pools(Ageing::default());
    let model = pools.declare("m", 2).unwrap();
    let holder = Holder::new("first");
    let (kept, early) = {
        let lease = || pools.allocate(Request::new(model).held_by(&holder)).unwrap();
        (lease(), lease())
    };
    drop(holder);
    drop(early);
    // One of these gets the number of the first.
    let others: Vec<_> = (0..1_000).map(|_| Holder::new("other")).collect();
    for other in &others {
        drop(pools.allocate(Request::new(model).held_by(other)).unwrap());
        other.retire();
    }
    assert!(kept.is_current());
    assert_eq!(counts(&pools, model), (1, 0));
    drop(kept);
    assert_eq!(counts(&pools, model), (0, 0));
}
