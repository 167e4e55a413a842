//! What every tier must keep, checked against [`crate::reference`]. Must not know the tier.
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a test of each, for both flavours of the runtime.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use ipc_transport::{
    Answer, CallError, CallResult, Caller, Cause, Encoded, Message, Payload, Reply, Request,
};

use crate::peer::PATIENCE;
use crate::reference::bin;

/// How the tier under test starts the reference extension.
pub trait Tier {
    /// A caller of a fresh one, with a bound on the calls in flight. When the extension dies, calls must end
    /// with [`Cause::Died`].
    fn start(&self, in_flight_max: u32) -> impl Future<Output = Arc<dyn Caller>>;

    /// The checks that mean nothing in this tier: each by its name, and why. They are named and counted, and no
    /// check that exists may be left out otherwise.
    fn leaves_out(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }
}

/// Why the tier leaves the check out, if it does; said past the capture of output, so that it is counted.
#[doc(hidden)]
pub fn is_left_out(tier: &impl Tier, check: &str) -> bool {
    let why = tier.leaves_out().iter().find(|(name, _)| *name == check);
    if let Some((name, why)) = why {
        // Nowhere is left to say that even this failed.
        let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
    }
    why.is_some()
}

/// What a tier leaves out is something that there is, once each, and with a reason.
#[doc(hidden)]
pub fn check_left_out(tier: &impl Tier, checks: &[&str]) {
    let names: Vec<&str> = tier.leaves_out().iter().map(|(name, _)| *name).collect();
    for (at, (name, why)) in tier.leaves_out().iter().enumerate() {
        assert!(checks.contains(name), "`{name}` is left out, but no check");
        assert!(!names[..at].contains(name), "`{name}` is left out twice");
        assert!(why.len() >= 20, "`{name}` is left out, and why? {why:?}");
    }
    assert!(names.len() <= checks.len() / 4, "a tier that leaves out so much is none: {names:?}");
}

/// Makes a test of each check for one tier, on both flavours of the runtime.
#[macro_export]
macro_rules! conformance_tests {
    ($tier:expr) => {
        $crate::conformance_tests!(@each $tier;
            arguments_come_back, calls_arrive_in_order, answers_come_in_any_order, a_fault_is_the_callers,
            an_unknown_method_is_refused, a_deadline_ends_the_call_and_cancels_it,
            a_dropped_reply_cancels_the_call, a_late_answer_is_dropped, too_much_at_once_is_rejected,
            too_much_at_once_waits_in_order, waiting_ends_at_the_deadline, waiting_can_be_given_up,
            death_ends_all_calls, an_answer_sent_before_death_is_delivered,
            large_payloads_pass_both_ways, a_thousand_large_calls_do_not_deadlock,
        );
    };
    (@each $tier:expr; $($check:ident,)*) => {
        #[test]
        fn what_is_left_out_is_named() {
            $crate::conformance::check_left_out(&$tier, &[$(stringify!($check)),*]);
        }

        $(
            mod $check {
                #[allow(unused_imports, reason = "the tier may be named by its full path")]
                use super::*;

                #[tokio::test]
                async fn current_thread() {
                    if !$crate::conformance::is_left_out(&$tier, stringify!($check)) {
                        $crate::conformance::$check(&$tier).await;
                    }
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn multi_thread() {
                    if !$crate::conformance::is_left_out(&$tier, stringify!($check)) {
                        $crate::conformance::$check(&$tier).await;
                    }
                }
            }
        )*
    };
}

const SHORT: Duration = Duration::from_millis(30);
const IN_FLIGHT: u32 = 1024;

fn start<T: Message>(caller: &Arc<dyn Caller>, method: &str, argument: T, timeout: Duration) -> Reply {
    caller.call(Request::new(method, Payload::Typed(&mut Some(argument)), timeout))
}

async fn call<T: Message, R: Message>(caller: &Arc<dyn Caller>, method: &str, argument: T) -> R {
    let answer = start(caller, method, argument, PATIENCE).await;
    answer.expect("the call succeeds").decode().expect("the answer is what the method gives")
}

fn text(result: CallResult) -> String {
    result.and_then(|answer| Ok(answer.decode::<String>()?)).expect("the call succeeds")
}

/// Encoded and typed.
pub async fn arguments_come_back(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let echoed: Vec<String> = call(&caller, "echo", vec!["a".to_owned(), "b".to_owned()]).await;
    assert_eq!(echoed, ["a", "b"]);
    let encoded = Encoded::from_value(&7_u32).expect("a number is encoded");
    let request = Request::new("echo", Payload::Encoded(encoded.clone()), PATIENCE);
    let answer = caller.call(request).await.and_then(|answer: Answer| Ok(answer.into_encoded()?));
    assert_eq!(answer.expect("the call succeeds"), encoded);
}

/// Calls of one caller arrive in the order in which they were made.
pub async fn calls_arrive_in_order(tier: &impl Tier) {
    let caller = tier.start(50).await;
    let replies: Vec<Reply> = (0..300).map(|_| start(&caller, "ticket", (), PATIENCE)).collect();
    for (expected, reply) in (0_u64..).zip(replies) {
        let ticket: u64 = reply.await.expect("the call succeeds").decode().expect("a ticket is a number");
        assert_eq!(ticket, expected);
    }
}

/// A later call may end first.
pub async fn answers_come_in_any_order(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let first = start(&caller, "hold", "first".to_owned(), PATIENCE);
    let second = start(&caller, "hold", "second".to_owned(), PATIENCE);
    call::<_, ()>(&caller, "release", "second".to_owned()).await;
    assert_eq!(text(second.await), "second");
    call::<_, ()>(&caller, "release", "first".to_owned()).await;
    assert_eq!(text(first.await), "first");
}

/// And nobody else notices.
pub async fn a_fault_is_the_callers(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let result = start(&caller, "fail", "no such luck".to_owned(), PATIENCE).await;
    let Err(CallError::Fault(fault)) = result else { panic!("{result:?}") };
    assert_eq!(fault.message, "no such luck");
    assert_eq!(call::<_, u32>(&caller, "echo", 1_u32).await, 1);
}

/// Without a word to the extension.
pub async fn an_unknown_method_is_refused(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let result = start(&caller, "no-such-method", (), PATIENCE).await;
    let Err(CallError::Fault(fault)) = result else { panic!("{result:?}") };
    assert_eq!(fault.code, ipc_protocol::FaultCode::UnknownMethod);
}

/// The cancel is there before whatever is called next.
pub async fn a_deadline_ends_the_call_and_cancels_it(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let result = start(&caller, "hold", "key".to_owned(), SHORT).await;
    assert!(matches!(result, Err(CallError::Unknown(Cause::Deadline))), "{result:?}");
    assert_eq!(call::<_, u64>(&caller, "cancels", ()).await, 1);
}

/// Whether it was polled or not.
pub async fn a_dropped_reply_cancels_the_call(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    drop(start(&caller, "hold", "unpolled".to_owned(), PATIENCE));
    let mut polled = start(&caller, "hold", "polled".to_owned(), PATIENCE);
    call::<_, u64>(&caller, "cancels", ()).await;
    let pending = tokio::time::timeout(Duration::ZERO, &mut polled).await;
    assert!(pending.is_err(), "{pending:?}");
    drop(polled);
    assert_eq!(call::<_, u64>(&caller, "cancels", ()).await, 2);
}

/// It is nobody's fault.
pub async fn a_late_answer_is_dropped(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let result = start(&caller, "hold", "stubborn".to_owned(), SHORT).await;
    assert!(matches!(result, Err(CallError::Unknown(Cause::Deadline))), "{result:?}");
    call::<_, ()>(&caller, "release", "stubborn".to_owned()).await;
    assert_eq!(call::<_, u32>(&caller, "echo", 2_u32).await, 2);
}

/// If the caller said so; with the advice to come back.
pub async fn too_much_at_once_is_rejected(tier: &impl Tier) {
    let caller = tier.start(2).await;
    let first = start(&caller, "hold", "first".to_owned(), PATIENCE);
    let second = start(&caller, "hold", "second".to_owned(), PATIENCE);
    let payload = &mut Some("third".to_owned());
    let result = caller.call(Request::new("echo", Payload::Typed(payload), PATIENCE).or_reject()).await;
    assert!(matches!(result, Err(CallError::Rejected { retry_after: Some(_), .. })), "{result:?}");
    drop(first);
    assert!(matches!(text_or_error(second, &caller).await.as_deref(), Ok("second")));
}

async fn text_or_error(held: Reply, caller: &Arc<dyn Caller>) -> Result<String, CallError> {
    call::<_, ()>(caller, "release", "second".to_owned()).await;
    held.await.and_then(|answer| Ok(answer.decode()?))
}

/// The first that waits is the first that goes.
pub async fn too_much_at_once_waits_in_order(tier: &impl Tier) {
    let caller = tier.start(1).await;
    let holds = start(&caller, "hold", "key".to_owned(), SHORT);
    let waiting: Vec<Reply> = (0..20).map(|_| start(&caller, "ticket", (), PATIENCE)).collect();
    let result = holds.await;
    assert!(matches!(result, Err(CallError::Unknown(Cause::Deadline))), "{result:?}");
    for (expected, reply) in (0_u64..).zip(waiting) {
        let ticket: u64 = reply.await.expect("the call succeeds").decode().expect("a ticket is a number");
        assert_eq!(ticket, expected);
    }
}

/// And then it is certain that nothing was called.
pub async fn waiting_ends_at_the_deadline(tier: &impl Tier) {
    let caller = tier.start(1).await;
    let holds = start(&caller, "hold", "stubborn".to_owned(), PATIENCE);
    let result = start(&caller, "ticket", (), SHORT).await;
    assert!(matches!(result, Err(CallError::NotDelivered(Cause::Deadline))), "{result:?}");
    drop(holds);
}

/// It takes nobody's place.
pub async fn waiting_can_be_given_up(tier: &impl Tier) {
    let caller = tier.start(1).await;
    let holds = start(&caller, "hold", "key".to_owned(), SHORT);
    let given_up = start(&caller, "ticket", (), PATIENCE);
    let kept = start(&caller, "ticket", (), PATIENCE);
    drop(given_up);
    drop(holds);
    let ticket: u64 = kept.await.expect("the call succeeds").decode().expect("a ticket is a number");
    assert_eq!(ticket, 0);
}

/// At once, with the cause, and certain only where it is.
pub async fn death_ends_all_calls(tier: &impl Tier) {
    for when in ["before", "inside"] {
        let caller = tier.start(3).await;
        let held = start(&caller, "hold", "key".to_owned(), PATIENCE);
        let also_held = start(&caller, "hold", "other".to_owned(), PATIENCE);
        let ending = start(&caller, "end", when.to_owned(), PATIENCE);
        let waiting = start(&caller, "echo", (), PATIENCE);
        for reply in [held, also_held, ending] {
            let result = reply.await;
            assert!(matches!(result, Err(CallError::Unknown(Cause::Died(_)))), "{when}: {result:?}");
        }
        let result = waiting.await;
        assert!(matches!(result, Err(CallError::NotDelivered(Cause::Died(_)))), "{when}: {result:?}");
        let result = start(&caller, "echo", (), PATIENCE).await;
        assert!(matches!(result, Err(CallError::NotDelivered(Cause::Died(_)))), "{when}: {result:?}");
    }
}

/// Death comes after what was said before it.
pub async fn an_answer_sent_before_death_is_delivered(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let held = start(&caller, "hold", "key".to_owned(), PATIENCE);
    call::<_, ()>(&caller, "end", "after".to_owned()).await;
    let result = held.await;
    assert!(matches!(result, Err(CallError::Unknown(Cause::Died(_)))), "{result:?}");
}

/// Larger than any buffer on the way.
pub async fn large_payloads_pass_both_ways(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let size = 5 << 20;
    let sent = Encoded::message_pack(bin(size));
    let request = Request::new("echo", Payload::Encoded(sent.clone()), PATIENCE);
    let echoed = caller.call(request).await.and_then(|answer| Ok(answer.into_encoded()?));
    assert!(echoed.expect("the call succeeds") == sent);
    let produced = start(&caller, "produce", size, PATIENCE).await;
    assert!(produced.and_then(|answer| Ok(answer.into_encoded()?)).expect("the call succeeds") == sent);
}

/// Both buffers are full long before the last call is made: whoever wrote all before reading would hang.
pub async fn a_thousand_large_calls_do_not_deadlock(tier: &impl Tier) {
    let caller = tier.start(IN_FLIGHT).await;
    let sent = Encoded::message_pack(bin(40_000));
    let replies: Vec<Reply> = (0..1000)
        .map(|_| caller.call(Request::new("echo", Payload::Encoded(sent.clone()), PATIENCE)))
        .collect();
    for reply in replies {
        let answer = reply.await.and_then(|answer| Ok(answer.into_encoded()?));
        assert!(answer.expect("the call succeeds") == sent);
    }
}
