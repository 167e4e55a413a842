//! `#[message]`: the derives of a value that crosses the bus, through the SDK's re-exports.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Error, Item, Result};

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new(arguments.span(), "`#[message]` takes no arguments"));
    }
    let item: Item = syn::parse2(item)?;
    let lifetime = match &item {
        Item::Struct(item) => item.generics.lifetimes().next().map(Spanned::span),
        Item::Enum(item) => item.generics.lifetimes().next().map(Spanned::span),
        other => return Err(Error::new(other.span(), "`#[message]` stands on a struct or an enum")),
    };
    if let Some(span) = lifetime {
        return Err(Error::new(
            span,
            "a message owns its data, because it is sent to another process: use `String` for `&str`, `Vec<T>` \
             for `&[T]`",
        ));
    }
    Ok(quote! {
        #[derive(
            ::extension_sdk::__private::serde::Serialize,
            ::extension_sdk::__private::serde::Deserialize,
            ::extension_sdk::__private::schemars::JsonSchema,
        )]
        #[serde(crate = "::extension_sdk::__private::serde")]
        #[schemars(crate = "::extension_sdk::__private::schemars")]
        #item
    })
}
