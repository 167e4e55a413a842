//! The reference extension of `ipc-testkit` as a table of C functions, by hand: it completes calls at once, later,
//! from within another one, and never, as its methods say.

#![expect(unsafe_code, reason = "a table's functions take pointers")]

use std::collections::HashMap;
use std::ffi::c_void;

use extension_abi::{Bytes, Call, FAULT, Host, MAGIC, OK, RESULT, Sink, Table, VERSION};
use ipc_protocol::describe::{DESCRIPTION_VERSION, Description, InterfaceDescription, MethodDescription};
use ipc_protocol::{Fault, FaultCode};
use ipc_testkit::reference::{METHODS, bin};
use ipc_transport::{Encoded, Message};
use parking_lot::Mutex;

pub(crate) static TABLE: Table = table("reference", VERSION);

/// As [`TABLE`], of this version and name.
pub(crate) const fn table(name: &'static str, version: u32) -> Table {
    Table {
        magic: MAGIC,
        version,
        #[expect(clippy::cast_possible_truncation, reason = "it has some dozens of bytes")]
        size: size_of::<Table>() as u32,
        name: Bytes::of(name.as_bytes()),
        extension_version: Bytes::of(b"1.2.3"),
        describe,
        start,
        call,
        cancel,
        drain: nothing,
        stop,
    }
}

struct Reference {
    host: &'static Host,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tickets: u64,
    cancels: u64,
    held: HashMap<String, u64>,
}

// SAFETY: (of these functions) the host keeps the rules of `extension_abi::Table`.
unsafe extern "C" fn describe(out: Sink) -> u32 {
    let method = |name: &&str| MethodDescription {
        name: (*name).to_owned(),
        documentation: String::new(),
        idempotent: *name == "echo",
        pure: false,
        arguments_schema: "{}".to_owned(),
        result_schema: "{}".to_owned(),
        schema_hash: 0,
    };
    let interface = InterfaceDescription {
        name: "Reference".to_owned(),
        documentation: String::new(),
        methods: METHODS.iter().map(method).collect(),
    };
    let description = Description {
        version: DESCRIPTION_VERSION,
        extension: "reference".to_owned(),
        extension_version: "1.2.3".to_owned(),
        protocol_versions: vec![1],
        interfaces: vec![interface],
        config_schema: String::new(),
    };
    let document = serde_json::to_vec(&description).expect("it can be encoded");
    // In pieces, as a sink takes them.
    for piece in document.chunks(100) {
        // SAFETY: the sink is valid until this returns.
        unsafe { (out.append)(out.data, Bytes::of(piece)) };
    }
    OK
}

// SAFETY: as of `describe`.
unsafe extern "C" fn start(host: *const Host, _: Bytes, instance: *mut *mut c_void, _: Sink) -> u32 {
    // SAFETY: the host's table lives as long as the process.
    let host = unsafe { &*host };
    let reference = Box::new(Reference { host, state: Mutex::default() });
    // SAFETY: there is room for one word.
    unsafe { instance.write(Box::into_raw(reference).cast()) };
    OK
}

/// # Safety
///
/// `start` made it, and `stop` did not end it yet.
// SAFETY: as its documentation says.
unsafe fn reference<'a>(instance: *mut c_void) -> &'a Reference {
    // SAFETY: the caller says so.
    unsafe { &*instance.cast::<Reference>() }
}

// SAFETY: as of `describe`.
unsafe extern "C" fn call(instance: *mut c_void, call: *const Call) -> u32 {
    // SAFETY: the host names only what runs.
    let reference = unsafe { reference(instance) };
    // SAFETY: it is valid until this returns.
    let call = unsafe { &*call };
    // SAFETY: as above.
    let body = unsafe { call.arguments.read() };
    reference.take(call.id, METHODS[call.method as usize], body);
    OK
}

// SAFETY: as of `describe`.
unsafe extern "C" fn cancel(instance: *mut c_void, call: u64) -> u32 {
    // SAFETY: the host names only what runs.
    unsafe { reference(instance) }.cancel(call);
    OK
}

// SAFETY: as of `describe`.
unsafe extern "C" fn nothing(_: *mut c_void) -> u32 {
    OK
}

// SAFETY: as of `describe`.
unsafe extern "C" fn stop(instance: *mut c_void) -> u32 {
    // SAFETY: `start` made it, and the host names it no more.
    drop(unsafe { Box::from_raw(instance.cast::<Reference>()) });
    OK
}

impl Reference {
    fn complete(&self, call: u64, status: u32, body: &[u8]) {
        // SAFETY: `data` is the host's, and the body is lent until this returns.
        unsafe { (self.host.complete)(self.host.data, call, status, 1, Bytes::of(body)) };
    }

    fn answer<T: Message>(&self, call: u64, value: &T) {
        self.complete(call, RESULT, &Encoded::from_value(value).expect("it can be encoded").bytes);
    }

    fn fault(&self, call: u64, code: FaultCode, text: &str) {
        let fault = Encoded::from_value(&Fault::new(code, text)).expect("it can be encoded");
        self.complete(call, FAULT, &fault.bytes);
    }

    fn take(&self, call: u64, method: &str, body: &[u8]) {
        match method {
            "echo" => self.complete(call, RESULT, body),
            "fail" => self.fault(call, FaultCode::Failed, &argument::<String>(body)),
            "ticket" => {
                let ticket = {
                    let mut state = self.state.lock();
                    state.tickets += 1;
                    state.tickets - 1
                };
                self.answer(call, &ticket);
            }
            "hold" => {
                self.state.lock().held.insert(argument(body), call);
            }
            "release" => {
                let key: String = argument(body);
                let held = self.state.lock().held.remove(&key).expect("a call with this key is held");
                self.answer(held, &key);
                // A second word on it, and one on a call that never was: the host must not mind.
                self.answer(held, &"again".to_owned());
                self.answer(u64::MAX, &());
                self.answer(call, &());
            }
            "cancels" => {
                let cancels = self.state.lock().cancels;
                self.answer(call, &cancels);
            }
            _ => self.complete(call, RESULT, &bin(argument(body))),
        }
    }

    fn cancel(&self, call: u64) {
        let given_up = {
            let mut state = self.state.lock();
            state.cancels += 1;
            let key = state.held.iter().find(|(key, held)| **held == call && !key.starts_with("stubborn"));
            let key = key.map(|(key, _)| key.clone());
            key.and_then(|key| state.held.remove(&key))
        };
        if let Some(call) = given_up {
            self.fault(call, FaultCode::Cancelled, "cancelled");
        }
    }
}

fn argument<T: Message>(body: &[u8]) -> T {
    let body = Encoded::message_pack(body.to_vec());
    body.decode().expect("the arguments are what the method takes")
}
