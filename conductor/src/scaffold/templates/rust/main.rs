//! __NAME__: what it does, in one sentence.
//!
//! The interface is what callers see, `State` is what answers them, and `export!` makes it a program.

use extension_sdk::{Context, Fault, FaultCode};

/// What callers see: each method with its arguments, its result, and what it promises.
#[extension_sdk::interface]
pub trait __INTERFACE__ {
    /// Greets somebody by name.
    #[method(idempotent, pure)]
    fn greet(&self, name: String) -> Result<String, Fault>;

    /// Counts the primes below a number: work that is long enough to be watched, cancelled, and too late.
    #[method(idempotent, pure)]
    fn count_primes(&self, cx: &Context, below: u64) -> Result<u64, Fault>;
}

/// What an instance keeps between calls: nothing yet. Many calls use it at once.
#[derive(Default)]
struct State;

impl __INTERFACE__ for State {
    fn greet(&self, name: String) -> Result<String, Fault> {
        if name.is_empty() {
            return Err(Fault::new(FaultCode::InvalidArgument, "`name` is empty"));
        }
        Ok(format!("Hello, {name}!"))
    }

    fn count_primes(&self, cx: &Context, below: u64) -> Result<u64, Fault> {
        let mut count = 0;
        for number in 2..below {
            // Ends the call as soon as nobody waits for its answer.
            cx.check()?;
            cx.progress(number, Some(below - 1), "looking for primes");
            let mut divisors = (2..).take_while(|divisor| *divisor <= number / divisor);
            count += u64::from(divisors.all(|divisor| !number.is_multiple_of(divisor)));
        }
        Ok(count)
    }
}

extension_sdk::export!(State as __INTERFACE__);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use extension_sdk::testing::{self, OneCall};

    use super::*;

    /// Calls as others do: the arguments and the result are encoded and decoded.
    fn client() -> __INTERFACE__Client {
        __INTERFACE__Client::new(testing::in_process::<State>().expect("it starts"))
    }

    #[test]
    fn it_greets_by_name() {
        let greeting = testing::block_on(client().greet("Ada".to_owned()));
        assert_eq!(greeting.expect("it greets"), "Hello, Ada!");
    }

    #[test]
    fn an_empty_name_is_the_callers_mistake() {
        let fault = testing::fault(client().greet(String::new()));
        assert_eq!(fault.code, FaultCode::InvalidArgument);
    }

    #[test]
    fn long_work_says_how_far_it_is() {
        let call = OneCall::new();
        assert_eq!(State.count_primes(&call.context(), 100), Ok(25));
        let last = call.progress().pop().expect("it reports progress");
        assert_eq!((last.done, last.total), (99, Some(99)));
    }

    #[test]
    fn long_work_ends_when_nobody_waits_for_it() {
        for (call, expected) in [
            (OneCall::cancelled_by_progress(), FaultCode::Cancelled),
            (OneCall::within(Duration::ZERO), FaultCode::DeadlineExceeded),
        ] {
            let ended = State.count_primes(&call.context(), u64::MAX);
            assert_eq!(ended.map_err(|fault| fault.code), Err(expected));
        }
    }
}
