//! Models come, change and go: what becomes of their leases and of those who wait.

use pit_core::priority::Ageing;
use pool_manager::{AllocateError, CAPACITY, DeclareError, INSTANCES, ModelSpec, PoolManager};

use crate::support::{counts, leased, poll, pools, refused};

#[test]
fn declaration_that_makes_no_sense_is_refused() {
    let pools = PoolManager::new();
    let capacity_max = u32::try_from(CAPACITY.max).unwrap();
    let instances_max = u32::try_from(INSTANCES.max).unwrap();
    let model = pools.declare("m", capacity_max).unwrap();
    let cases = [
        (ModelSpec::from(0), CAPACITY, 0),
        (ModelSpec::from(capacity_max + 1), CAPACITY, CAPACITY.max + 1),
        (ModelSpec::new(0), INSTANCES, 0),
        (ModelSpec::new(instances_max + 1), INSTANCES, INSTANCES.max + 1),
        (ModelSpec::new(instances_max).with_concurrency(245), CAPACITY, 4_096 * 245),
    ];
    for (spec, limit, value) in cases {
        let error = DeclareError::OutOfRange { limit, value };
        assert_eq!(pools.declare("other", spec.clone()).unwrap_err(), error);
        assert_eq!(pools.redeclare(model, spec).unwrap_err(), error);
    }
    assert_eq!(pools.declare("m", 1).unwrap_err(), DeclareError::DeclaredAlready { name: "m".into(), model });
    assert_eq!(pools.find("other"), None);
    assert_eq!(pools.find("m"), Some(model));
}

#[test]
fn lease_of_before_a_redeclaration_changes_nothing_after_it() {
    let (pools, _) = pools(Ageing::default());
    let old = pools.declare("m", 2).unwrap();
    let old_leases = [pools.allocate(old).unwrap(), pools.allocate(old).unwrap()];
    let mut waiting = pools.allocate_async(old);
    assert!(poll(&mut waiting).is_pending());

    let new = pools.redeclare(old, 1).unwrap();
    assert_eq!(new.index(), old.index());
    assert!(new.generation() > old.generation());
    assert_eq!(refused(poll(&mut waiting)), AllocateError::ModelRetired(old));
    assert_eq!(pools.allocate(old).unwrap_err(), AllocateError::ModelRetired(old));
    let lease = pools.allocate(new).unwrap();
    assert!(old_leases.iter().all(|lease| !lease.is_current()));
    drop(old_leases);
    assert_eq!(counts(&pools, new), (1, 0));
    assert_eq!(pools.allocate(new).unwrap_err(), AllocateError::Busy(new));
    drop(lease);
    assert_eq!(counts(&pools, new), (0, 0));
    assert_eq!(pools.redeclare(old, 5).unwrap_err(), DeclareError::ModelRetired(old));
}

#[test]
fn lease_that_was_handed_over_but_not_fetched_ends_with_its_model() {
    let (pools, _) = pools(Ageing::default());
    let old = pools.declare("m", 1).unwrap();
    let holding = pools.allocate(old).unwrap();
    let (mut polled, mut dropped) = (pools.allocate_async(old), pools.allocate_async(old));
    assert!(poll(&mut polled).is_pending());
    assert!(poll(&mut dropped).is_pending());
    drop(holding);
    let new = pools.redeclare(old, 1).unwrap();
    assert_eq!(refused(poll(&mut polled)), AllocateError::ModelRetired(old));
    drop(dropped);
    assert_eq!(counts(&pools, new), (0, 0));
    let lease = pools.allocate(new).unwrap();
    let mut next = pools.allocate_async(new);
    assert!(poll(&mut next).is_pending());
    drop(lease);
    drop(leased(poll(&mut next)));
}

#[test]
fn retired_name_can_be_declared_again_as_another_model() {
    let pools = PoolManager::new();
    let old = pools.declare("m", 1).unwrap();
    let other = pools.declare("other", 4).unwrap();
    let lease = pools.allocate(old).unwrap();
    assert!(pools.retire_model(old));
    assert!(!pools.retire_model(old));
    assert_eq!(pools.find("m"), None);
    assert_eq!(pools.state(old).unwrap_err(), AllocateError::ModelRetired(old));
    let names = |pools: &PoolManager| pools.snapshot().into_iter().map(|state| state.id).collect::<Vec<_>>();
    assert_eq!(names(&pools), [other]);

    let new = pools.declare("m", 1).unwrap();
    assert_ne!(new, old);
    assert_eq!(names(&pools), [new, other]);
    let held = pools.allocate(new).unwrap();
    drop(lease);
    assert_eq!(counts(&pools, new), (1, 0));
    assert!(!pools.retire_model(old), "the id of the old one does not end the new one");
    assert!(held.is_current());
}
