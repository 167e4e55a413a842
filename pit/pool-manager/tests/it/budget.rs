//! Random histories of loading, growing and unloading, held against books that are kept slowly and obviously: a list of
//! what has memory, summed up anew each time, and searched for anything idle whenever somebody is refused.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    task::Poll,
    time::Duration,
};

use pit_core::clock::{Clock, ManualClock};
use pool_manager::{
    AllocateError, Allocating, ErrorClass, InstanceId, LOAD_RETRY_TIME_MIN, Lease, Load, Loader, Memory,
    ModelId, ModelSpec, PoolManager, PoolOptions, Unload,
};
use proptest::prelude::*;

use crate::support::poll;

const BUDGET: u64 = 100;
const MODELS: usize = 3;

/// What a model is declared to be.
#[derive(Clone, Copy, Debug)]
struct Declared {
    instances: u32,
    concurrency: u32,
    memory: Memory,
    is_pinned: bool,
}

impl Declared {
    fn peak(self) -> u64 {
        self.memory.at_load_bytes.max(self.memory.in_use_bytes)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Ask(usize),
    Wait(usize),
    /// What lies at this place, modulo the number of them; the same below.
    GiveBack(usize),
    Leave(usize),
    Ready(usize),
    LoadFails(usize),
    Gone(usize),
    Resize(usize, u64),
    End(usize),
    UnloadIdle(usize),
    Redeclare(usize, Declared),
    Advance(u64),
}

fn declared() -> impl Strategy<Value = Declared> {
    let bytes = || prop_oneof![3 => 0..60_u64, 1 => 60..=BUDGET];
    (1..4_u32, 1..3_u32, bytes(), bytes(), prop::bool::weighted(0.1)).prop_map(
        |(instances, concurrency, at_load_bytes, in_use_bytes, is_pinned)| Declared {
            instances,
            concurrency,
            memory: Memory { at_load_bytes, in_use_bytes },
            is_pinned,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let any = any::<usize>;
    prop_oneof![
        5 => (0..MODELS).prop_map(Op::Ask),
        3 => (0..MODELS).prop_map(Op::Wait),
        4 => any().prop_map(Op::GiveBack),
        1 => any().prop_map(Op::Leave),
        6 => any().prop_map(Op::Ready),
        1 => any().prop_map(Op::LoadFails),
        4 => any().prop_map(Op::Gone),
        4 => (any(), 0..=BUDGET).prop_map(|(which, bytes)| Op::Resize(which, bytes)),
        1 => any().prop_map(Op::End),
        1 => any().prop_map(Op::UnloadIdle),
        1 => (0..MODELS, declared()).prop_map(|(model, declared)| Op::Redeclare(model, declared)),
        2 => (1..20_u64).prop_map(Op::Advance),
    ]
}

/// What has memory, and why.
struct Entry {
    model: ModelId,
    instance: InstanceId,
    bytes: u64,
    stage: Stage,
}

enum Stage {
    Loading(Load),
    /// The load says just now that it is ready.
    Readying,
    InUse,
    Leaving {
        _until_dropped: Unload,
    },
}

#[derive(Default)]
struct Books {
    declared: BTreeMap<ModelId, Declared>,
    entries: Vec<Entry>,
    /// The most that there ever was.
    most: u64,
}

impl Books {
    fn sum(&self) -> u64 {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    fn find(&mut self, model: ModelId, instance: InstanceId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| (entry.model, entry.instance) == (model, instance))
    }

    fn remove(&mut self, model: ModelId, instance: InstanceId) -> Option<Entry> {
        let place =
            self.entries.iter().position(|entry| (entry.model, entry.instance) == (model, instance))?;
        Some(self.entries.remove(place))
    }

    /// The `which`th, modulo their number, of those for which `is` holds.
    fn nth(&self, which: usize, is: impl Fn(&Entry) -> bool) -> Option<(ModelId, InstanceId)> {
        let those: Vec<_> = self.entries.iter().filter(|entry| is(entry)).collect();
        let chosen = those.get(which.checked_rem(those.len())?)?;
        Some((chosen.model, chosen.instance))
    }

    fn leaving(&self) -> u64 {
        let leaving = self.entries.iter().filter(|entry| matches!(entry.stage, Stage::Leaving { .. }));
        leaving.map(|entry| entry.bytes).sum()
    }
}

#[derive(Default)]
struct Shelf(Mutex<Books>);

impl Shelf {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }
}

impl Loader for Shelf {
    fn load(&self, load: Load) {
        let mut books = self.books();
        let (model, instance) = (load.model(), load.instance());
        let bytes = books.declared[&model].peak();
        books.entries.push(Entry { model, instance, bytes, stage: Stage::Loading(load) });
        books.most = books.most.max(books.sum());
    }

    fn unload(&self, unload: Unload) {
        let mut books = self.books();
        let (model, instance) = (unload.model(), unload.instance());
        let peak = books.declared[&model].peak();
        let entry = books.find(model, instance).unwrap();
        if matches!(entry.stage, Stage::Readying) {
            // Not wanted any more: nothing was given back.
            entry.bytes = peak;
        }
        entry.stage = Stage::Leaving { _until_dropped: unload };
        books.most = books.most.max(books.sum());
    }
}

struct World {
    pools: PoolManager,
    clock: Arc<ManualClock>,
    shelf: Arc<Shelf>,
    models: Vec<ModelId>,
    leases: Vec<Lease>,
    waiting: Vec<Allocating>,
    /// Places of instances whose load has failed, and until when they are left alone.
    failed: BTreeMap<(ModelId, u32), u64>,
}

type Checked = Result<(), TestCaseError>;

impl World {
    fn new(specs: &[Declared]) -> Self {
        let (shelf, clock) = (Arc::new(Shelf::default()), Arc::new(ManualClock::new()));
        let options =
            PoolOptions { clock: clock.clone(), memory_budget_bytes: BUDGET, ..PoolOptions::default() };
        let pools = PoolManager::with_options(options);
        let models = (0..specs.len()).map(|name| pools.declare(&name.to_string(), 1).unwrap()).collect();
        let (leases, waiting) = (Vec::new(), Vec::new());
        let mut world = Self { pools, clock, shelf, models, leases, waiting, failed: BTreeMap::new() };
        for (model, declared) in specs.iter().enumerate() {
            world.redeclare(model, *declared);
        }
        world
    }

    fn redeclare(&mut self, model: usize, declared: Declared) {
        let Declared { instances, concurrency, memory, is_pinned } = declared;
        let spec = ModelSpec::new(instances).with_concurrency(concurrency);
        let spec = spec.loaded_by(self.shelf.clone(), memory);
        let spec = if is_pinned { spec.pinned() } else { spec };
        let id = self.pools.redeclare(self.models[model], spec).unwrap();
        self.shelf.books().declared.insert(id, declared);
        self.models[model] = id;
    }

    fn now_ms(&self) -> u64 {
        self.clock.now().as_nanos() / 1_000_000
    }

    /// An instance that could be unloaded: nobody uses it, nobody waits for it, and it is not pinned.
    fn idle(&self, spared: Option<(ModelId, InstanceId)>) -> Option<(ModelId, InstanceId)> {
        let books = self.shelf.books();
        let is_used = |it| {
            self.leases.iter().any(|lease| (lease.model(), lease.instance()) == it && lease.is_current())
        };
        let is_idle = |entry: &&Entry| {
            let it = (entry.model, entry.instance);
            matches!(entry.stage, Stage::InUse)
                && !books.declared[&entry.model].is_pinned
                && self.pools.state(entry.model).is_ok_and(|state| state.waiting == 0)
                && !is_used(it)
                && Some(it) != spared
        };
        books.entries.iter().find(is_idle).map(|entry| (entry.model, entry.instance))
    }

    /// Somebody was refused `bytes`: they are not there, and nothing idle has them.
    fn check_refused(&self, bytes: u64, spared: Option<(ModelId, InstanceId)>) -> Checked {
        let sum = self.shelf.books().sum();
        let leaving = self.shelf.books().leaving();
        let is_somebody_in_line =
            self.models.iter().any(|model| self.pools.state(*model).unwrap().waiting > 0);
        prop_assert!(sum + bytes > BUDGET || (spared.is_none() && is_somebody_in_line), "there was room");
        if sum - leaving + bytes > BUDGET {
            prop_assert_eq!(self.idle(spared), None, "something idle had the memory");
        }
        Ok(())
    }

    fn ask(&mut self, model: usize) -> Checked {
        let id = self.models[model];
        match self.pools.allocate(id) {
            Ok(lease) => self.leases.push(lease),
            Err(AllocateError::Busy(_)) => {
                let declared = self.shelf.books().declared[&id];
                let now = self.now_ms();
                let is_absent = |index: &u32| {
                    let books = self.shelf.books();
                    let is_there = |entry: &Entry| {
                        entry.model == id
                            && entry.instance.index() == *index
                            && !matches!(entry.stage, Stage::Leaving { .. })
                    };
                    let is_there = books.entries.iter().any(is_there);
                    !is_there && self.failed.get(&(id, *index)).is_none_or(|until| *until <= now)
                };
                if (0..declared.instances).any(|index| is_absent(&index)) {
                    self.check_refused(declared.peak(), None)?;
                }
            }
            Err(AllocateError::Loading(_)) => {
                prop_assert!(self.pools.state(id).unwrap().loading > 0);
            }
            Err(AllocateError::CoolingDown { .. }) => prop_assert_eq!(self.pools.state(id).unwrap().ready, 0),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        Ok(())
    }

    fn ready(&mut self, which: usize) {
        let is_loading = |entry: &Entry| matches!(entry.stage, Stage::Loading(_));
        let Some((model, instance)) = self.shelf.books().nth(which, is_loading) else { return };
        let stage = {
            let mut books = self.shelf.books();
            let in_use = books.declared[&model].memory.in_use_bytes;
            let entry = books.find(model, instance).unwrap();
            entry.bytes = in_use;
            std::mem::replace(&mut entry.stage, Stage::Readying)
        };
        let Stage::Loading(load) = stage else { unreachable!("it was chosen as one that is loading") };
        load.ready();
        let mut books = self.shelf.books();
        let entry = books.find(model, instance).unwrap();
        if matches!(entry.stage, Stage::Readying) {
            entry.stage = Stage::InUse;
        }
    }

    fn load_fails(&mut self, which: usize) {
        let is_loading = |entry: &Entry| matches!(entry.stage, Stage::Loading(_));
        let Some((model, instance)) = self.shelf.books().nth(which, is_loading) else { return };
        let entry = self.shelf.books().remove(model, instance);
        let rest_ms = u64::try_from(LOAD_RETRY_TIME_MIN.as_millis()).unwrap();
        self.failed.insert((model, instance.index()), self.now_ms() + rest_ms);
        if let Some(Stage::Loading(load)) = entry.map(|entry| entry.stage) {
            load.failed(ErrorClass::NotLoaded);
        }
    }

    fn gone(&mut self, which: usize) -> bool {
        let is_leaving = |entry: &Entry| matches!(entry.stage, Stage::Leaving { .. });
        let chosen = self.shelf.books().nth(which, is_leaving);
        let entry = chosen.and_then(|(model, instance)| self.shelf.books().remove(model, instance));
        entry.is_some()
    }

    fn resize(&mut self, which: usize, bytes: u64) -> Checked {
        let is_in_use = |entry: &Entry| matches!(entry.stage, Stage::InUse);
        let Some((model, instance)) = self.shelf.books().nth(which, is_in_use) else { return Ok(()) };
        let before = {
            let mut books = self.shelf.books();
            let entry = books.find(model, instance).unwrap();
            let smaller = entry.bytes.min(bytes);
            std::mem::replace(&mut entry.bytes, smaller)
        };
        let is_done = self.pools.set_memory_in_use(model, instance, bytes).is_ok();
        self.shelf.books().find(model, instance).unwrap().bytes = if is_done { bytes } else { before };
        if is_done { Ok(()) } else { self.check_refused(bytes - before, Some((model, instance))) }
    }

    fn end(&mut self, which: usize) -> Checked {
        let is_in_use = |entry: &Entry| matches!(entry.stage, Stage::InUse);
        let Some((model, instance)) = self.shelf.books().nth(which, is_in_use) else { return Ok(()) };
        self.shelf.books().remove(model, instance);
        prop_assert!(self.pools.end_instance(model, instance, ErrorClass::Faulty));
        Ok(())
    }

    fn unload_idle(&mut self, which: usize) {
        let chosen = self.shelf.books().nth(which, |entry| matches!(entry.stage, Stage::InUse));
        if let Some((model, instance)) = chosen {
            self.pools.unload_idle(model, instance);
        }
    }

    fn act(&mut self, op: Op) -> Checked {
        match op {
            Op::Ask(model) => self.ask(model)?,
            Op::Wait(model) => self.waiting.push(self.pools.allocate_async(self.models[model])),
            Op::GiveBack(which) if !self.leases.is_empty() => {
                drop(self.leases.swap_remove(which % self.leases.len()));
            }
            Op::Leave(which) if !self.waiting.is_empty() => {
                drop(self.waiting.swap_remove(which % self.waiting.len()));
            }
            Op::GiveBack(_) | Op::Leave(_) => {}
            Op::Ready(which) => self.ready(which),
            Op::LoadFails(which) => self.load_fails(which),
            Op::Gone(which) => drop(self.gone(which)),
            Op::Resize(which, bytes) => self.resize(which, bytes)?,
            Op::End(which) => self.end(which)?,
            Op::UnloadIdle(which) => self.unload_idle(which),
            Op::Redeclare(model, declared) => self.redeclare(model, declared),
            Op::Advance(ms) => self.advance(ms),
        }
        self.fetch()
    }

    fn advance(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
        self.pools.turn(self.clock.now());
    }

    fn fetch(&mut self) -> Checked {
        for mut allocating in std::mem::take(&mut self.waiting) {
            match poll(&mut allocating) {
                Poll::Ready(Ok(lease)) => self.leases.push(lease),
                Poll::Ready(Err(AllocateError::ModelRetired(_))) => {}
                Poll::Ready(Err(other)) => return Err(TestCaseError::fail(other.to_string())),
                Poll::Pending => self.waiting.push(allocating),
            }
        }
        Ok(())
    }

    fn compare(&self) -> Checked {
        let mut books = self.shelf.books();
        prop_assert!(books.most <= BUDGET, "{} were taken at once", books.most);
        prop_assert_eq!(self.pools.totals().memory_bytes, books.sum());
        for model in &self.models {
            let state = self.pools.state(*model).unwrap();
            let count = |is: fn(&Stage) -> bool| {
                books.entries.iter().filter(|entry| entry.model == *model && is(&entry.stage)).count()
            };
            prop_assert_eq!(state.ready as usize, count(|stage| matches!(stage, Stage::InUse)));
            prop_assert_eq!(state.loading as usize, count(|stage| matches!(stage, Stage::Loading(_))));
        }
        let mut used: BTreeMap<(ModelId, InstanceId), u32> = BTreeMap::new();
        for lease in self.leases.iter().filter(|lease| lease.is_current()) {
            let instance = lease.instance();
            let is_there =
                books.find(lease.model(), instance).is_some_and(|entry| matches!(entry.stage, Stage::InUse));
            prop_assert!(is_there, "a lease of what is not loaded");
            let used = used.entry((lease.model(), instance)).or_default();
            *used += 1;
            prop_assert!(*used <= books.declared[&lease.model()].concurrency);
        }
        Ok(())
    }

    /// What is pinned goes; then everybody who waits must be served, as long as the others do their part.
    fn serve_everybody(&mut self) -> Checked {
        for model in self.models.clone() {
            if self.shelf.books().declared[&model].is_pinned {
                self.pools.retire_model(model);
            }
        }
        self.models.retain(|model| self.pools.state(*model).is_ok());
        for _ in 0..100 {
            self.leases.clear();
            while self.gone(0) {}
            while self.shelf.books().nth(0, |entry| matches!(entry.stage, Stage::Loading(_))).is_some() {
                self.ready(0);
            }
            self.advance(10);
            self.fetch()?;
            self.compare()?;
            if self.waiting.is_empty() {
                return Ok(());
            }
        }
        Err(TestCaseError::fail("somebody waits for ever"))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn budget_is_never_exceeded_and_nobody_is_refused_what_something_idle_has(
        specs in prop::collection::vec(declared(), MODELS),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut world = World::new(&specs);
        for op in ops {
            world.act(op)?;
            world.compare()?;
        }
        world.serve_everybody()?;
    }
}
