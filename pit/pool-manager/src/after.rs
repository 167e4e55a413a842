//! What is to be done when a model's lock has been released: everything that runs foreign code or takes another lock.

use std::{sync::Arc, task::Waker, time::Duration};

use pit_core::unwind::Calls;

use crate::{
    InstanceId, ModelId,
    cell::ModelCell,
    loader::{Load, Loader, Unload},
    shared::Count,
};

#[derive(Default)]
pub(crate) struct After {
    /// Who is woken first: hardly ever there are more.
    first: Option<Waker>,
    pub(crate) woken: Vec<Waker>,
    pub(crate) handed_over: u64,
    pub(crate) loads: Vec<Load>,
    pub(crate) unloads: Vec<(Arc<dyn Loader>, Unload)>,
    /// Instances that are loaded now, to be watched.
    pub(crate) watches: Vec<(ModelId, InstanceId, Duration)>,
    /// Watches to be dropped.
    pub(crate) unwatched: Vec<Box<dyn Send>>,
    /// So many bytes are wanted and not there.
    pub(crate) wanted_bytes: Option<u64>,
    pub(crate) is_memory_freed: bool,
}

impl After {
    pub(crate) fn wake(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.woken.push(waker);
        }
    }

    /// Wakes first: everything else can wait, those who are woken have waited. Each is called whoever panics; the panic
    /// goes on when the caller ends the calls, with what it has got in safety.
    pub(crate) fn run(self, cell: &ModelCell) -> Calls {
        let mut calls = Calls::new();
        for waker in self.first.into_iter().chain(self.woken) {
            calls.call(|| waker.wake());
        }
        let Self { handed_over, loads, unloads, watches, unwatched, wanted_bytes, is_memory_freed, .. } =
            self;
        for watch in unwatched {
            calls.call(|| drop(watch));
        }
        let is_done = handed_over == 0
            && loads.is_empty()
            && unloads.is_empty()
            && watches.is_empty()
            && wanted_bytes.is_none()
            && !is_memory_freed;
        if is_done {
            return calls;
        }
        // What is loaded is let go of also when the manager is gone.
        let unloaded = unloads.len() as u64;
        for (loader, unload) in unloads {
            calls.call(|| loader.unload(unload));
        }
        let Some(core) = cell.core.upgrade() else { return calls };
        core.counters.add(Count::HandedOver as usize, handed_over);
        core.counters.add(Count::Unloads as usize, unloaded);
        for (model, instance, idle) in watches {
            if let Some(watcher) = &core.idle {
                calls.call(|| {
                    let watch = watcher.watch(model, instance, idle);
                    let useless = cell.locked().set_watch(instance, watch);
                    drop(useless);
                });
            }
        }
        for load in loads {
            core.count(Count::Loads);
            let loader = Arc::clone(&load.loader);
            calls.call(|| loader.load(load));
        }
        if let Some(bytes) = wanted_bytes {
            calls.call(|| core.make_room(bytes, None));
        }
        if wanted_bytes.is_some() || is_memory_freed {
            calls.call(|| core.admit_waiting());
        }
        calls
    }
}
