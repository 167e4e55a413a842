//! What an extension is: a name, a version, how its value starts, and the interfaces that it implements.

use std::any::TypeId;
use std::fmt;

use ipc_protocol::describe::{DESCRIPTION_VERSION, Description, InterfaceDescription, MethodDescription};
use ipc_protocol::{Fault, FaultCode, PROTOCOL_VERSION};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::arguments;
use crate::interface::Interface;
use crate::schema::schema_of;

/// An extension: implemented by [`crate::export!`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an extension",
    note = "write `extension_sdk::export!({Self} as Interface);`"
)]
pub trait Extension: Send + Sync + Sized + 'static {
    /// What it is, without starting it.
    fn definition() -> Definition<Self>;
}

/// What an extension is made of. Opaque: [`crate::run`] and [`crate::testing`] use it.
pub struct Definition<T> {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) start: Start<T>,
    pub(crate) interfaces: Vec<Interface<T>>,
}

impl<T> fmt::Debug for Definition<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Definition({} {})", self.name, self.version)
    }
}

impl<T> Definition<T> {
    /// What `--describe` prints.
    pub(crate) fn describe(&self) -> Description {
        let methods = |interface: &Interface<T>| {
            let described = interface.methods.iter().map(|method| {
                let schemas = (method.schemas)();
                MethodDescription {
                    name: method.name.to_owned(),
                    documentation: method.documentation.to_owned(),
                    idempotent: method.is_idempotent,
                    pure: method.is_pure,
                    schema_hash: schemas.hash(),
                    arguments_schema: schemas.arguments.to_string(),
                    result_schema: schemas.result.to_string(),
                }
            });
            described.collect()
        };
        let interfaces = self.interfaces.iter().map(|interface| InterfaceDescription {
            name: interface.name.to_owned(),
            documentation: interface.documentation.to_owned(),
            methods: methods(interface),
        });
        Description {
            version: DESCRIPTION_VERSION,
            extension: self.name.to_owned(),
            extension_version: self.version.to_owned(),
            protocol_versions: vec![PROTOCOL_VERSION],
            interfaces: interfaces.collect(),
            config_schema: (self.start.config_schema)(),
        }
    }
}

#[doc(hidden)]
#[must_use]
pub fn definition<T>(
    name: &'static str,
    version: &'static str,
    start: Start<T>,
    interfaces: Vec<Interface<T>>,
) -> Definition<T> {
    Definition { name, version, start, interfaces }
}

/// What an extension's start is given. `C` is the type of the manifest's `[config]` table.
///
/// ```
/// use extension_sdk::{Fault, Setup};
///
/// #[extension_sdk::message]
/// struct Settings { #[serde(default)] verbose: bool }
///
/// struct Explorer { is_verbose: bool }
///
/// impl Explorer {
///     fn start(setup: &Setup<Settings>) -> Result<Self, Fault> {
///         Ok(Self { is_verbose: setup.config().verbose })
///     }
/// }
/// // extension_sdk::export!(Explorer as FileExplorer, start = Explorer::start);
/// ```
#[derive(Debug)]
pub struct Setup<C = NoConfig> {
    config: C,
}

impl<C> Setup<C> {
    /// The manifest's `[config]` table.
    pub fn config(&self) -> &C {
        &self.config
    }
}

/// The configuration of an extension that takes none: a manifest that has a `[config]` table is refused.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

type StartFunction<T> = Box<dyn FnOnce(&[u8]) -> Result<T, Fault> + Send>;

/// How an extension's value comes to be.
#[doc(hidden)]
pub struct Start<T> {
    /// From the `[config]` table as MessagePack, empty if there is none.
    pub(crate) run: StartFunction<T>,
    /// As in [`Description::config_schema`].
    pub(crate) config_schema: fn() -> String,
}

impl<T> fmt::Debug for Start<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Start")
    }
}

impl<T: 'static> Start<T> {
    /// By a function of the author's.
    pub fn new<C>(start: impl FnOnce(&Setup<C>) -> Result<T, Fault> + Send + 'static) -> Self
    where
        C: DeserializeOwned + JsonSchema + 'static,
    {
        Self {
            run: Box::new(|config| start(&Setup { config: decode_config(config)? })),
            config_schema: || {
                if TypeId::of::<C>() == TypeId::of::<NoConfig>() {
                    String::new()
                } else {
                    schema_of::<C>().to_string()
                }
            },
        }
    }

    /// By `Default`.
    #[must_use]
    pub fn of_default() -> Self
    where
        T: Default,
    {
        Self::new(|_: &Setup| Ok(T::default()))
    }
}

fn decode_config<C: DeserializeOwned>(config: &[u8]) -> Result<C, Fault> {
    arguments::decode_as(config, "key").map_err(|fault| {
        Fault::new(FaultCode::InvalidArgument, format!("the manifest's [config] table: {}", fault.message))
    })
}
