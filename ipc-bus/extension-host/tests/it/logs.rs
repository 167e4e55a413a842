//! What instances say arrives with their name and epoch, bounded.

use std::sync::Arc;
use std::time::Duration;

use extension_host::{HostOptions, Read};

use crate::support::{BOUND, Collected, call, host, on_both_runtimes, options, register, snapshot, until};

#[test]
fn lines_bear_their_origin_and_a_flood_is_cut_down() {
    on_both_runtimes(async || {
        let log = Arc::new(Collected::default());
        let host = host(HostOptions { log: log.clone(), ..options() });
        let loud = register(&host, "loud", "crash-exit", "[restart]\nbackoff = [\"1ms\", \"1ms\"]\n");
        call(&loud, "misbehave", "x").await.expect_err("it exits");
        let line =
            ("loud instance:0@1 Stderr".to_owned(), "hostile: exiting with code 9, as told".to_owned());
        assert!(log.lines.lock().contains(&line), "{:?}", log.lines.lock());

        let flood = register(&host, "flood", "flood", "");
        call(&flood, "misbehave", "x").await.expect("it is answered");
        let dropped = until(&host, "flood", |flood| flood.log_lines_dropped > 1_000);
        tokio::time::timeout(BOUND, dropped).await.expect("a flood is dropped");
        for origin in ["Stdout", "Stderr", "Record { level: 3, target: \"hostile\" }"] {
            let name = format!("flood instance:0@1 {origin}");
            let is_there = |(from, text): &(String, String)| *from == name && text.starts_with("flood flood");
            // The other two do not use up what it may say.
            until(&host, "flood", |_| log.lines.lock().iter().any(is_there)).await;
        }
        assert_eq!(snapshot(&host, "flood").starts, 1);
        host.shutdown(Duration::ZERO).await;
    });
}

#[test]
fn events_tell_a_life_in_order_and_without_gaps() {
    on_both_runtimes(async || {
        let host = host(options());
        let mut events = host.subscribe();
        let route = register(&host, "x", "crash-exit", "[restart]\nbackoff = [\"1ms\", \"1ms\"]\n");
        call(&route, "misbehave", "x").await.expect_err("it exits");
        call(&route, "echo", "x").await.expect("it is back");
        host.shutdown(Duration::from_secs(10)).await;
        let (mut told, mut number) = (Vec::new(), 0);
        while let Read::Event(seq, event) = events.next() {
            number += 1;
            assert_eq!(seq, number);
            let text = event.to_string();
            told.push(
                text.split(" after ")
                    .next()
                    .unwrap_or_default()
                    .split(" in ")
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        assert_eq!(
            told,
            [
                "x instance:0@1: starts",
                "x instance:0@1: is ready",
                "x instance:0@1: ended: it exited with code 9 with a call",
                "x instance:0@1: starts again",
                "x instance:0@2: starts",
                "x instance:0@2: is ready",
                "x instance:0@2: ended: the host stops",
            ]
        );
    });
}
