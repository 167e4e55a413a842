//! `export!(Type as Interface, ...)`: the `main` of an extension's process, and the table of its library.

#![allow(unsafe_code, reason = "an exported name is unsafe where it is generated: in the author's crate")]

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Error, Expr, Path, Result, Token, Type};

struct Export {
    kind: Type,
    interfaces: Vec<Path>,
    start: Option<Expr>,
}

impl Parse for Export {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let form =
            "write `export!(Type as Interface)`, or `export!(Type as First, Second, start = function)`";
        let help = |error: Error| Error::new(error.span(), format!("{error}; {form}"));
        let kind = input.parse().map_err(help)?;
        input.parse::<Token![as]>().map_err(help)?;
        let mut interfaces = vec![input.parse::<Path>().map_err(help)?];
        let mut start = None;
        while !input.is_empty() {
            input.parse::<Token![,]>().map_err(help)?;
            if input.is_empty() {
                break;
            }
            let path = input.parse::<Path>().map_err(help)?;
            if input.peek(Token![=]) {
                if !path.is_ident("start") {
                    return Err(help(Error::new(path.span(), "the only option is `start`")));
                }
                if start.is_some() {
                    return Err(help(Error::new(path.span(), "`start` is given twice")));
                }
                input.parse::<Token![=]>()?;
                start = Some(input.parse().map_err(help)?);
            } else {
                interfaces.push(path);
            }
        }
        Ok(Self { kind, interfaces, start })
    }
}

pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let Export { kind, interfaces, start } = syn::parse2(input)?;
    let start = match start {
        Some(start) => quote_spanned!(start.span() => ::extension_sdk::__private::Start::new(#start)),
        None => quote_spanned!(kind.span() => ::extension_sdk::__private::Start::of_default()),
    };
    let interfaces = interfaces
        .iter()
        .map(|interface| quote_spanned!(kind.span() => <#kind as #interface>::__interface()));
    Ok(quote! {
        impl ::extension_sdk::Extension for #kind {
            fn definition() -> ::extension_sdk::Definition<Self> {
                ::extension_sdk::__private::definition(
                    ::core::env!("CARGO_PKG_NAME"),
                    ::core::env!("CARGO_PKG_VERSION"),
                    #start,
                    ::std::vec![#(#interfaces),*],
                )
            }
        }

        // Its name is what the compiler says of a second export, besides that there are two `main`.
        #[doc(hidden)]
        #[allow(dead_code, reason = "only its name counts")]
        const ONE_EXPORT_NAMES_ALL_INTERFACES: () = ();

        /// Runs the extension as this process.
        pub fn main() -> ::std::process::ExitCode {
            ::extension_sdk::run::<#kind>()
        }

        // What a host finds that loads the crate as a library. A test is never loaded, and may have several.
        #[cfg(not(test))]
        const _: () = {
            // SAFETY: the name belongs to these tables, and what has it is one.
            #[unsafe(export_name = "symphony_extension_v1")]
            static TABLE: ::extension_sdk::__private::Table = ::extension_sdk::__private::table::<#kind>(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
            );
        };
    })
}
