//! The attribute macros of the extension SDK: `#[message]`, `#[interface]` and `export!`.
//!
//! Authors use them through `extension-sdk`, which documents them. What is generated names only paths below
//! `::extension_sdk`, so that an author depends on that one crate. This crate must not know the wire; it knows
//! what an author may write and says at the author's own line what is wrong.
//!
//! Reading order: `message`, `fast` (what a message of the fast codec has besides), `model` (what an interface says), `trait_item`, `client` and `dispatch`
//! (what is made of it), `export`.

mod client;
mod dispatch;
mod export;
mod fast;
mod message;
mod model;
mod trait_item;

use proc_macro::TokenStream;

/// Makes a struct or an enum something that can be an argument or a result.
///
/// It derives `Serialize`, `Deserialize` and `JsonSchema`; `#[serde(...)]` and `#[schemars(...)]` attributes
/// work as usual, and doc comments become descriptions in the schema.
///
/// `#[message(fast)]`, with the SDK's feature `fast`: methods marked `#[method(fast)]` may take and give it in a
/// codec that leaves out names. Its parts are numbers of up to 64 bits, `bool`, `char`, `String`, `Blob`,
/// `Option`, `Box`, `Vec`, arrays, tuples and maps of these, and other fast messages; not itself. That codec sends
/// every field, in the order in which they are declared: `rename`, `alias` and `default` mean nothing in it, and
/// what would leave out or change a part (`skip`, `flatten`, `with`, `untagged` and the like) is refused. It tells
/// `Some(None)` from `None`, which MessagePack does not: do not use an `Option` of an `Option`.
#[proc_macro_attribute]
pub fn message(arguments: TokenStream, item: TokenStream) -> TokenStream {
    message::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a trait an interface: something that extensions implement and others call.
///
/// Every method takes `&self` and owned arguments, returns `Result<T, Fault>`, and may be `async`. An argument
/// of the type `&Context` is not sent: it is this call's context. A method with exactly one argument, named
/// `request`, takes that value as the whole body of a call; any other takes a map of its arguments' names.
///
/// `#[method(idempotent)]`: may be called again after an unknown outcome. `#[method(pure)]`: the same arguments
/// always give the same result. `#[method(fast)]`, with the SDK's feature `fast`: its arguments and its result are
/// made of numbers, text and fast messages ([`macro@message`]), and travel in the fast codec wherever caller and
/// extension mean the same layout; elsewhere, as those of all other methods, in MessagePack. Besides the trait there is a typed client, the trait's name with `Client`.
#[proc_macro_attribute]
pub fn interface(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let expanded = model::Interface::parse(arguments.into(), item.into()).map(|interface| {
        let mut tokens = trait_item::generate(&interface);
        tokens.extend(client::generate(&interface));
        tokens
    });
    expanded.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// What `#[message(fast)]` derives besides serde and wincode: the layout's text, and a walk over its bytes.
#[doc(hidden)]
#[proc_macro_derive(FastMessage, attributes(serde, wincode))]
pub fn fast_message(item: TokenStream) -> TokenStream {
    fast::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a crate an extension: `export!(Type as Interface)` writes its `main`, and the table by which a host can load
/// it as a library (`crate-type = ["cdylib", "rlib"]`).
///
/// Several interfaces are separated by commas. The value that answers the calls is `Type::default()`, or what
/// `start = function` makes of the `Setup`.
#[proc_macro]
pub fn export(input: TokenStream) -> TokenStream {
    export::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
