//! How the outcome of a call is told to whoever cannot have it as it is: as a fault, and back.
//!
//! An extension that calls another learns so from its host whether the call may have run; an extension that fails because
//! of such a call says so in a fault of its own.

use std::time::Duration;

use ipc_protocol::{Fault, FaultCode, Origin, Retry};

use crate::outcome::{CallError, Cause};

fn after(retry_after: Option<Duration>) -> Retry {
    let after_ms = retry_after.map(|after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
    after_ms.map_or(Retry::Never, |after_ms| Retry::AfterMs(after_ms.max(1)))
}

impl From<CallError> for Fault {
    /// What an extension said stays as it is. Everything else has the origin [`Origin::Transport`], and a code that says
    /// whether the call may have run: [`FaultCode::OutcomeUnknown`] if so, [`FaultCode::NotDelivered`] or
    /// [`FaultCode::Busy`] if not.
    fn from(error: CallError) -> Self {
        let message = match &error {
            CallError::NotDelivered(cause) | CallError::Unknown(cause) => cause.to_string(),
            other => other.to_string(),
        };
        let (code, retry) = match error {
            CallError::Fault(fault) => return fault,
            CallError::NotDelivered(Cause::Broken { retry_after, .. }) => {
                (FaultCode::NotDelivered, after(retry_after))
            }
            CallError::NotDelivered(_) => (FaultCode::NotDelivered, Retry::Now),
            CallError::Unknown(_) => (FaultCode::OutcomeUnknown, Retry::Never),
            CallError::Rejected { retry_after, .. } => (FaultCode::Busy, after(retry_after)),
            CallError::Cancelled => (FaultCode::Cancelled, Retry::Never),
            CallError::Encode(_) | CallError::Decode(_) => (FaultCode::Failed, Retry::Never),
        };
        Self::new(code, message).with_origin(Origin::Transport).with_retry(retry)
    }
}

impl CallError {
    /// The outcome of a host call that ended with `fault`: what the host says of itself stands for what it learned, and
    /// what another extension said stays a fault.
    #[must_use]
    pub fn told_by_host(fault: Fault) -> Self {
        if fault.origin != Origin::Host {
            return fault.into();
        }
        match fault.code {
            FaultCode::NotDelivered => Self::NotDelivered(Cause::Told(fault.message)),
            FaultCode::OutcomeUnknown => Self::Unknown(Cause::Told(fault.message)),
            FaultCode::Busy => {
                let retry_after = match fault.retry {
                    Retry::AfterMs(after_ms) => Some(Duration::from_millis(after_ms.into())),
                    Retry::Now => Some(Duration::ZERO),
                    Retry::Never => None,
                    _ => None,
                };
                Self::Rejected { reason: fault.message, retry_after }
            }
            _ => fault.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_says_on_the_other_side_of_a_host_what_it_said_before() {
        let told = |error: CallError| CallError::told_by_host(Fault::from(error).with_origin(Origin::Host));
        let died = || Cause::Died("SIGKILL".to_owned());
        assert!(
            matches!(told(CallError::NotDelivered(died())), CallError::NotDelivered(Cause::Told(how)) if how == died().to_string())
        );
        assert!(matches!(told(CallError::Unknown(died())), CallError::Unknown(Cause::Told(_))));
        assert!(matches!(told(CallError::Cancelled), CallError::Cancelled));
        let retry_after = Some(Duration::from_millis(7));
        let full = CallError::Rejected { reason: "full".to_owned(), retry_after };
        assert!(matches!(told(full), CallError::Rejected { retry_after: after, .. } if after == retry_after));
    }

    #[test]
    fn what_an_extension_said_is_never_taken_for_a_word_of_the_host() {
        for code in FaultCode::ALL {
            let own = Fault::new(*code, "mine");
            match CallError::told_by_host(own.clone()) {
                CallError::Cancelled => assert_eq!(*code, FaultCode::Cancelled),
                CallError::Fault(fault) => assert_eq!(fault, own),
                other => panic!("{other:?}"),
            }
        }
    }
}
