//! Typed calls of a real extension through the host: in the fast codec where both mean the same layout, in
//! MessagePack elsewhere, and nobody notices.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use extension_host::{Host, InstanceState, Manifest, Route};
use extension_sdk::{Blob, Fault, FaultCode};
use ipc_transport::{CallError, Caller, Encoded, Payload, Request};

use crate::programs::programs;
use crate::support::{BOUND, host, kill, on_both_runtimes, options, snapshot, until_state};

/// The name of the package that the example belongs to.
const NAME: &str = "extension-sdk";

/// As `points` has it, but for the comments.
mod same {
    use super::{BTreeMap, Blob, Fault};

    #[extension_sdk::message(fast)]
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Point {
        pub(super) x: f64,
        pub(super) y: f64,
        pub(super) name: Option<String>,
    }

    #[extension_sdk::message(fast)]
    #[derive(Clone, Debug, PartialEq)]
    pub(super) enum Shape {
        /// None.
        Nothing,
        /// Round.
        Circle(Point, f64),
        /// Not round.
        Polygon { corners: Vec<Point>, filled: bool },
    }

    #[extension_sdk::interface]
    pub(super) trait Points {
        #[method(fast, idempotent)]
        fn middle(&self, points: Vec<Point>) -> Result<Point, Fault>;
        #[method(fast, idempotent)]
        fn name(&self, shapes: Vec<Shape>, names: Vec<String>) -> Result<BTreeMap<String, Shape>, Fault>;
        #[method(fast, idempotent)]
        fn turn(&self, request: Blob) -> Result<Blob, Fault>;
        #[method(fast)]
        fn rest(&self) -> Result<(), Fault>;
        fn length(&self, point: Point) -> Result<usize, Fault>;
    }
}

/// As somebody has it who sorted the fields of a point, and knows an older shape of the answer.
mod other {
    use super::Fault;

    #[extension_sdk::message(fast)]
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Point {
        #[serde(default)]
        pub(super) name: Option<String>,
        pub(super) y: f64,
        pub(super) x: f64,
    }

    #[extension_sdk::interface]
    pub(super) trait Points {
        #[method(fast, idempotent)]
        fn middle(&self, points: Vec<Point>) -> Result<Point, Fault>;
    }
}

fn register(host: &Host) -> Route {
    let text = format!("name = \"{NAME}\"\nversion = \"0.1.0\"\n[run]\ncommand = [\"points\"]\n");
    let manifest =
        Manifest::parse(&text, Path::new("extension.toml")).unwrap_or_else(|found| panic!("{found}"));
    host.register(manifest, programs().points.clone()).expect("the name is free");
    host.extension(NAME).expect("it is registered")
}

/// Calls so far, and those of them in the fast codec.
fn counts(host: &Host) -> (u64, u64) {
    let totals = snapshot(host, NAME).totals;
    (totals.calls, totals.calls_fast)
}

fn point(x: f64, y: f64) -> same::Point {
    same::Point { x, y, name: Some("p".into()) }
}

#[test]
fn typed_calls_go_fast_where_both_sides_mean_the_same() {
    on_both_runtimes(async || {
        let host: Arc<Host> = host(options());
        let route = register(&host);
        let client = same::PointsClient::new(route.clone()).with_timeout(BOUND);
        // Nothing runs yet that could have said what it means.
        let middle = client.middle(vec![point(1.0, 4.0), point(3.0, 0.0)]).await.expect("it answers");
        assert_eq!(middle, same::Point { x: 2.0, y: 2.0, name: None });
        // The answer to a call that waited for the start may come before all others may know of the incarnation.
        until_state(&host, NAME, InstanceState::Ready).await;
        assert_eq!(counts(&host), (1, 0));

        let middle = client.middle(vec![point(1.0, 4.0), point(3.0, 0.0)]).await.expect("it answers");
        assert_eq!(middle, same::Point { x: 2.0, y: 2.0, name: None });
        let polygon = same::Shape::Polygon { corners: vec![point(0.5, -1.0); 3], filled: true };
        let shapes = vec![polygon, same::Shape::Nothing, same::Shape::Circle(point(0.0, 0.0), 2.5)];
        let names = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let named = client.name(shapes.clone(), names.clone()).await.expect("it answers");
        assert_eq!(named, names.into_iter().zip(shapes).collect());
        // Several frames there and back.
        let blob = Blob(vec![7; 3 << 20]);
        assert_eq!(client.turn(blob.clone()).await.expect("it answers"), blob);
        client.rest().await.expect("it answers");
        assert_eq!(counts(&host), (5, 4));

        // A method that is not marked, a fault, and what is encoded already.
        assert_eq!(client.length(point(0.0, 0.0)).await.expect("it answers"), 1);
        assert_eq!(counts(&host), (6, 4));
        let Err(CallError::Fault(fault)) = client.middle(Vec::new()).await else { panic!("it is none") };
        assert_eq!(fault.code, FaultCode::InvalidArgument);
        assert_eq!(counts(&host), (7, 5));
        let payload = Payload::Encoded(Encoded::from_value(&Blob(vec![1])).expect("it is encoded"));
        let answer = route.call(Request::new("turn", payload, BOUND)).await.expect("it answers");
        assert_eq!(answer.decode::<Blob>().expect("MessagePack"), Blob(vec![1]));
        assert_eq!(counts(&host), (8, 5));
        host.shutdown(BOUND).await;
    });
}

#[test]
fn who_means_another_layout_is_called_in_message_pack() {
    on_both_runtimes(async || {
        let host: Arc<Host> = host(options());
        let route = register(&host);
        let client = other::PointsClient::new(route.clone()).with_timeout(BOUND);
        for calls in 1..4 {
            let points = vec![
                other::Point { name: None, y: 4.0, x: 1.0 },
                other::Point { name: Some("q".into()), y: 0.0, x: 2.0 },
            ];
            let middle = client.middle(points).await.expect("it answers");
            assert_eq!(middle, other::Point { name: None, y: 2.0, x: 1.5 });
            assert_eq!(counts(&host), (calls, 0));
        }
        host.shutdown(BOUND).await;
    });
}

#[test]
fn calls_go_fast_again_after_a_restart() {
    on_both_runtimes(async || {
        let host: Arc<Host> = host(options());
        let route = register(&host);
        let client = same::PointsClient::new(route.clone()).with_timeout(BOUND);
        client.rest().await.expect("it answers");
        // The answer to a call that waited for the start may come before all others may know of the incarnation.
        until_state(&host, NAME, InstanceState::Ready).await;
        client.rest().await.expect("it answers");
        assert_eq!(counts(&host), (2, 1));
        kill(snapshot(&host, NAME).pid.expect("it runs"));
        // Whether it meets the old incarnation or none: it is idempotent, and it is answered.
        let blob = Blob(vec![3; 100]);
        assert_eq!(client.turn(blob.clone()).await.expect("it answers"), blob);
        until_state(&host, NAME, InstanceState::Ready).await;
        let (_, before) = counts(&host);
        client.rest().await.expect("it answers");
        assert_eq!(counts(&host).1, before + 1);
        host.shutdown(BOUND).await;
    });
}
