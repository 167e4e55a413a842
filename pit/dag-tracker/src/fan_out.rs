//! What the ends of items mean for their fan-outs, up to their step.
//!
//! The owner's side of `items`: each fan-out of a step has an account of what is left of it. It knows one step and nothing
//! of the graph.
//!
//! ```text
//!  item ends --> its fan-out's account --> nothing is left --> the item or step that was expanded ends --.
//!      ^                |                                                                                |
//!      |                `--> it failed, OnFailure::Stop --> the other items, and all below them, stop    |
//!      `---------------------------------------------------------------------------- was it an item? <---'
//! ```

use crate::{
    graph::StepId,
    items::{Block, Items},
    run::OnFailure,
    state::State,
    tally::Counts,
    task::Task,
    word::{Slot, Word},
};

/// What is left of one fan-out.
#[derive(Debug)]
struct Account {
    block: Block,
    on_failure: OnFailure,
    unfinished: u32,
    /// The first of its items, or of those below them, that has failed by itself.
    failed_item: Option<u32>,
    one_cancelled: bool,
    was_stopped: bool,
}

/// The accounts of all fan-outs of one step, nested ones behind those that they are in.
#[derive(Debug)]
pub(crate) struct FanOut {
    step: StepId,
    accounts: Vec<Account>,
    /// Items that have ended and are not accounted for. Empty between reports.
    ended: Vec<u32>,
}

impl FanOut {
    pub(crate) fn new(step: StepId) -> Self {
        Self { step, accounts: Vec::new(), ended: Vec::new() }
    }

    /// Adds a fan-out of `count` items; the number of the first, and the place of the fan-out among those of the step.
    pub(crate) fn append(
        &mut self,
        items: &Items,
        parent: Option<u32>,
        count: u32,
        on_failure: OnFailure,
    ) -> (u32, u32) {
        let (first, place) = (items.len(), self.accounts.len());
        let block = Block { parent, first, count };
        items.append(place, block);
        self.accounts.push(Account {
            block,
            on_failure,
            unfinished: count,
            failed_item: None,
            one_cancelled: false,
            was_stopped: false,
        });
        // INVARIANT: every account but the first belongs to an item, of which there are at most `ITEMS_MAX`.
        (first, u32::try_from(place).unwrap_or(u32::MAX))
    }

    /// An item has ended by the owner's word.
    pub(crate) fn item_ended(
        &mut self,
        items: &Items,
        item: u32,
        cancelling: &mut Vec<Task>,
    ) -> Option<State> {
        self.ended.push(item);
        self.settle(items, cancelling)
    }

    /// Tells all items to stop, because their step was.
    pub(crate) fn stop(&mut self, items: &Items, cancelling: &mut Vec<Task>) -> Option<State> {
        self.stop_from(0, items, cancelling);
        self.settle(items, cancelling)
    }

    /// What an expansion into nothing comes to.
    pub(crate) fn end_if_empty(
        &mut self,
        place: u32,
        items: &Items,
        cancelling: &mut Vec<Task>,
    ) -> Option<State> {
        let end = self.end_of(place as usize, items);
        end.or_else(|| self.settle(items, cancelling))
    }

    /// Accounts for what has ended; the state in which the step ends, if it does.
    fn settle(&mut self, items: &Items, cancelling: &mut Vec<Task>) -> Option<State> {
        let mut end = None;
        while let Some(item) = self.ended.pop() {
            let place = self.account_of(item);
            let Some(word) = items.get(item).map(Slot::own) else { continue };
            let has_failed = word.state() == State::Failed;
            // What failed below is the cause, not the items between.
            let culprit = match has_failed && word.is_expanded() {
                true => self.accounts[word.rest() as usize].failed_item,
                false => Some(item),
            };
            let account = &mut self.accounts[place];
            account.unfinished -= 1;
            account.one_cancelled |= word.state() == State::Cancelled;
            if has_failed {
                account.failed_item = account.failed_item.or(culprit);
                if account.on_failure == OnFailure::Stop {
                    self.stop_from(place, items, cancelling);
                }
            }
            end = end.or(self.end_of(place, items));
        }
        end
    }

    fn account_of(&self, item: u32) -> usize {
        // Of several that begin there all but the last are empty.
        self.accounts.partition_point(|account| account.block.first <= item) - 1
    }

    /// Ends what was expanded, if nothing is left of its fan-out: an item here, the step by the caller.
    fn end_of(&mut self, place: usize, items: &Items) -> Option<State> {
        let account = &self.accounts[place];
        if account.unfinished > 0 {
            return None;
        }
        let state = if account.failed_item.is_some() {
            State::Failed
        } else if account.one_cancelled {
            State::Cancelled
        } else {
            State::Succeeded
        };
        match account.block.parent {
            Some(parent) => {
                must_change(items.get(parent), &items.counts, state);
                self.ended.push(parent);
                None
            }
            None => {
                items.set_failed_item(account.failed_item.unwrap_or(Word::NO_CAUSE));
                Some(state)
            }
        }
    }

    /// Tells the items of a fan-out to stop, and all below them.
    fn stop_from(&mut self, place: usize, items: &Items, cancelling: &mut Vec<Task>) {
        let mut places = vec![place];
        while let Some(place) = places.pop() {
            let account = &mut self.accounts[place];
            if std::mem::replace(&mut account.was_stopped, true) {
                continue;
            }
            let Block { first, count, .. } = account.block;
            for item in first..first + count {
                let slot = items.get(item);
                let Some(word) = slot.map(Slot::own) else { continue };
                match word.state() {
                    State::Ready | State::BackingOff => {
                        must_change(slot, &items.counts, State::Cancelled);
                        self.ended.push(item);
                    }
                    State::Running => {
                        must_change(slot, &items.counts, State::Cancelling);
                        if word.is_expanded() {
                            places.push(word.rest() as usize);
                        } else {
                            cancelling.push(Task {
                                step: self.step,
                                item: Some(item),
                                attempt: word.attempt(),
                            });
                        }
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Changes the state of an item as a consequence of another change.
fn must_change(slot: Option<&Slot>, counts: &Counts, to: State) {
    // INVARIANT: consequences are drawn only from items that are there, in states that allow them.
    let changed = slot.map(|slot| slot.change(counts, to, None));
    debug_assert!(matches!(changed, Some(Ok(()))), "{to} after {changed:?}");
}
