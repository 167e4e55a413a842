//! An extension that asks: other extensions, and its host for what is kept. For the host's own tests, which start it
//! several times under the names that they choose.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use extension_sdk::context::ArtifactOut;
use extension_sdk::{CallError, Context, Definition, Extension, Fault, FaultCode};

/// Asks others, and is asked.
#[extension_sdk::interface]
pub trait Asks {
    /// Passes `text` on along `path`; the last one returns it.
    #[method(idempotent)]
    fn pass_on(&self, cx: &Context, path: Vec<String>, text: String) -> Result<String, Fault>;

    /// The same, without a thread that waits.
    async fn pass_on_later(&self, cx: &Context, path: Vec<String>, text: String) -> Result<String, Fault>;

    /// Asks `other` as often at the same time, and counts the answers.
    fn ask_at_once(&self, cx: &Context, other: String, times: u32) -> Result<u32, Fault>;

    /// Never ends: each asks the other.
    fn circle(&self, cx: &Context, others: Vec<String>) -> Result<(), Fault>;

    /// Waits until it is given up.
    fn hold(&self, cx: &Context) -> Result<(), Fault>;

    /// Waits for `other`, which holds; for so many milliseconds if it is not 0.
    fn wait_for(&self, cx: &Context, other: String, timeout_ms: u64) -> Result<(), Fault>;

    /// Asks `other` for a method by its name, with a text.
    fn misbehave(&self, cx: &Context, other: String) -> Result<String, Fault>;

    /// How often it was called, over restarts.
    fn count(&self, cx: &Context) -> Result<u64, Fault>;

    /// Keeps so many bytes.
    fn keep(&self, cx: &Context, bytes: usize) -> Result<(), Fault>;

    /// Makes an artifact of as many bytes; durable if it has a name. Returns its digest.
    fn fill(&self, cx: &Context, bytes: u64, name: Option<String>) -> Result<String, Fault>;

    /// The sum of an artifact's bytes.
    fn sum(&self, cx: &Context, artifact: String) -> Result<u64, Fault>;

    /// Nanoseconds of each of so many calls of `other` with this text, one after the other. Calls that are refused count, too.
    fn time_calls(&self, cx: &Context, other: String, text: String, times: u32) -> Result<Vec<u64>, Fault>;

    /// Nanoseconds until an artifact is mapped, each of so many times: its first and its last byte are looked at.
    fn time_maps(&self, cx: &Context, artifact: String, times: u32) -> Result<Vec<u64>, Fault>;

    /// Begins as many artifacts and commits none of them.
    fn waste(&self, cx: &Context, artifacts: u32) -> Result<(), Fault>;
}

/// What `hostile` has.
#[extension_sdk::interface]
trait Hostile {
    /// As it was told.
    fn misbehave(&self, request: String) -> Result<String, Fault>;
}

#[derive(Default)]
struct Asker;

impl Asks for Asker {
    fn pass_on(&self, cx: &Context, mut path: Vec<String>, text: String) -> Result<String, Fault> {
        if path.is_empty() {
            return Ok(text);
        }
        let next = AsksClient::new(cx.extension(&path.remove(0))?);
        Ok(next.pass_on(path, text).wait()?)
    }

    async fn pass_on_later(
        &self,
        cx: &Context,
        mut path: Vec<String>,
        text: String,
    ) -> Result<String, Fault> {
        if path.is_empty() {
            return Ok(text);
        }
        let next = AsksClient::new(cx.extension(&path.remove(0))?);
        Ok(next.pass_on_later(path, text).await?)
    }

    fn ask_at_once(&self, cx: &Context, other: String, times: u32) -> Result<u32, Fault> {
        let other = AsksClient::new(cx.extension(&other)?);
        let asked: Vec<_> = (0..times).map(|number| other.pass_on(Vec::new(), number.to_string())).collect();
        let mut count = 0;
        for (number, answer) in (0_u32..).zip(asked) {
            count += u32::from(answer.wait()? == number.to_string());
        }
        Ok(count)
    }

    fn circle(&self, cx: &Context, mut others: Vec<String>) -> Result<(), Fault> {
        let next = AsksClient::new(cx.extension(&others[0])?);
        others.rotate_left(1);
        Ok(next.circle(others).wait()?)
    }

    fn hold(&self, cx: &Context) -> Result<(), Fault> {
        loop {
            cx.check()?;
            thread::park_timeout(Duration::from_micros(200));
        }
    }

    fn wait_for(&self, cx: &Context, other: String, timeout_ms: u64) -> Result<(), Fault> {
        let mut other = AsksClient::new(cx.extension(&other)?);
        if timeout_ms > 0 {
            other = other.with_timeout(Duration::from_millis(timeout_ms));
        }
        Ok(other.hold().wait()?)
    }

    fn misbehave(&self, cx: &Context, other: String) -> Result<String, Fault> {
        Ok(HostileClient::new(cx.extension(&other)?).misbehave("x".to_owned()).wait()?)
    }

    fn count(&self, cx: &Context) -> Result<u64, Fault> {
        let count = cx.state().get::<u64>()?.unwrap_or(0) + 1;
        cx.state().put(&count)?;
        Ok(count)
    }

    fn keep(&self, cx: &Context, bytes: usize) -> Result<(), Fault> {
        cx.state().put_bytes(&vec![7; bytes])?;
        match cx.state().bytes()? {
            Some(kept) if kept == vec![7; bytes] => Ok(()),
            other => Err(Fault::new(
                FaultCode::Failed,
                format!("{:?} bytes are kept", other.map(|kept| kept.len())),
            )),
        }
    }

    fn fill(&self, cx: &Context, bytes: u64, name: Option<String>) -> Result<String, Fault> {
        let mut output = cx.artifact_out(bytes)?;
        if output.iter().any(|byte| *byte != 0) {
            return Err(Fault::new(FaultCode::Failed, "it is not zeroed"));
        }
        output.fill(3);
        let made = match name {
            None => output.commit()?,
            Some(name) => output.commit_as(&name)?,
        };
        Ok(made.digest)
    }

    fn sum(&self, cx: &Context, artifact: String) -> Result<u64, Fault> {
        Ok(cx.artifact_in(&artifact)?.iter().map(|byte| u64::from(*byte)).sum())
    }

    fn time_calls(&self, cx: &Context, other: String, text: String, times: u32) -> Result<Vec<u64>, Fault> {
        let other = AsksClient::new(cx.extension(&other)?);
        let timed = (0..times).map(|_| {
            let began = Instant::now();
            let answer = other.pass_on(Vec::new(), text.clone()).wait();
            let time = began.elapsed();
            match answer {
                Ok(answer) if answer != text => Err(Fault::new(FaultCode::Failed, "another answer")),
                Ok(_) => Ok(nanoseconds(time)),
                Err(CallError::Fault(fault)) if fault.code == FaultCode::PermissionDenied => {
                    Ok(nanoseconds(time))
                }
                Err(error) => Err(error.into()),
            }
        });
        timed.collect()
    }

    fn time_maps(&self, cx: &Context, artifact: String, times: u32) -> Result<Vec<u64>, Fault> {
        let timed = (0..times).map(|_| {
            let began = Instant::now();
            let mapped = cx.artifact_in(&artifact)?;
            std::hint::black_box((mapped.first(), mapped.last()));
            Ok(nanoseconds(began.elapsed()))
        });
        timed.collect()
    }

    fn waste(&self, cx: &Context, artifacts: u32) -> Result<(), Fault> {
        Self::begin(cx, artifacts).map(drop)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Asker {
    fn begin(cx: &Context, artifacts: u32) -> Result<Vec<ArtifactOut>, Fault> {
        (0..artifacts).map(|_| cx.artifact_out(1)).collect()
    }
}

impl Extension for Asker {
    /// As [`extension_sdk::export!`] writes it, but for the name.
    fn definition() -> Definition<Self> {
        use extension_sdk::__private::{Start, definition};
        let name = std::env::var("ASKS_NAME").unwrap_or_else(|_| "asks".to_owned());
        definition(name.leak(), "0.1.0", Start::of_default(), vec![<Self as Asks>::__interface()])
    }
}

fn main() -> ExitCode {
    extension_sdk::run::<Asker>()
}
