//! The fast codec as an author has it: the same values come back whatever carries them and in whichever codec, and
//! who means another layout is called in MessagePack.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use extension_sdk::{Blob, Caller, Fault, FaultCode, testing};
use ipc_protocol::Codec;
use ipc_transport::{Answer, CallError, CallResult, Encoded, Payload, Reply, Request};
use proptest::prelude::*;

#[extension_sdk::message(fast)]
#[derive(Clone, Debug, Default, PartialEq)]
struct Numbers {
    small: (u8, i8, u16, i16),
    #[serde(rename = "middling")]
    middle: [u32; 3],
    #[serde(default)]
    large: Vec<(u64, i64)>,
    real: BTreeMap<i32, Vec<f32>>,
    yes: bool,
}

#[extension_sdk::message(fast)]
#[derive(Clone, Debug, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Thing {
    AllVoid,
    Plain(char),
    Pair(Box<Numbers>, Option<String>),
    Named { numbers: HashMap<String, Numbers>, blob: Blob },
}

/// Nothing in it.
#[extension_sdk::message(fast)]
#[derive(Clone, Debug, PartialEq)]
struct Empty {}

#[extension_sdk::interface]
trait Things {
    /// Gives them back.
    #[method(fast)]
    fn same(
        &self,
        first: Vec<Thing>,
        r#type: Option<Numbers>,
    ) -> Result<(Vec<Thing>, Option<Numbers>), Fault>;

    /// Gives it back.
    #[method(fast)]
    fn one(&self, request: Thing) -> Result<Thing, Fault>;

    /// Says whether it came.
    #[method(fast)]
    async fn nothing(&self, request: Empty) -> Result<(), Fault>;

    /// Takes nothing, and answers many small numbers.
    #[method(fast)]
    fn many(&self) -> Result<Vec<u64>, Fault>;

    /// Fails.
    #[method(fast)]
    fn fail(&self) -> Result<u8, Fault>;

    /// Not in that codec.
    fn plain(&self, request: Thing) -> Result<Thing, Fault>;
}

#[derive(Default)]
struct Mirror;

impl Things for Mirror {
    fn same(
        &self,
        first: Vec<Thing>,
        second: Option<Numbers>,
    ) -> Result<(Vec<Thing>, Option<Numbers>), Fault> {
        Ok((first, second))
    }

    fn one(&self, request: Thing) -> Result<Thing, Fault> {
        Ok(request)
    }

    async fn nothing(&self, Empty {}: Empty) -> Result<(), Fault> {
        Ok(())
    }

    fn many(&self) -> Result<Vec<u64>, Fault> {
        Ok(vec![1; 100])
    }

    fn fail(&self) -> Result<u8, Fault> {
        Err(Fault::new(FaultCode::NotFound, "there is none"))
    }

    fn plain(&self, request: Thing) -> Result<Thing, Fault> {
        Ok(request)
    }
}

mod exported {
    use super::{Mirror, Things};
    extension_sdk::export!(Mirror as Things);
    const _: fn() -> std::process::ExitCode = main;
}

/// The interface that `unsorted` has, as somebody has it who sorted the fields.
mod sorted {
    use extension_sdk::Fault;

    /// `x` and `y` are of one type, and have one schema with those of `unsorted`.
    #[extension_sdk::message(fast)]
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Pair {
        #[serde(default)]
        pub(super) x: i32,
        #[serde(default)]
        pub(super) y: i32,
    }

    #[extension_sdk::interface]
    pub(super) trait Pairs {
        /// What is x.
        #[method(fast)]
        fn x(&self, request: Pair) -> Result<i32, Fault>;
    }
}

mod unsorted {
    use extension_sdk::Fault;

    #[extension_sdk::message(fast)]
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Pair {
        #[serde(default)]
        pub(super) y: i32,
        #[serde(default)]
        pub(super) x: i32,
    }

    #[extension_sdk::interface]
    pub(super) trait Pairs {
        /// What is x.
        #[method(fast)]
        fn x(&self, request: Pair) -> Result<i32, Fault>;
    }

    #[derive(Default)]
    pub(super) struct X;

    impl Pairs for X {
        fn x(&self, request: Pair) -> Result<i32, Fault> {
            Ok(request.x)
        }
    }

    extension_sdk::export!(X as Pairs);
    const _: fn() -> std::process::ExitCode = main;
}

/// Writes down in which codec answers come.
#[derive(Clone)]
struct Watched {
    inner: Arc<dyn Caller>,
    codecs: Arc<Mutex<Vec<Codec>>>,
}

impl Watched {
    fn new(inner: impl Caller + 'static) -> Self {
        Self { inner: Arc::new(inner), codecs: Arc::default() }
    }

    fn codecs(&self) -> Vec<Codec> {
        std::mem::take(&mut self.codecs.lock().expect("no test panics with it"))
    }
}

impl Caller for Watched {
    fn call(&self, request: Request<'_>) -> Reply {
        let (reply, codecs) = (self.inner.call(request), Arc::clone(&self.codecs));
        Reply::from_future(async move {
            let encoded = reply.await?.into_encoded()?;
            codecs.lock().expect("no test panics with it").push(encoded.codec);
            Ok(Answer::encoded(encoded))
        })
    }
}

fn any_numbers() -> impl Strategy<Value = Numbers> {
    let real = prop::collection::btree_map(any::<i32>(), prop::collection::vec(any::<f32>(), 0..4), 0..3);
    let large = prop::collection::vec(any::<(u64, i64)>(), 0..5);
    (any::<(u8, i8, u16, i16)>(), any::<[u32; 3]>(), large, real, any::<bool>())
        .prop_map(|(small, middle, large, real, yes)| Numbers { small, middle, large, real, yes })
}

fn any_thing() -> impl Strategy<Value = Thing> {
    let blob = prop::collection::vec(any::<u8>(), 0..20).prop_map(Blob);
    let numbers = prop::collection::hash_map(any::<String>(), any_numbers(), 0..3);
    prop_oneof![
        Just(Thing::AllVoid),
        any::<char>().prop_map(Thing::Plain),
        (any_numbers(), any::<Option<String>>()).prop_map(|(one, text)| Thing::Pair(Box::new(one), text)),
        (numbers, blob).prop_map(|(numbers, blob)| Thing::Named { numbers, blob }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn the_same_values_come_back_in_either_codec(
        things in prop::collection::vec(any_thing(), 0..4),
        numbers in prop::option::of(any_numbers()),
    ) {
        let caller = Watched::new(testing::in_process::<Mirror>().expect("it starts"));
        let client = ThingsClient::new(caller.clone());
        let fast = testing::block_on(client.same(things.clone(), numbers.clone())).expect("it answers");
        prop_assert_eq!(caller.codecs(), [Codec::Wincode]);
        prop_assert_eq!(&fast, &(things.clone(), numbers));
        for thing in things {
            let named = testing::block_on(client.plain(thing.clone())).expect("it answers");
            prop_assert_eq!(&named, &thing);
            prop_assert_eq!(&testing::block_on(client.one(thing.clone())).expect("it answers"), &named);
        }
    }
}

fn echoes(caller: impl Caller + 'static) {
    let caller = Watched::new(caller);
    let client = ThingsClient::new(caller.clone());
    let thing = Thing::Pair(Box::default(), Some("x".into()));
    assert_eq!(testing::block_on(client.one(thing.clone())).expect("it answers"), thing);
    testing::block_on(client.nothing(Empty {})).expect("it answers");
    assert_eq!(testing::block_on(client.many()).expect("it answers"), [1; 100]);
    assert_eq!(caller.codecs(), [Codec::Wincode; 3]);
    assert_eq!(testing::fault(client.fail()).code, FaultCode::NotFound);
    assert_eq!(testing::block_on(client.plain(thing.clone())).expect("it answers"), thing);
    assert_eq!(caller.codecs(), [Codec::MessagePack]);
}

#[test]
fn fast_methods_are_called_fast_and_others_are_not() {
    echoes(testing::in_process::<Mirror>().expect("it starts"));
    echoes(testing::over_socket::<Mirror>().expect("it starts"));
}

#[test]
fn who_means_another_order_is_understood_all_the_same() {
    fn asks(caller: impl Caller + 'static) {
        let caller = Watched::new(caller);
        let x = sorted::PairsClient::new(caller.clone()).x(sorted::Pair { x: 7, y: 8 });
        assert_eq!(testing::block_on(x).expect("it answers"), 7);
        assert_eq!(caller.codecs(), [Codec::MessagePack]);
        let x = unsorted::PairsClient::new(caller.clone()).x(unsorted::Pair { x: 7, y: 8 });
        assert_eq!(testing::block_on(x).expect("it answers"), 7);
        assert_eq!(caller.codecs(), [Codec::Wincode]);
    }
    asks(testing::in_process::<unsorted::X>().expect("it starts"));
    asks(testing::over_socket::<unsorted::X>().expect("it starts"));
}

#[test]
fn encoded_arguments_of_a_fast_method_are_message_pack() {
    let caller = testing::over_socket::<Mirror>().expect("it starts");
    let call = |encoded: Encoded| -> CallResult {
        let payload = Payload::Encoded(encoded);
        testing::block_on(caller.call(Request::new("one", payload, Duration::from_secs(60))))
    };
    let named = call(Encoded::from_value("all-void").expect("it is encoded")).expect("it answers");
    assert_eq!(named.decode::<Thing>().expect("it is one"), Thing::AllVoid);
    // What is in neither codec is the caller's fault.
    for (bytes, says) in
        [(&[9, 0, 0, 0][..], "9 before byte 4"), (&[0; 5], "1 bytes follow"), (&[], "cut off")]
    {
        let refused = call(Encoded { codec: Codec::Wincode, bytes: bytes.to_vec().into() });
        let Err(CallError::Fault(fault)) = refused else { panic!("{refused:?}") };
        assert_eq!(fault.code, FaultCode::InvalidArgument);
        assert!(fault.message.contains(says), "{}", fault.message);
    }
}
