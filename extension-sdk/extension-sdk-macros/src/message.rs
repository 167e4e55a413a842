//! `#[message]`: the derives of a value that crosses the bus, through the SDK's re-exports.

use proc_macro2::{TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, Generics, Ident, Item, Result, Type};

use crate::fast;

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let is_fast = parse_options(arguments)?;
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
    let checks = match &item {
        Item::Struct(item) if !is_sent_otherwise(&item.attrs) => {
            checks(&item.generics, item.fields.iter().map(part))
        }
        Item::Enum(item) if !is_sent_otherwise(&item.attrs) => {
            let variants = item.variants.iter().filter(|variant| !is_sent_otherwise(&variant.attrs));
            checks(&item.generics, variants.flat_map(|variant| &variant.fields).map(part))
        }
        _ => TokenStream::new(),
    };
    let fast = is_fast.then(fast::derives);
    Ok(quote! {
        #checks

        #fast
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

/// Whether a message is `fast`.
fn parse_options(arguments: TokenStream) -> Result<bool> {
    if arguments.is_empty() {
        return Ok(false);
    }
    let span = arguments.span();
    let option: Option<Ident> = syn::parse2(arguments).ok();
    match option.filter(|option| option == "fast") {
        Some(option) => fast::check_feature(&option).map(|()| true),
        None => Err(Error::new(span, "a message can be `fast`")),
    }
}

fn part(field: &Field) -> (&Type, &[Attribute]) {
    (&field.ty, &field.attrs)
}

/// Asks of each part that it can be sent, with an error that says what to write. The derives ask too, but their
/// errors name traits that authors never wrote.
///
/// LIMIT: not of types with parameters, whose parts are known only where they are used, nor of parts that name
/// `Self`, which means nothing beside the type.
pub(crate) fn checks<'a>(
    generics: &Generics,
    parts: impl Iterator<Item = (&'a Type, &'a [Attribute])>,
) -> TokenStream {
    if !generics.params.is_empty() {
        return TokenStream::new();
    }
    let checks: Vec<_> = parts
        .filter(|(kind, attributes)| {
            !is_sent_otherwise(attributes) && !mentions(kind.to_token_stream(), &["Self"])
        })
        .map(|(kind, _)| quote_spanned!(kind.span() => ::extension_sdk::__private::is_part::<#kind>()))
        .collect();
    if checks.is_empty() {
        return TokenStream::new();
    }
    quote!(const _: fn() = || { #(#checks;)* };)
}

/// Options of serde and schemars with which something else than a part's own type is sent, or nothing.
const SENT_OTHERWISE: [&str; 11] = [
    "deserialize_with",
    "from",
    "into",
    "remote",
    "schema_with",
    "serialize_with",
    "skip",
    "skip_deserializing",
    "skip_serializing",
    "try_from",
    "with",
];

/// Whether a part need not be sendable by itself, or may not even be there.
fn is_sent_otherwise(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is = |name| attribute.path().is_ident(name);
        let is_option = is("serde") || is("schemars");
        is("cfg")
            || is("cfg_attr")
            || is_option && mentions(attribute.meta.to_token_stream(), &SENT_OTHERWISE)
    })
}

/// Whether one of `words` stands among the tokens, at any depth.
pub(crate) fn mentions(tokens: TokenStream, words: &[&str]) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => mentions(group.stream(), words),
        TokenTree::Ident(word) => words.iter().any(|other| word == other),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}
