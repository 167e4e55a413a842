//! Sweeps in slices: the budget holds, nothing is passed over, and the next deadline is right in between.

use stale_manager::Budget;

use crate::support::{at, manager, register, sweep};

#[test]
fn slices_keep_their_budget_and_leave_nothing_out() {
    // More than two blocks; every third expires.
    const THINGS: u64 = 2_500;
    let budgets = [(1, 1), (7, 1), (1_000, 3), (10_000, 10), (u32::MAX, u32::MAX), (0, 0)];
    for (looked_at_max, asked_max) in budgets {
        let (stale, owner, id) = manager();
        let ttl_ms = |key| if key % 3 == 0 { 100 } else { 500 };
        for key in 0..THINGS {
            register(&stale, id, key, ttl_ms(key), at(0));
        }
        let mut slices = 0_u64;
        loop {
            let swept = stale.sweep(at(100), Budget { looked_at_max, asked_max });
            assert!(swept.evicted <= asked_max.max(1));
            slices += 1;
            if !swept.is_unfinished {
                break;
            }
            assert!(stale.next_deadline() <= Some(at(100)), "there is more to do now");
        }
        assert!(slices >= THINGS.div_ceil(u64::from(looked_at_max.max(1))));
        assert_eq!(owner.take_asked(), (0..THINGS).filter(|key| key % 3 == 0).collect::<Vec<_>>());
        assert_eq!(stale.next_deadline(), Some(at(500)));
    }
}

#[test]
fn thing_registered_behind_a_pass_is_not_forgotten() {
    let (stale, owner, id) = manager();
    let budget = Budget { looked_at_max: 2, asked_max: 8 };
    let mut things: Vec<_> = (0..6).map(|key| register(&stale, id, key, 100, at(0))).collect();
    stale.cancel(things.remove(0));
    assert!(stale.sweep(at(100), budget).is_unfinished);
    // Takes the place of the first, which the pass has left behind; one is due later, the other already.
    register(&stale, id, 60, 50, at(100));
    stale.cancel(things.remove(0));
    register(&stale, id, 61, 1, at(0));
    assert_eq!(sweep(&stale, at(100), budget), (5, 0));
    assert_eq!(owner.take_asked(), [1, 2, 3, 4, 5, 61]);
    assert_eq!(stale.next_deadline(), Some(at(150)));
    assert_eq!(sweep(&stale, at(150), budget), (1, 0));
}

#[test]
fn sweep_with_nothing_due_asks_nobody() {
    let (stale, owner, id) = manager();
    assert_eq!(stale.next_deadline(), None);
    assert_eq!(sweep(&stale, at(10), Budget::default()), (0, 0));
    register(&stale, id, 1, 100, at(10));
    assert_eq!(sweep(&stale, at(20), Budget::default()), (0, 0));
    assert!(owner.take_asked().is_empty());
}
